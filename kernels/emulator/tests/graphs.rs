//! Graphs through the driver API: copies and fills in a capture, nodes made by hand, parameters
//! read and changed, child graphs, capture modes; and counters read by the program itself. One
//! test, as the primary context is one.
#![allow(clippy::unwrap_used)]

mod common;

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode as Mode};
use cudarc::driver::{CudaContext, DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::ffi::{CString, c_char, c_int, c_void};

const SOURCE: &str = r#"
extern "C" __global__ void add(float* x, float by, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += by;
}
extern "C" __global__ void copy(const float* from, float* to, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = from[i];
}
"#;

extern "C" fn note(data: *mut c_void) {
    // SAFETY: the node's argument is a counter that outlives the graph.
    unsafe { *data.cast::<u32>() += 1 };
}

fn ok(r: CUresult) {
    r.result().unwrap();
}

fn kernel_node(f: sys::CUfunction, params: &mut [*mut c_void]) -> sys::CUDA_KERNEL_NODE_PARAMS {
    // SAFETY: numbers and pointers, for which zero is a value.
    let mut p: sys::CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
    p.func = f;
    (p.gridDimX, p.gridDimY, p.gridDimZ) = (1, 1, 1);
    (p.blockDimX, p.blockDimY, p.blockDimZ) = (64, 1, 1);
    p.kernelParams = params.as_mut_ptr();
    p
}

fn symbol(name: &str) -> *mut c_void {
    let name = CString::new(name).unwrap();
    // SAFETY: the library was opened with global symbols.
    let p = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    assert!(!p.is_null());
    p
}

#[test]
fn graphs_and_counters_as_a_program_uses_them() {
    common::need_driver();
    let ptx = common::compile(SOURCE);
    let ctx = CudaContext::new(0).unwrap();
    // SAFETY: one stream does all the work of this test but where it says otherwise.
    unsafe { ctx.disable_event_tracking() };
    let stream = ctx.new_stream().unwrap();
    let module = ctx.load_module(Ptx::from_src(ptx)).unwrap();
    let add = module.load_function("add").unwrap();
    let n = 64i32;
    let cfg = LaunchConfig::for_num_elems(64);

    // A decode step's shape: copy the inputs in, fill, launch, copy out, all captured.
    let mut input = vec![1f32; 64];
    let mut x = stream.alloc_zeros::<f32>(64).unwrap();
    let mut y = stream.alloc_zeros::<f32>(64).unwrap();
    let mut output = vec![0f32; 64];
    stream
        .begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED)
        .unwrap();
    stream.memcpy_htod(&input, &mut x).unwrap();
    // SAFETY: the arguments are those of the kernel.
    unsafe {
        stream
            .launch_builder(&add)
            .arg(&mut x)
            .arg(&2f32)
            .arg(&n)
            .launch(cfg)
    }
    .unwrap();
    stream.memset_zeros(&mut y).unwrap();
    stream
        .memcpy_dtod(&x.slice(..32), &mut y.slice_mut(32..))
        .unwrap();
    stream.memcpy_dtoh(&y, &mut output).unwrap();
    // Another stream may allocate meanwhile in this mode.
    let other = ctx.new_stream().unwrap();
    drop(other.alloc_zeros::<f32>(8).unwrap());
    let graph = stream
        .end_capture(sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)
        .unwrap()
        .unwrap();
    assert_eq!(output, [0f32; 64], "a capture runs nothing");
    graph.launch().unwrap();
    assert_eq!((output[0], output[32]), (0.0, 3.0));
    input[0] = 5.0;
    graph.launch().unwrap();
    assert_eq!(output[32], 7.0, "the copy reads its source again");

    // The nodes of the capture, their kinds and their order.
    let raw = graph.cu_graph();
    let mut nodes = [std::ptr::null_mut(); 8];
    let mut count = nodes.len();
    // SAFETY: the handles are live, the arrays as long as said.
    unsafe {
        ok(sys::cuGraphGetNodes(raw, nodes.as_mut_ptr(), &mut count));
        let kinds: Vec<u32> = nodes[..count]
            .iter()
            .map(|node| {
                let mut kind = std::mem::zeroed();
                ok(sys::cuGraphNodeGetType(*node, &mut kind));
                kind as u32
            })
            .collect();
        assert_eq!(kinds, [1, 0, 2, 1, 1]);
        let (mut before, mut one) = ([std::ptr::null_mut(); 2], 2);
        ok(sys::cuGraphNodeGetDependencies(
            nodes[1],
            before.as_mut_ptr(),
            &mut one,
        ));
        assert_eq!((one, before[0]), (1, nodes[0]));

        // The kernel's parameters, read and changed in the instantiated graph.
        let mut p = std::mem::zeroed();
        ok(sys::cuGraphKernelNodeGetParams_v2(nodes[1], &mut p));
        assert_eq!((p.gridDimX, p.blockDimX), (1, 1024));
        assert_eq!(**p.kernelParams.add(1).cast::<*const f32>(), 2.0);
        let mut by = 10f32;
        let mut args = [
            *p.kernelParams,
            (&raw mut by).cast(),
            *p.kernelParams.add(2),
        ];
        p.kernelParams = args.as_mut_ptr();
        ok(sys::cuGraphExecKernelNodeSetParams_v2(
            graph.cu_graph_exec(),
            nodes[1],
            &p,
        ));
        graph.launch().unwrap();
        assert_eq!(output[32], 15.0);
        // The copy and the fill likewise.
        let mut c = std::mem::MaybeUninit::uninit();
        ok(sys::cuGraphMemcpyNodeGetParams(nodes[3], c.as_mut_ptr()));
        let mut c: sys::CUDA_MEMCPY3D = c.assume_init();
        assert_eq!((c.WidthInBytes, c.Height, c.Depth), (128, 1, 1));
        c.WidthInBytes = 64;
        ok(sys::cuGraphExecMemcpyNodeSetParams(
            graph.cu_graph_exec(),
            nodes[3],
            &c,
            std::ptr::null_mut(),
        ));
        let mut m = std::mem::zeroed();
        ok(sys::cuGraphMemsetNodeGetParams(nodes[2], &mut m));
        assert_eq!((m.width * m.elementSize as usize, m.height), (256, 1));
        m.value = 1;
        m.elementSize = 4;
        m.width = 64;
        ok(sys::cuGraphExecMemsetNodeSetParams(
            graph.cu_graph_exec(),
            nodes[2],
            &m,
            std::ptr::null_mut(),
        ));
        graph.launch().unwrap();
        assert_eq!((output[32], output[47]), (15.0, 11.0));
        assert_eq!(output[48].to_bits(), 1);
        // A node that is switched off is left out.
        ok(sys::cuGraphNodeSetEnabled(
            graph.cu_graph_exec(),
            nodes[1],
            0,
        ));
        graph.launch().unwrap();
        assert_eq!(output[32], 5.0);
        // A parameter node of another kind is refused.
        assert_eq!(
            sys::cuGraphExecKernelNodeSetParams_v2(graph.cu_graph_exec(), nodes[0], &p),
            CUresult::CUDA_ERROR_INVALID_VALUE
        );
    }

    // A graph made by hand, its nodes added against their order, with a child and a host function.
    let at = {
        let (at, _guard) = y.device_ptr_mut(&stream);
        at
    };
    let mut calls = 0u32;
    // SAFETY: the structures are filled as the API says; the handles are destroyed at the end.
    unsafe {
        let f = {
            let mut p = std::mem::zeroed();
            ok(sys::cuGraphKernelNodeGetParams_v2(nodes[1], &mut p));
            p.func
        };
        let (mut a, mut by, mut len) = (at, 4f32, n);
        let mut args = [
            (&raw mut a).cast(),
            (&raw mut by).cast(),
            (&raw mut len).cast(),
        ];
        let mut inner = std::ptr::null_mut();
        ok(sys::cuGraphCreate(&mut inner, 0));
        let p = kernel_node(f, &mut args);
        let mut node = std::ptr::null_mut();
        ok(sys::cuGraphAddKernelNode_v2(
            &mut node,
            inner,
            std::ptr::null(),
            0,
            &p,
        ));
        let mut outer = std::ptr::null_mut();
        ok(sys::cuGraphCreate(&mut outer, 0));
        let (mut child, mut fill, mut host, mut join) = (
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        ok(sys::cuGraphAddChildGraphNode(
            &mut child,
            outer,
            std::ptr::null(),
            0,
            inner,
        ));
        let m = sys::CUDA_MEMSET_NODE_PARAMS {
            dst: at,
            pitch: 0,
            value: 0,
            elementSize: 4,
            width: 64,
            height: 1,
        };
        ok(sys::cuGraphAddMemsetNode(
            &mut fill,
            outer,
            std::ptr::null(),
            0,
            &m,
            std::ptr::null_mut(),
        ));
        ok(sys::cuGraphAddDependencies(outer, &fill, &child, 1));
        let h = sys::CUDA_HOST_NODE_PARAMS {
            fn_: Some(std::mem::transmute::<
                extern "C" fn(*mut c_void),
                unsafe extern "C" fn(*mut c_void),
            >(note)),
            userData: (&raw mut calls).cast(),
        };
        ok(sys::cuGraphAddHostNode(&mut host, outer, &child, 1, &h));
        ok(sys::cuGraphAddEmptyNode(
            &mut join,
            outer,
            [child, host].as_ptr(),
            2,
        ));
        let (mut roots, mut one) = ([std::ptr::null_mut(); 4], 4);
        ok(sys::cuGraphGetRootNodes(
            outer,
            roots.as_mut_ptr(),
            &mut one,
        ));
        assert_eq!((one, roots[0]), (1, fill));
        let mut edges = 0;
        ok(sys::cuGraphGetEdges(
            outer,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &mut edges,
        ));
        assert_eq!(edges, 4);
        let mut exec = std::ptr::null_mut();
        ok(sys::cuGraphInstantiateWithFlags(&mut exec, outer, 0));
        for _ in 0..2 {
            ok(sys::cuGraphLaunch(exec, stream.cu_stream()));
        }
        assert_eq!(
            stream.clone_dtoh(&y).unwrap(),
            [4f32; 64],
            "the fill comes first"
        );
        assert_eq!(calls, 2);
        // The same graph with another function takes the place of the old one; one with a node more
        // does not.
        (&raw mut by).write(9.0);
        ok(sys::cuGraphKernelNodeSetParams_v2(node, &p));
        let mut again = std::ptr::null_mut();
        ok(sys::cuGraphClone(&mut again, outer));
        let mut twin = std::ptr::null_mut();
        ok(sys::cuGraphNodeFindInClone(&mut twin, child, again));
        ok(sys::cuGraphExecChildGraphNodeSetParams(exec, child, inner));
        ok(sys::cuGraphLaunch(exec, stream.cu_stream()));
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [9f32; 64]);
        let mut info = std::mem::zeroed();
        ok(sys::cuGraphExecUpdate_v2(exec, again, &mut info));
        ok(sys::cuGraphDestroyNode(twin));
        assert_eq!(
            sys::cuGraphExecUpdate_v2(exec, again, &mut info),
            CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE
        );
        // A launch inside of a capture becomes a child.
        stream
            .begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .unwrap();
        ok(sys::cuGraphLaunch(exec, stream.cu_stream()));
        let mut captured = std::ptr::null_mut();
        ok(sys::cuStreamEndCapture(stream.cu_stream(), &mut captured));
        let (mut only, mut one) = ([std::ptr::null_mut(); 2], 2);
        ok(sys::cuGraphGetNodes(captured, only.as_mut_ptr(), &mut one));
        let mut kind = std::mem::zeroed();
        ok(sys::cuGraphNodeGetType(only[0], &mut kind));
        assert_eq!((one, kind as u32), (1, 4));
        // A circle is refused.
        ok(sys::cuGraphAddDependencies(outer, &host, &fill, 1));
        let mut bad = std::ptr::null_mut();
        assert_eq!(
            sys::cuGraphInstantiateWithFlags(&mut bad, outer, 0),
            CUresult::CUDA_ERROR_INVALID_VALUE
        );
        ok(sys::cuGraphExecDestroy(exec));
        for g in [inner, outer, again, captured] {
            ok(sys::cuGraphDestroy(g));
        }
    }

    // An allocation breaks a global capture, from any thread.
    stream
        .begin_capture(Mode::CU_STREAM_CAPTURE_MODE_GLOBAL)
        .unwrap();
    let refused = std::thread::scope(|s| {
        s.spawn(|| {
            ctx.bind_to_thread().unwrap();
            let mut p = 0;
            // SAFETY: `p` takes the address.
            unsafe { sys::cuMemAlloc_v2(&mut p, 64) }
        })
        .join()
        .unwrap()
    });
    assert_eq!(refused, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    let mut broken = std::ptr::null_mut();
    // SAFETY: the stream captures.
    let end = unsafe { sys::cuStreamEndCapture(stream.cu_stream(), &mut broken) };
    assert_eq!(end, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

    // Counters: started, read and stopped by the program, with one buffer's traffic by itself.
    let copy = module.load_function("copy").unwrap();
    let from = stream.clone_htod(&vec![1f32; 4096]).unwrap();
    let mut to = stream.alloc_zeros::<f32>(4096).unwrap();
    // SAFETY: the functions have these types in the library.
    let (count, range, counters) = unsafe {
        (
            std::mem::transmute::<*mut c_void, extern "C" fn(c_int) -> c_int>(symbol(
                "offshoot_emulator_count",
            )),
            std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char, u64, u64) -> c_int>(
                symbol("offshoot_emulator_name_range"),
            ),
            std::mem::transmute::<
                *mut c_void,
                extern "C" fn(*mut c_char, usize, *mut usize) -> c_int,
            >(symbol("offshoot_emulator_counters")),
        )
    };
    let go = |to: &mut cudarc::driver::CudaSlice<f32>| {
        // SAFETY: the arguments are those of the kernel.
        unsafe {
            stream
                .launch_builder(&copy)
                .arg(&from)
                .arg(to)
                .arg(&4096i32)
                .launch(LaunchConfig {
                    grid_dim: (32, 1, 1),
                    block_dim: (128, 1, 1),
                    shared_mem_bytes: 0,
                })
        }
        .unwrap();
    };
    let read = || {
        let mut needed = 0;
        assert_eq!(counters(std::ptr::null_mut(), 0, &mut needed), 0);
        let mut buffer = vec![0u8; needed];
        assert_eq!(counters(buffer.as_mut_ptr().cast(), needed, &mut needed), 0);
        CString::from_vec_with_nul(buffer)
            .unwrap()
            .into_string()
            .unwrap()
    };
    assert!(!read().contains("\"kernel\""));
    let first = {
        let (at, _guard) = from.device_ptr(&stream);
        at
    };
    let name = CString::new("weights").unwrap();
    assert_eq!(range(name.as_ptr(), first, 8192), 0);
    assert_eq!(count(1), 0);
    go(&mut to);
    go(&mut to);
    assert_eq!(count(0), 0);
    go(&mut to);
    let json = read();
    assert!(
        json.contains("\"kernel\": \"copy\", \"launches\": 2"),
        "{json}"
    );
    // Half of the source lies in the range: 64 warp requests of 4 sectors, from DRAM the first
    // time.
    let weights = "\"weights\": {\"load\": {\"requests\": 64, \"sectors\": 256, \"bytes_used\": 8192}, \"store\": {\"requests\": 0, \"sectors\": 0, \"bytes_used\": 0}, \"atomic\": {\"requests\": 0, \"sectors\": 0, \"bytes_used\": 0}, \"l2_hit_sectors\": 0, \"l2_miss_sectors\": 256, \"dram_read_bytes\": 8192}";
    assert!(json.contains(weights), "{json}");
    assert!(
        json.contains("\"l2_hit_sectors\": 256, \"l2_miss_sectors\": 0, \"dram_read_bytes\": 0}"),
        "{json}"
    );
    assert_eq!(count(1), 0);
    assert!(!read().contains("copy"), "a new start forgets");
    assert_eq!(count(0), 0);
}
