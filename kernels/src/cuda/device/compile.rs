//! Modules compiled for a card, and their kernels loaded at first use.

use super::{Card, CardLimits, Function, driver_message};
use crate::Error;
use crate::cuda::cache;
use crate::cuda::catalog::{COMMON, Module};
use crate::cuda::nvrtc::{Compiler, Job, Output};
use cudarc::driver::{DriverError, result, sys};
use std::ffi::{CString, c_void};
use std::path::Path;

/// Dynamic shared memory that a kernel may have without a function attribute, in bytes.
const DEFAULT_MAX_SHARED: usize = 48 << 10;

impl Card {
    /// A kernel, compiled and loaded at its first use. `shared` is the dynamic shared memory of its
    /// launches in bytes.
    pub(crate) fn function(
        &self,
        module: &Module,
        name: &'static str,
        shared: usize,
    ) -> Result<Function, Error> {
        let key = (*module, name);
        if let Some(&function) = self.functions.borrow().get(&key) {
            return Ok(function);
        }
        let failed =
            |e: DriverError| self.failure(&format!("loading kernel {name}"), &driver_message(&e));
        let loaded = self.module(module, failed)?;
        let c_name = CString::new(name).expect("kernels' names have no zero byte");
        // SAFETY: a module that is never unloaded before its context ends.
        let handle = unsafe { result::module::get_function(loaded, c_name) }.map_err(failed)?;
        if shared > DEFAULT_MAX_SHARED {
            let max = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just loaded.
            unsafe { result::function::set_function_attribute(handle, max, shared as i32) }
                .map_err(failed)?;
        }
        let function = Function { handle, name };
        self.functions.borrow_mut().insert(key, function);
        Ok(function)
    }

    /// A module, compiled and loaded at its first use.
    fn module(
        &self,
        module: &Module,
        failed: impl Fn(DriverError) -> Error,
    ) -> Result<sys::CUmodule, Error> {
        if let Some(&loaded) = self.modules.borrow().get(module) {
            return Ok(loaded);
        }
        let mut image = compile(
            &self.compiler,
            module,
            &self.limits,
            self.kernel_cache.as_deref(),
        )
        .map_err(|e| self.failure(&format!("compiling {}", module.title()), &e))?;
        // PTX is read as a C string.
        image.push(0);
        // SAFETY: PTX that ends in zero, or a cubin, which states its own length.
        let loaded = unsafe { result::module::load_data(image.as_ptr().cast::<c_void>()) }
            .map_err(failed)?;
        self.modules.borrow_mut().insert(*module, loaded);
        Ok(loaded)
    }
}

/// Compiles a module for a card, or takes it from the cache: machine code of its architecture, or
/// PTX for the emulator and for a card that is newer than the compiler.
fn compile(
    compiler: &Compiler,
    module: &Module,
    limits: &CardLimits,
    cache: Option<&Path>,
) -> Result<Vec<u8>, String> {
    let (major, minor) = limits.capability;
    let ptx = || compile_for(compiler, module, "compute_80", cache);
    if limits.emulated {
        return ptx();
    }
    match compile_for(compiler, module, &format!("sm_{major}{minor}"), cache) {
        Err(message) if message.contains("nvrtc: error: invalid value for --gpu-architecture") => {
            ptx()
        }
        result => result,
    }
}

/// Compiles a module for an architecture: `sm_..` gives machine code, `compute_..` PTX.
///
/// # Errors
///
/// The compiler's message.
pub fn compile_for(
    compiler: &Compiler,
    module: &Module,
    arch: &str,
    cache: Option<&Path>,
) -> Result<Vec<u8>, String> {
    let options = module.options(arch);
    let ptx = arch.starts_with("compute_");
    let job = Job {
        name: module.file(),
        source: module.source(),
        headers: &[COMMON],
        options: &options,
        output: if ptx { Output::Ptx } else { Output::Cubin },
    };
    cache::compile(compiler, &job, cache)
}
