//! The driver's C interface over [`crate::Gpu`].
//!
//! Work is done in the order of the calls, which is one of the orders that streams allow; a
//! capturing stream records it instead. Handles are numbers that are looked up, so a stale one is
//! an error and not a crash.
#![allow(non_snake_case)]

mod context;
mod graph;
mod launch;
mod memory;
mod module;
mod nodes;
mod ops;
mod procs;
mod state;
mod stream;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// `CUresult` values in use.
pub mod code {
    pub const INVALID_VALUE: i32 = 1;
    pub const OUT_OF_MEMORY: i32 = 2;
    pub const NOT_INITIALIZED: i32 = 3;
    pub const INVALID_DEVICE: i32 = 101;
    pub const INVALID_CONTEXT: i32 = 201;
    pub const NO_BINARY_FOR_GPU: i32 = 209;
    pub const INVALID_PTX: i32 = 218;
    pub const UNSUPPORTED_PTX_VERSION: i32 = 222;
    pub const FILE_NOT_FOUND: i32 = 301;
    pub const INVALID_HANDLE: i32 = 400;
    pub const NOT_FOUND: i32 = 500;
    pub const ILLEGAL_ADDRESS: i32 = 700;
    pub const LAUNCH_OUT_OF_RESOURCES: i32 = 701;
    pub const ASSERT: i32 = 710;
    pub const MISALIGNED_ADDRESS: i32 = 716;
    pub const LAUNCH_FAILED: i32 = 719;
    pub const COOPERATIVE_LAUNCH_TOO_LARGE: i32 = 720;
    pub const NOT_SUPPORTED: i32 = 801;
    pub const CAPTURE_UNSUPPORTED: i32 = 900;
    pub const CAPTURE_INVALIDATED: i32 = 901;
    pub const CAPTURE_UNMATCHED: i32 = 903;
    pub const CAPTURE_UNJOINED: i32 = 904;
    pub const CAPTURED_EVENT: i32 = 907;
    pub const GRAPH_EXEC_UPDATE_FAILURE: i32 = 910;
    pub const UNKNOWN: i32 = 999;
}

/// All codes with the texts of `cuGetErrorName` and `cuGetErrorString`.
const NAMES: &[(i32, &std::ffi::CStr, &std::ffi::CStr)] = &[
    (0, c"CUDA_SUCCESS", c"no error"),
    (1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (
        201,
        c"CUDA_ERROR_INVALID_CONTEXT",
        c"invalid device context",
    ),
    (
        209,
        c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        c"no kernel image is available for execution on the device",
    ),
    (
        218,
        c"CUDA_ERROR_INVALID_PTX",
        c"a PTX JIT compilation failed",
    ),
    (
        222,
        c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        c"the provided PTX was compiled with an unsupported toolchain.",
    ),
    (301, c"CUDA_ERROR_FILE_NOT_FOUND", c"file not found"),
    (
        400,
        c"CUDA_ERROR_INVALID_HANDLE",
        c"invalid resource handle",
    ),
    (500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (
        700,
        c"CUDA_ERROR_ILLEGAL_ADDRESS",
        c"an illegal memory access was encountered",
    ),
    (
        701,
        c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        c"too many resources requested for launch",
    ),
    (710, c"CUDA_ERROR_ASSERT", c"device-side assert triggered"),
    (716, c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address"),
    (
        719,
        c"CUDA_ERROR_LAUNCH_FAILED",
        c"unspecified launch failure",
    ),
    (
        720,
        c"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
        c"too many blocks in cooperative launch",
    ),
    (801, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
    (
        900,
        c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        c"operation not permitted when stream is capturing",
    ),
    (
        901,
        c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        c"operation failed due to a previous error during capture",
    ),
    (
        903,
        c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
        c"the capture was not initiated in this stream",
    ),
    (
        904,
        c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
        c"capturing stream has unjoined work",
    ),
    (
        907,
        c"CUDA_ERROR_CAPTURED_EVENT",
        c"operation not permitted on an event last recorded in a capturing stream",
    ),
    (
        910,
        c"CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE",
        c"the graph update was not performed",
    ),
    (999, c"CUDA_ERROR_UNKNOWN", c"unknown error"),
];

/// The result of an entry point's body.
pub type Cu<T = ()> = Result<T, i32>;

thread_local! {
    /// Handle of the calling thread's context; 0 is none.
    pub static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Calls of the entry points since the library was loaded.
static CALLS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// How often an entry point has been called.
pub fn calls(name: &str) -> u64 {
    let calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    calls.get(name).copied().unwrap_or(0)
}

/// Runs the body of an entry point. A panic must not cross into C.
pub fn entry(name: &'static str, body: impl FnOnce() -> Cu) -> c_int {
    *(CALLS.lock().unwrap_or_else(PoisonError::into_inner))
        .entry(name)
        .or_default() += 1;
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code,
        Err(_) => {
            eprintln!(
                "offshoot-emulator: internal error; please report the kernel that was running"
            );
            code::UNKNOWN
        }
    }
}

/// Writes a result through a caller's pointer.
pub fn put<T>(to: *mut T, value: T) -> Cu {
    if to.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: the driver API requires of its callers a pointer to a place that can take the result.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// As [`put`], but the pointer may be null.
pub fn put_opt<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: see `put`.
        unsafe { to.write_unaligned(value) };
    }
}

/// Reads a value a caller points to.
pub fn get<T: Copy>(from: *const T) -> Cu<T> {
    if from.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: the driver API requires of its callers a pointer to a value of that type.
    Ok(unsafe { from.read_unaligned() })
}

/// A C string.
pub fn text<'a>(s: *const c_char) -> Cu<&'a str> {
    if s.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: the driver API requires of its callers a string that ends in a zero byte.
    unsafe { std::ffi::CStr::from_ptr(s) }
        .to_str()
        .map_err(|_| code::INVALID_VALUE)
}

/// Bytes of host memory; the caller guarantees that they exist.
pub fn host<'a>(from: usize, len: usize) -> &'a [u8] {
    if len == 0 || from == 0 {
        return &[];
    }
    // SAFETY: the driver API requires of its callers host memory of the length they name.
    unsafe { std::slice::from_raw_parts(from as *const u8, len) }
}

/// Defines entry points and the table that `cuGetProcAddress` searches.
macro_rules! api {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {
        $(
            $(#[$doc])*
            /// # Safety
            /// The pointers must be as the driver API documents.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> std::ffi::c_int {
                $crate::driver::entry(stringify!($name), move || $body)
            }
        )*
        /// The entry points of this file by name.
        pub fn table() -> Vec<(&'static str, *const std::ffi::c_void)> {
            vec![$((stringify!($name), $name as *const std::ffi::c_void)),*]
        }
    };
}
pub(crate) use api;
