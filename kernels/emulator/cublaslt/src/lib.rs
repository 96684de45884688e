//! The part of cuBLASLt that Offshoot calls, over the CUDA driver in software.
//!
//! Built as `libcublasLt.so`. It is a client of the driver, as the real library is: a GEMM is the
//! launch of a PTX kernel on the caller's stream, so it is captured into graphs, checked and
//! counted like any other. It supports `D = alpha A^T B + beta C` of bf16 with f32 sums, C and D of
//! one layout, f32 or bf16, with or without the epilogue that adds a bias of D's type, and refuses
//! everything else (status 15) with a line on standard error.
//! It runs on the emulator only.
//!
//! Names, values and arguments are those of NVIDIA's documentation of the cuBLASLt API.
#![allow(non_snake_case)] // The API's names.

mod driver;
mod ptx;

use driver::Driver;
use std::ffi::{c_int, c_void};

/// `cublasStatus_t` values in use.
mod status {
    pub const SUCCESS: i32 = 0;
    pub const NOT_INITIALIZED: i32 = 1;
    pub const INVALID_VALUE: i32 = 7;
    pub const EXECUTION_FAILED: i32 = 13;
    pub const NOT_SUPPORTED: i32 = 15;
}

/// `CUDA_R_32F` and `CUDA_R_16BF` of `cudaDataType_t`.
const R_32F: i32 = 0;
const R_16BF: i32 = 14;
/// `CUBLAS_COMPUTE_32F`.
const COMPUTE_32F: i32 = 68;
/// `CUBLAS_OP_N` and `CUBLAS_OP_T`.
const OP_N: i32 = 0;
const OP_T: i32 = 1;
/// Attributes of a GEMM: the operations on A and B, the epilogue.
const DESC_TRANSA: i32 = 3;
const DESC_TRANSB: i32 = 4;
const DESC_EPILOGUE: i32 = 7;
const DESC_BIAS_POINTER: i32 = 8;
/// `CUBLASLT_EPILOGUE_DEFAULT` and `CUBLASLT_EPILOGUE_BIAS`.
const EPILOGUE_DEFAULT: i32 = 1;
const EPILOGUE_BIAS: i32 = 4;

/// The target of a `cublasLtHandle_t`.
pub struct Handle {
    driver: Driver,
    module: usize,
    /// By the type of C and D: f32, bf16.
    functions: [usize; 2],
}

/// The target of a `cublasLtMatrixLayout_t`: a matrix in column-major order.
#[derive(Clone, Copy, PartialEq)]
pub struct Layout {
    kind: i32,
    rows: u64,
    cols: u64,
    ld: i64,
}

impl Layout {
    /// The warps that compute it as D: along its rows, and along its columns.
    fn warps(&self) -> (u32, u32) {
        let (rows, cols) = (self.rows, self.cols);
        (
            rows.div_ceil(ptx::OUTPUTS) as u32,
            cols.div_ceil(ptx::ROWS) as u32,
        )
    }
}

/// The target of a `cublasLtMatmulDesc_t`.
#[derive(Clone, Copy)]
pub struct Desc {
    compute: i32,
    scale: i32,
    a: i32,
    b: i32,
    epilogue: i32,
    /// The bias's address on the device, `[m]`, of D's type; read where the epilogue adds one.
    bias: u64,
}

impl Desc {
    /// The address of the bias that the epilogue adds, 0 for none; `None` if it needs one.
    fn bias_address(&self) -> Option<u64> {
        match (self.epilogue, self.bias) {
            (EPILOGUE_BIAS, 0) => {
                eprintln!("offshoot-emulator: cuBLASLt's twin: a bias without an address");
                None
            }
            (EPILOGUE_BIAS, bias) => Some(bias),
            _ => Some(0),
        }
    }
}

/// The target of a `cublasLtMatmulPreference_t`. One algorithm serves all preferences.
pub struct Preference;

/// `cublasLtMatmulAlgo_t`.
#[repr(C)]
pub struct Algo {
    data: [u64; 8],
}

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
pub struct HeuristicResult {
    algo: Algo,
    workspace_bytes: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// Marks an algorithm of [`cublasLtMatmulAlgoGetHeuristic`].
const ALGO: u64 = 0x6f66_6673_686f_6f74;

fn refuse(why: &str) -> c_int {
    eprintln!("offshoot-emulator: cuBLASLt's twin: {why}");
    status::NOT_SUPPORTED
}

/// Moves a value to the heap and gives the caller its address.
///
/// # Safety
/// `to` is null or can take a pointer.
unsafe fn give<T>(to: *mut *mut T, value: T) -> c_int {
    if to.is_null() {
        return status::INVALID_VALUE;
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { *to = Box::into_raw(Box::new(value)) };
    status::SUCCESS
}

/// Takes a value back and drops it.
///
/// # Safety
/// `from` is null or came from [`give`] and is not used again.
unsafe fn take<T>(from: *mut T) -> c_int {
    if from.is_null() {
        return status::INVALID_VALUE;
    }
    // SAFETY: not null, and the caller's promise.
    drop(unsafe { Box::from_raw(from) });
    status::SUCCESS
}

/// # Safety
/// The pointers must be as cuBLASLt documents; so for all functions here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtCreate(handle: *mut *mut Handle) -> c_int {
    let Some(driver) = Driver::emulated() else {
        eprintln!("offshoot-emulator: cuBLASLt's twin runs on the emulated card only");
        return status::NOT_INITIALIZED;
    };
    let Some((module, functions)) = driver.load(&ptx::module(), ptx::NAMES) else {
        return status::NOT_INITIALIZED;
    };
    let value = Handle {
        driver,
        module,
        functions,
    };
    // SAFETY: the caller's pointer.
    unsafe { give(handle, value) }
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtDestroy(handle: *mut Handle) -> c_int {
    // SAFETY: null or a handle of ours.
    if let Some(handle) = unsafe { handle.as_ref() } {
        handle.driver.unload(handle.module);
    }
    // SAFETY: as above.
    unsafe { take(handle) }
}

/// The version this library reports: 12.9.1.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    120_901
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutCreate(
    layout: *mut *mut Layout,
    kind: c_int,
    rows: u64,
    cols: u64,
    ld: i64,
) -> c_int {
    let value = Layout {
        kind,
        rows,
        cols,
        ld,
    };
    // SAFETY: the caller's pointer.
    unsafe { give(layout, value) }
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutDestroy(layout: *mut Layout) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { take(layout) }
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescCreate(
    desc: *mut *mut Desc,
    compute: c_int,
    scale: c_int,
) -> c_int {
    let value = Desc {
        compute,
        scale,
        a: OP_N,
        b: OP_N,
        epilogue: EPILOGUE_DEFAULT,
        bias: 0,
    };
    // SAFETY: the caller's pointer.
    unsafe { give(desc, value) }
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    desc: *mut Desc,
    attribute: c_int,
    value: *const c_void,
    bytes: usize,
) -> c_int {
    // SAFETY: null or a description of ours.
    let Some(desc) = (unsafe { desc.as_mut() }) else {
        return status::INVALID_VALUE;
    };
    let expected = if attribute == DESC_BIAS_POINTER { 8 } else { 4 };
    if value.is_null() || bytes != expected {
        return refuse(&format!(
            "attribute {attribute} of {bytes} bytes of a product"
        ));
    }
    if attribute == DESC_BIAS_POINTER {
        // SAFETY: not null, and of the size of an address.
        desc.bias = unsafe { value.cast::<u64>().read_unaligned() };
        return status::SUCCESS;
    }
    // SAFETY: not null, and of the size of an integer.
    let value = unsafe { value.cast::<i32>().read_unaligned() };
    match attribute {
        DESC_TRANSA => desc.a = value,
        DESC_TRANSB => desc.b = value,
        DESC_EPILOGUE => desc.epilogue = value,
        _ => return refuse(&format!("attribute {attribute} of a product")),
    }
    status::SUCCESS
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescDestroy(desc: *mut Desc) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { take(desc) }
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceCreate(preference: *mut *mut Preference) -> c_int {
    // SAFETY: the caller's pointer.
    unsafe { give(preference, Preference) }
}

/// Accepts any preference without effect.
///
/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: *mut Preference,
    _attribute: c_int,
    value: *const c_void,
    _bytes: usize,
) -> c_int {
    if preference.is_null() || value.is_null() {
        status::INVALID_VALUE
    } else {
        status::SUCCESS
    }
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceDestroy(preference: *mut Preference) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { take(preference) }
}

/// The GEMM of a description and its layouts, or why it is refused.
fn understood(desc: &Desc, [a, b, c, d]: [&Layout; 4]) -> Result<(), String> {
    if (desc.compute, desc.scale) != (COMPUTE_32F, R_32F) {
        return Err(format!(
            "computing in {} scaled by {}",
            desc.compute, desc.scale
        ));
    }
    let epilogues = [EPILOGUE_DEFAULT, EPILOGUE_BIAS];
    if (desc.a, desc.b) != (OP_T, OP_N) || !epilogues.contains(&desc.epilogue) {
        return Err(format!(
            "operations {} and {}, epilogue {}",
            desc.a, desc.b, desc.epilogue
        ));
    }
    if (a.kind, b.kind) != (R_16BF, R_16BF) || ![R_32F, R_16BF].contains(&d.kind) || c != d {
        return Err(format!(
            "types {}, {}, {} and {}, or C and D of two layouts",
            a.kind, b.kind, c.kind, d.kind
        ));
    }
    // A is [k, m] before it is transposed, B [k, n], D [m, n].
    if a.rows != b.rows || a.cols != d.rows || b.cols != d.cols {
        return Err("matrices that do not fit".into());
    }
    if [a, b, d].iter().any(|m| m.ld < m.rows.max(1) as i64) {
        return Err("a leading dimension less than the rows".into());
    }
    let most = u64::from(u32::MAX);
    if [a.rows, d.rows, d.cols].iter().any(|&size| size > most) {
        return Err("a matrix of 2^32 rows or columns".into());
    }
    Ok(())
}

/// References to the targets of the caller's pointers, if none is null.
///
/// # Safety
/// Each pointer is null or one of ours.
unsafe fn all<'a>(
    desc: *const Desc,
    layouts: [*const Layout; 4],
) -> Option<(&'a Desc, [&'a Layout; 4])> {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] = layouts.map(|l| l.as_ref());
        Some((desc.as_ref()?, [a?, b?, c?, d?]))
    }
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    handle: *mut Handle,
    desc: *const Desc,
    a: *const Layout,
    b: *const Layout,
    c: *const Layout,
    d: *const Layout,
    preference: *const Preference,
    requested: c_int,
    results: *mut HeuristicResult,
    found: *mut c_int,
) -> c_int {
    // SAFETY: null or ours.
    let Some((desc, layouts)) = (unsafe { all(desc, [a, b, c, d]) }) else {
        return status::INVALID_VALUE;
    };
    let missing = handle.is_null() || preference.is_null() || results.is_null() || found.is_null();
    if missing || requested < 1 {
        return status::INVALID_VALUE;
    }
    if let Err(why) = understood(desc, layouts) {
        return refuse(&why);
    }
    let result = HeuristicResult {
        algo: Algo {
            data: [ALGO, 0, 0, 0, 0, 0, 0, 0],
        },
        workspace_bytes: 0,
        state: status::SUCCESS,
        waves: 1.0,
        reserved: [0; 4],
    };
    // SAFETY: not null; there is room for one result, since at least one was requested.
    unsafe {
        results.write(result);
        found.write(1);
    }
    status::SUCCESS
}

/// # Safety
/// See [`cublasLtCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmul(
    handle: *mut Handle,
    desc: *const Desc,
    alpha: *const c_void,
    a: u64,
    a_layout: *const Layout,
    b: u64,
    b_layout: *const Layout,
    beta: *const c_void,
    c: u64,
    c_layout: *const Layout,
    d: u64,
    d_layout: *const Layout,
    algo: *const Algo,
    _workspace: u64,
    _workspace_bytes: usize,
    stream: *mut c_void,
) -> c_int {
    let layouts = [a_layout, b_layout, c_layout, d_layout];
    // SAFETY: null or ours.
    let (handle, all) = unsafe { (handle.as_ref(), all(desc, layouts)) };
    let (Some(handle), Some((desc, layouts))) = (handle, all) else {
        return status::INVALID_VALUE;
    };
    if alpha.is_null() || beta.is_null() {
        return status::INVALID_VALUE;
    }
    // SAFETY: null is allowed, it leaves the choice to the library; else one that a heuristic gave.
    if unsafe { algo.as_ref() }.is_some_and(|algo| algo.data[0] != ALGO) {
        return status::INVALID_VALUE;
    }
    if let Err(why) = understood(desc, layouts) {
        return refuse(&why);
    }
    let [a_layout, b_layout, _, d_layout] = layouts;
    if d_layout.rows == 0 || d_layout.cols == 0 {
        return status::SUCCESS;
    }
    let Some(bias) = desc.bias_address() else {
        return status::INVALID_VALUE;
    };
    let scalar = |value: *const c_void| {
        // SAFETY: not null; the scale's type is f32.
        unsafe { value.cast::<f32>().read_unaligned() }
    };
    let done = handle.driver.launch(
        handle.functions[usize::from(d_layout.kind == R_16BF)],
        d_layout.warps(),
        stream,
        &[
            &a.to_le_bytes(),
            &b.to_le_bytes(),
            &c.to_le_bytes(),
            &d.to_le_bytes(),
            &bias.to_le_bytes(),
            &a_layout.ld.to_le_bytes(),
            &b_layout.ld.to_le_bytes(),
            &d_layout.ld.to_le_bytes(),
            &(d_layout.rows as u32).to_le_bytes(),
            &(d_layout.cols as u32).to_le_bytes(),
            &(a_layout.rows as u32).to_le_bytes(),
            &scalar(alpha).to_le_bytes(),
            &scalar(beta).to_le_bytes(),
        ],
    );
    match done {
        true => status::SUCCESS,
        false => status::EXECUTION_FAILED,
    }
}
