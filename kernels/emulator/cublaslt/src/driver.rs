//! The driver's functions that a library of kernels needs, looked up in the emulator.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::mem::transmute;

type Load = unsafe extern "C" fn(*mut usize, *const c_char) -> c_int;
type Unload = unsafe extern "C" fn(usize) -> c_int;
type Function = unsafe extern "C" fn(*mut usize, usize, *const c_char) -> c_int;
type Launch = unsafe extern "C" fn(
    usize,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_int;

/// Entry points of the loaded emulator.
pub struct Driver {
    load: Load,
    unload: Unload,
    function: Function,
    launch: Launch,
}

impl Driver {
    /// The driver of this process, if it is the emulator. None is loaded for it.
    pub fn emulated() -> Option<Driver> {
        let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD;
        // SAFETY: a C string; loads nothing.
        let library = unsafe { libc::dlopen(c"libcuda.so".as_ptr(), flags) };
        if library.is_null() {
            return None;
        }
        let symbol = |name: &CStr| {
            // SAFETY: a loaded library and a C string.
            let function = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!function.is_null()).then_some(function)
        };
        symbol(c"offshoot_emulator_count")?;
        // SAFETY: the driver API's functions of these names have these types.
        unsafe {
            Some(Driver {
                load: transmute::<*mut c_void, Load>(symbol(c"cuModuleLoadData")?),
                unload: transmute::<*mut c_void, Unload>(symbol(c"cuModuleUnload")?),
                function: transmute::<*mut c_void, Function>(symbol(c"cuModuleGetFunction")?),
                launch: transmute::<*mut c_void, Launch>(symbol(c"cuLaunchKernel")?),
            })
        }
    }

    /// Loads PTX into the current context and finds two kernels of it.
    pub fn load(&self, ptx: &str, names: [&str; 2]) -> Option<(usize, [usize; 2])> {
        let text = CString::new(ptx).ok()?;
        let mut module = 0;
        // SAFETY: a place for the handle and a text that ends in zero.
        if unsafe { (self.load)(&mut module, text.as_ptr()) } != 0 {
            return None;
        }
        let mut functions = [0; 2];
        for (function, name) in functions.iter_mut().zip(names) {
            let name = CString::new(name).ok()?;
            // SAFETY: a place for the handle, a loaded module, a C string.
            if unsafe { (self.function)(function, module, name.as_ptr()) } != 0 {
                return None;
            }
        }
        Some((module, functions))
    }

    /// Unloads a module.
    pub fn unload(&self, module: usize) {
        // SAFETY: a module loaded by `load`. A failure leaves it loaded, which harms nothing.
        unsafe { (self.unload)(module) };
    }

    /// Launches warps, one a block. `parameters` are the kernel's, in order.
    pub fn launch(
        &self,
        function: usize,
        (x, y): (u32, u32),
        stream: *mut c_void,
        parameters: &[&[u8]],
    ) -> bool {
        let mut pointers: Vec<*mut c_void> = parameters
            .iter()
            .map(|p| p.as_ptr().cast_mut().cast())
            .collect();
        let none = std::ptr::null_mut();
        // SAFETY: a kernel of `load`, the caller's stream, and a pointer to each parameter, which
        // the driver reads before it returns.
        let code = unsafe {
            (self.launch)(
                function,
                x,
                y,
                1,
                32,
                1,
                1,
                0,
                stream,
                pointers.as_mut_ptr(),
                none,
            )
        };
        code == 0
    }
}
