//! Several devices of one driver, through cudarc: a context each, and nothing of one is used in
//! another. A file of its own, because the number of devices is read once per process.
#![allow(clippy::unwrap_used)]

mod common;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, result};

#[test]
fn objects_belong_to_the_context_of_their_device() {
    // SAFETY: no other thread of this process reads the environment yet.
    unsafe { std::env::set_var("OFFSHOOT_EMULATOR_DEVICES", "2") };
    common::need_driver();
    let ptx = common::compile("extern \"C\" __global__ void one(int* x) { *x = 1; }");
    let (first, second) = (CudaContext::new(0).unwrap(), CudaContext::new(1).unwrap());
    assert_eq!(CudaContext::device_count().unwrap(), 2);
    assert!(CudaContext::new(2).is_err());
    assert_ne!(first.uuid().unwrap(), second.uuid().unwrap());

    first.bind_to_thread().unwrap();
    let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    // SAFETY: the context is current.
    let memory = unsafe { result::malloc_sync(64) }.unwrap();
    let module = first
        .load_module(cudarc::nvrtc::Ptx::from_src(ptx))
        .unwrap();
    let event =
        result::event::create(cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap();
    let fill = || {
        // SAFETY: memory of 64 bytes.
        unsafe { result::memset_d8_async(memory, 1, 64, stream) }.err()
    };
    assert_eq!(fill().map(|e| e.0), None);

    second.bind_to_thread().unwrap();
    let refused = Some(CUresult::CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(fill().map(|e| e.0), refused);
    // SAFETY: memory that lives.
    let freed = unsafe { result::free_sync(memory) };
    assert_eq!(freed.err().map(|e| e.0), refused);
    let other = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    // SAFETY: both live.
    let recorded = unsafe { result::event::record(event, other) };
    assert!(recorded.is_err(), "an event of another context");
    let function = module.load_function("one").unwrap();
    // `load_function` has made the first context the current one.
    second.bind_to_thread().unwrap();
    let mut argument = memory;
    let mut arguments = [std::ptr::from_mut(&mut argument).cast()];
    let mut launch = |stream| {
        let handle = function.cu_function();
        // SAFETY: a loaded kernel and its one argument.
        unsafe { result::launch_kernel(handle, (1, 1, 1), (1, 1, 1), 0, stream, &mut arguments) }
    };
    assert_eq!(launch(other).err().map(|e| e.0), refused);
    first.bind_to_thread().unwrap();
    assert_eq!(launch(stream).err().map(|e| e.0), None);
    // SAFETY: nothing uses them any more.
    unsafe {
        result::free_sync(memory).unwrap();
        result::stream::destroy(stream).unwrap();
        result::event::destroy(event).unwrap();
        second.bind_to_thread().unwrap();
        result::stream::destroy(other).unwrap();
    }
}
