//! Errors, captures and graph updates, as the real driver has them. One test, as the primary
//! context is one.
#![allow(clippy::unwrap_used)]

mod common;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

const SOURCE: &str = r#"
extern "C" __global__ void scale(float* x, float by, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= by;
}
extern "C" __global__ void big(float* x) {
    extern __shared__ float s[];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = s[31 - threadIdx.x];
}
"#;

fn launch(
    stream: &Arc<CudaStream>,
    f: &CudaFunction,
    x: &mut CudaSlice<f32>,
    by: f32,
    n: i32,
) -> Option<CUresult> {
    let cfg = LaunchConfig::for_num_elems(n as u32);
    // SAFETY: the arguments are those of the kernel.
    unsafe { stream.launch_builder(f).arg(x).arg(&by).arg(&n).launch(cfg) }
        .err()
        .map(|e| e.0)
}

fn capture(
    stream: &Arc<CudaStream>,
    f: &CudaFunction,
    x: &mut CudaSlice<f32>,
    by: &[f32],
) -> sys::CUgraph {
    stream
        .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
        .unwrap();
    for b in by {
        assert_eq!(launch(stream, f, x, *b, 64), None);
    }
    let mut graph = std::ptr::null_mut();
    // SAFETY: the stream captures.
    unsafe { sys::cuStreamEndCapture(stream.cu_stream(), &mut graph) }
        .result()
        .unwrap();
    graph
}

#[test]
fn errors_captures_and_updates() {
    common::need_driver();
    let ptx = common::compile(SOURCE);
    {
        let ctx = CudaContext::new(0).unwrap();
        // SAFETY: one stream does all the work of this test.
        unsafe { ctx.disable_event_tracking() };
        let stream = ctx.new_stream().unwrap();
        let bad = ptx.replacen("st.global.f32", "st.globe.f32", 1);
        let module = ctx.load_module(Ptx::from_src(bad)).unwrap();
        assert_eq!(
            module.load_function("scale").err().map(|e| e.0),
            Some(CUresult::CUDA_ERROR_NOT_SUPPORTED)
        );
        let broken = ptx.replacen("ret;", "ret", 1);
        assert_eq!(
            ctx.load_module(Ptx::from_src(broken)).err().map(|e| e.0),
            Some(CUresult::CUDA_ERROR_INVALID_PTX)
        );
        let module = ctx.load_module(Ptx::from_src(ptx.clone())).unwrap();
        assert_eq!(
            module.load_function("nothing").err().map(|e| e.0),
            Some(CUresult::CUDA_ERROR_NOT_FOUND)
        );
        // SAFETY: the memory is not read.
        let huge = unsafe { stream.alloc::<u8>(100 << 30) };
        assert_eq!(
            huge.err().map(|e| e.0),
            Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY)
        );

        let scale = module.load_function("scale").unwrap();
        let mut x = stream.clone_htod(&[1f32; 64]).unwrap();
        // SAFETY: cleaned up at the end of the block.
        unsafe {
            let (one, two, three) = (
                capture(&stream, &scale, &mut x, &[2.0, 3.0]),
                capture(&stream, &scale, &mut x, &[5.0, 7.0]),
                capture(&stream, &scale, &mut x, &[2.0]),
            );
            let mut exec = std::ptr::null_mut();
            sys::cuGraphInstantiateWithFlags(&mut exec, one, 0)
                .result()
                .unwrap();
            sys::cuGraphLaunch(exec, stream.cu_stream())
                .result()
                .unwrap();
            assert_eq!(stream.clone_dtoh(&x).unwrap(), [6f32; 64]);
            let mut info = std::mem::zeroed();
            sys::cuGraphExecUpdate_v2(exec, two, &mut info)
                .result()
                .unwrap();
            sys::cuGraphLaunch(exec, stream.cu_stream())
                .result()
                .unwrap();
            assert_eq!(stream.clone_dtoh(&x).unwrap(), [210f32; 64]);
            assert_eq!(
                sys::cuGraphExecUpdate_v2(exec, three, &mut info),
                CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE
            );
            sys::cuGraphExecDestroy(exec).result().unwrap();
            for g in [one, two, three] {
                sys::cuGraphDestroy(g).result().unwrap();
            }
        }
        // A wait in the middle breaks a capture.
        stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
            .unwrap();
        assert_eq!(launch(&stream, &scale, &mut x, 1.0, 64), None);
        assert_eq!(
            stream.synchronize().err().map(|e| e.0),
            Some(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        );
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream captures.
        let end = unsafe { sys::cuStreamEndCapture(stream.cu_stream(), &mut graph) };
        assert_eq!(end, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        assert_eq!(launch(&stream, &scale, &mut x, 1.0, 64), None);

        // Two streams in one capture, joined by events; without the second event the end is
        // refused.
        let other = ctx.new_stream().unwrap();
        for joined in [true, false] {
            stream
                .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
                .unwrap();
            let fork = stream.record_event(None).unwrap();
            other.wait(&fork).unwrap();
            assert_eq!(launch(&other, &scale, &mut x, 2.0, 64), None);
            if joined {
                let join = other.record_event(None).unwrap();
                stream.wait(&join).unwrap();
            }
            // SAFETY: the stream captures.
            let end = unsafe { sys::cuStreamEndCapture(stream.cu_stream(), &mut graph) };
            assert_eq!(end == CUresult::CUDA_SUCCESS, joined, "{end:?}");
        }

        // More dynamic shared memory than a kernel may have without asking.
        let big = module.load_function("big").unwrap();
        let go = |x: &mut CudaSlice<f32>| {
            let cfg = LaunchConfig {
                grid_dim: (1, 1, 1),
                block_dim: (32, 1, 1),
                shared_mem_bytes: 100 << 10,
            };
            // SAFETY: the argument is the kernel's.
            unsafe { stream.launch_builder(&big).arg(x).launch(cfg) }
                .err()
                .map(|e| e.0)
        };
        assert_eq!(go(&mut x), Some(CUresult::CUDA_ERROR_INVALID_VALUE));
        big.set_attribute(
            sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            100 << 10,
        )
        .unwrap();
        assert_eq!(go(&mut x), None);

        // A fault ends the context: every later call says so.
        assert_eq!(
            launch(&stream, &scale, &mut x, 1.0, 65),
            Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS)
        );
        assert_eq!(
            stream.synchronize().err().map(|e| e.0),
            Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS)
        );
        assert_eq!(
            launch(&stream, &scale, &mut x, 1.0, 64),
            Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS)
        );
    }
    // A new one starts afresh.
    let ctx = CudaContext::new(0).unwrap();
    let stream = ctx.new_stream().unwrap();
    let module = ctx.load_module(Ptx::from_src(ptx)).unwrap();
    let mut x = stream.clone_htod(&[3f32; 64]).unwrap();
    assert_eq!(
        launch(
            &stream,
            &module.load_function("scale").unwrap(),
            &mut x,
            2.0,
            64
        ),
        None
    );
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [6f32; 64]);
}
