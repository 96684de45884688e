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
