//! Modules compiled for a card, and their kernels loaded at first use.

use super::{Card, CardLimits, Function, driver_message};
use crate::Error;
use crate::cuda::cache;
use crate::cuda::catalog::{COMMON, Module, architecture_name};
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
        self.bind()?;
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
        loop {
            let loaded = self.compile_and_load(module)?;
            // What one compiler made and the driver refuses, an older one may make right.
            if loaded.is_err_and(refused) && self.compilers.borrow_mut().advance() {
                continue;
            }
            let loaded = loaded.map_err(failed)?;
            self.modules.borrow_mut().insert(*module, loaded);
            return Ok(loaded);
        }
    }

    /// A module by the compiler in use, and the driver's answer to it.
    fn compile_and_load(
        &self,
        module: &Module,
    ) -> Result<Result<sys::CUmodule, DriverError>, Error> {
        let compilers = self.compilers.borrow();
        let cache = self.kernel_cache.as_deref();
        let mut image = compile(compilers.current(), module, &self.limits, cache)
            .map_err(|e| self.failure(&format!("compiling {}", module.title()), &e))?;
        // PTX is read as a C string.
        image.push(0);
        // SAFETY: PTX that ends in zero, or a cubin, which states its own length.
        Ok(unsafe { result::module::load_data(image.as_ptr().cast::<c_void>()) })
    }
}

/// Whether the driver has refused an image because of what made it: the image is of a newer
/// toolkit, or not for this architecture.
fn refused(error: DriverError) -> bool {
    use sys::CUresult::*;
    matches!(
        error.0,
        CUDA_ERROR_INVALID_IMAGE
            | CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUDA_ERROR_INVALID_PTX
            | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    )
}

/// Compiles a module for a card, or takes it from the cache: machine code of its architecture, or
/// PTX for the emulator and for a card that is newer than the compiler.
fn compile(
    compiler: &Compiler,
    module: &Module,
    limits: &CardLimits,
    cache: Option<&Path>,
) -> Result<Vec<u8>, String> {
    let ptx = || compile_for(compiler, module, "compute_80", cache);
    if limits.emulated {
        return ptx();
    }
    match compile_for(
        compiler,
        module,
        &architecture_name(limits.capability),
        cache,
    ) {
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
