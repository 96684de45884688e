//! The emulator's library: found, loaded in place of a driver, its counters read.

use super::setup;
use crate::Error;
use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

/// The variable that names the emulator's library, where it is not beside the program.
pub const EMULATOR_VARIABLE: &str = "OFFSHOOT_EMULATOR";

/// The path of the emulator's library.
///
/// # Errors
///
/// It is not there; with the command that builds it.
pub fn emulator() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(EMULATOR_VARIABLE) {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        return Err(format!(
            "{EMULATOR_VARIABLE}: {} is not a file",
            path.display()
        ));
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let beside = program.with_file_name("libcuda.so");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(format!(
        "the emulator's library is not at {} (nor named by {EMULATOR_VARIABLE}); to build it: \
         cargo build --release -p offshoot-emulator",
        beside.display()
    ))
}

/// How often this process has called the emulator's entry point `name` (as it is exported:
/// `cuMemAlloc_v2`).
///
/// # Errors
///
/// The emulator's library is not there.
pub fn emulator_calls(name: &str) -> Result<u64, Error> {
    type Calls = unsafe extern "C" fn(*const std::ffi::c_char, *mut u64) -> i32;
    let library = load_emulator()?;
    let name = CString::new(name).map_err(|e| setup(e.to_string()))?;
    let mut calls = 0;
    // SAFETY: the signature that `kernels/emulator/README.md` gives; both pointers live.
    let code = unsafe {
        let function = library.get::<Calls>(b"offshoot_emulator_calls\0");
        function.map_err(|e| setup(e.to_string()))?(name.as_ptr(), &mut calls)
    };
    match code {
        0 => Ok(calls),
        code => Err(setup(format!("offshoot_emulator_calls returned {code}"))),
    }
}

/// Clears the emulator's counts and begins to count, or stops.
///
/// # Errors
///
/// The emulator's library is not there, or no context is.
pub fn emulator_count(on: bool) -> Result<(), Error> {
    type Count = unsafe extern "C" fn(i32) -> i32;
    let library = load_emulator()?;
    // SAFETY: the signature that `kernels/emulator/README.md` gives.
    let code = unsafe {
        let function = library.get::<Count>(b"offshoot_emulator_count\0");
        function.map_err(|e| setup(e.to_string()))?(i32::from(on))
    };
    match code {
        0 => Ok(()),
        code => Err(setup(format!("offshoot_emulator_count returned {code}"))),
    }
}

/// The emulator's counts as JSON, as `kernels/emulator/README.md` describes them.
///
/// # Errors
///
/// The emulator's library is not there, or nothing was counted.
pub fn emulator_counters() -> Result<String, Error> {
    type Counters = unsafe extern "C" fn(*mut std::ffi::c_char, usize, *mut usize) -> i32;
    let library = load_emulator()?;
    // SAFETY: the signature that `kernels/emulator/README.md` gives.
    let function = unsafe { library.get::<Counters>(b"offshoot_emulator_counters\0") };
    let function = function.map_err(|e| setup(e.to_string()))?;
    let mut needed = 0;
    // SAFETY: a null pointer asks for the size; the size's place lives.
    let code = unsafe { function(std::ptr::null_mut(), 0, &mut needed) };
    let mut bytes = vec![0u8; needed];
    let code = match code {
        // SAFETY: the buffer has the length that is passed.
        0 => unsafe { function(bytes.as_mut_ptr().cast(), bytes.len(), &mut needed) },
        code => code,
    };
    if code != 0 {
        let what = format!("offshoot_emulator_counters returned {code}");
        return Err(setup(what));
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|e| setup(e.to_string()))
}

/// Loads the emulator. From then on its SONAME stands for `libcuda.so` in this process.
pub(super) fn load_emulator() -> Result<ManuallyDrop<libloading::Library>, Error> {
    let path = emulator().map_err(setup)?;
    let path = std::path::absolute(&path).unwrap_or(path);
    // SAFETY: a library of this project, whose initialisers have no preconditions.
    let library = unsafe { libloading::Library::new(&path) };
    let library = library.map_err(|e| setup(format!("{}: {e}", path.display())))?;
    // Never unloaded: cudarc keeps pointers into it.
    Ok(ManuallyDrop::new(library))
}
