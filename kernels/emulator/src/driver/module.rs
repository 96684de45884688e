//! Modules, libraries, functions.

use super::state::{Function, Guard, LoadedModule, current};
use super::{CURRENT, Cu, api, code, get, put, put_opt, text};
use crate::gpu::{Gpu, toolkit};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Arc;

/// PTX from a module image: a C string. Binaries are refused by name.
fn image<'a>(image_ptr: *const c_void) -> Cu<&'a str> {
    let magic: u32 = get(image_ptr.cast())?;
    if matches!(magic, 0x464c_457f | 0xba55_ed50) {
        let what = if magic == 0x464c_457f {
            "a cubin"
        } else {
            "a fat binary"
        };
        eprintln!("offshoot-emulator: the module is {what}; only PTX text can be executed");
        return Err(code::NO_BINARY_FOR_GPU);
    }
    text(image_ptr.cast())
}

fn load(mut s: Guard, gpu: &Arc<Gpu>, ptx: &str, log: impl FnOnce(&str)) -> Cu<usize> {
    // PTX stands for machine code here: a driver serves that of its own major version of CUDA and of
    // older ones.
    let served = s
        .options
        .as_ref()
        .map_or(0, |options| options.driver / 1000);
    if toolkit(ptx).is_some_and(|toolkit| toolkit > served) {
        eprintln!("offshoot-emulator: the module is of a newer CUDA than {served}, the driver's");
        return Err(code::UNSUPPORTED_PTX_VERSION);
    }
    let module = gpu.load(ptx).map_err(|e| {
        eprintln!("offshoot-emulator: {e}");
        log(&e.to_string());
        code::INVALID_PTX
    })?;
    let h = s.handle();
    s.modules.insert(
        h,
        LoadedModule {
            context: CURRENT.get(),
            module: Arc::new(module),
            functions: HashMap::new(),
        },
    );
    Ok(h)
}

fn function(module: usize, name: &str) -> Cu<usize> {
    let (mut s, _gpu) = current()?;
    let Some(m) = s.modules.get(&module) else {
        return Err(code::INVALID_HANDLE);
    };
    if let Some(h) = m.functions.get(name) {
        return Ok(*h);
    }
    if !m.module.kernels().iter().any(|k| k == name) {
        return Err(code::NOT_FOUND);
    }
    let kernel = m.module.kernel(name).map_err(|e| {
        eprintln!("offshoot-emulator: kernel {name}: {e}");
        code::NOT_SUPPORTED
    })?;
    let h = s.handle();
    let max_dynamic = (48u32 << 10).saturating_sub(kernel.program.shared_bytes);
    s.functions.insert(
        h,
        Function {
            kernel,
            name: std::ffi::CString::new(name).map_err(|_| code::INVALID_VALUE)?,
            module,
            max_dynamic,
        },
    );
    if let Some(m) = s.modules.get_mut(&module) {
        m.functions.insert(name.to_owned(), h);
    }
    Ok(h)
}

fn unload(module: usize) -> Cu {
    let (mut s, gpu) = current()?;
    let Some(m) = s.modules.remove(&module) else {
        return Err(code::INVALID_HANDLE);
    };
    s.functions.retain(|_, f| f.module != module);
    gpu.unload(&m.module);
    Ok(())
}

fn function_attribute(f: &Function, which: c_int) -> Cu<c_int> {
    let p = &f.kernel.program;
    Ok(match which {
        0 => p.max_threads.min(1024) as c_int,
        1 => p.shared_bytes as c_int,
        2 => 0,
        3 => p.local_bytes as c_int,
        4 => p.registers as c_int,
        5 | 6 => 80,
        7 => 1,
        8 => f.max_dynamic as c_int,
        9 => -1,
        10..=15 => 0,
        _ => return Err(code::INVALID_VALUE),
    })
}

fn set_attribute(function: usize, which: c_int, value: c_int) -> Cu {
    let (mut s, gpu) = current()?;
    let limit = gpu.profile().shared_optin;
    let Some(f) = s.functions.get_mut(&function) else {
        return Err(code::INVALID_HANDLE);
    };
    match which {
        8 => {
            let max = limit.saturating_sub(f.kernel.program.shared_bytes);
            if value < 0 || value as u32 > max {
                return Err(code::INVALID_VALUE);
            }
            f.max_dynamic = value as u32;
            Ok(())
        }
        9..=15 => Ok(()),
        _ => Err(code::INVALID_VALUE),
    }
}

fn occupancy(out: *mut c_int, function: usize, threads: c_int, dynamic: usize) -> Cu {
    let (s, gpu) = current()?;
    let Some(f) = s.functions.get(&function) else {
        return Err(code::INVALID_HANDLE);
    };
    let shared = f.kernel.program.shared_bytes + dynamic as u32;
    put(
        out,
        gpu.profile().resident_blocks(threads.max(1) as u32, shared) as c_int,
    )
}

/// The block size with the most resident threads on a multiprocessor, and the blocks that fill the
/// device with it.
fn best_block(
    grid: *mut c_int,
    block: *mut c_int,
    function: usize,
    dynamic_of: usize,
    dynamic: usize,
    limit: c_int,
) -> Cu {
    let (s, gpu) = current()?;
    let Some(f) = s.functions.get(&function) else {
        return Err(code::INVALID_HANDLE);
    };
    let program = f.kernel.program.clone();
    drop(s);
    let max = program.max_threads.min(1024);
    let max = if limit > 0 {
        max.min(limit as u32)
    } else {
        max
    };
    let mut best = (0, 0, 0);
    for threads in (32..=max.next_multiple_of(32)).rev().step_by(32) {
        let threads = threads.min(max);
        let shared = if dynamic_of == 0 {
            dynamic
        } else {
            // SAFETY: the caller passes a function of this type, `CUoccupancyB2DSize`.
            let f: extern "C" fn(c_int) -> usize = unsafe { std::mem::transmute(dynamic_of) };
            f(threads as c_int)
        };
        let blocks = gpu
            .profile()
            .resident_blocks(threads, program.shared_bytes + shared as u32);
        if blocks * threads > best.0 {
            best = (blocks * threads, threads, blocks);
        }
    }
    put(block, best.1 as c_int)?;
    put(grid, (best.2 * gpu.profile().sms) as c_int)
}

/// Dynamic shared memory that leaves room for `blocks` on a multiprocessor.
fn room(out: *mut usize, function: usize, blocks: c_int) -> Cu {
    let (s, gpu) = current()?;
    let f = s.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
    let p = gpu.profile();
    // The system reserves 1 KiB of every block's shared memory.
    let share = p.shared_per_sm / blocks.max(1) as u32;
    let bytes = share.saturating_sub(1024).min(p.shared_optin);
    put(
        out,
        bytes.saturating_sub(f.kernel.program.shared_bytes) as usize,
    )
}

/// Address and size of a module's variable.
fn global(out: *mut u64, size: *mut usize, module: usize, name: *const c_char) -> Cu {
    let (s, _) = current()?;
    let m = s.modules.get(&module).ok_or(code::INVALID_HANDLE)?;
    let (a, n) = m.module.global(text(name)?).ok_or(code::NOT_FOUND)?;
    put_opt(out, a);
    put_opt(size, n as usize);
    Ok(())
}

api! {
    fn cuOccupancyMaxPotentialBlockSize(grid: *mut c_int, block: *mut c_int, function: usize, dynamic_of: usize, dynamic: usize, limit: c_int) {
        best_block(grid, block, function, dynamic_of, dynamic, limit)
    }
    fn cuOccupancyMaxPotentialBlockSizeWithFlags(grid: *mut c_int, block: *mut c_int, function: usize, dynamic_of: usize, dynamic: usize, limit: c_int, _flags: c_uint) {
        best_block(grid, block, function, dynamic_of, dynamic, limit)
    }
    fn cuOccupancyAvailableDynamicSMemPerBlock(out: *mut usize, function: usize, blocks: c_int, _threads: c_int) {
        room(out, function, blocks)
    }
    fn cuFuncGetName(out: *mut *const c_char, function: usize) {
        let (s, _) = current()?;
        let f = s.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        put(out, f.name.as_ptr())
    }
    fn cuKernelGetName(out: *mut *const c_char, function: usize) {
        let (s, _) = current()?;
        let f = s.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        put(out, f.name.as_ptr())
    }
    fn cuKernelGetAttribute(out: *mut c_int, which: c_int, function: usize, _dev: c_int) {
        let (s, _) = current()?;
        put(out, function_attribute(s.functions.get(&function).ok_or(code::INVALID_HANDLE)?, which)?)
    }
    fn cuKernelSetAttribute(which: c_int, value: c_int, function: usize, _dev: c_int) {
        set_attribute(function, which, value)
    }
    fn cuLibraryGetGlobal(out: *mut u64, size: *mut usize, module: usize, name: *const c_char) {
        global(out, size, module, name)
    }
    fn cuModuleLoadData(out: *mut usize, image_ptr: *const c_void) {
        let (s, gpu) = current()?;
        put(out, load(s, &gpu, image(image_ptr)?, |_| ())?)
    }
    fn cuModuleLoadDataEx(out: *mut usize, image_ptr: *const c_void, n: c_uint, options: *const c_int, values: *const *mut c_void) {
        let (s, gpu) = current()?;
        let (mut buffer, mut size) = (std::ptr::null_mut(), 0usize);
        for i in 0..n as usize {
            match get(options.wrapping_add(i))? {
                5 => buffer = get(values.wrapping_add(i))?,
                6 => size = get(values.wrapping_add(i))? as usize,
                _ => {}
            }
        }
        let log = |message: &str| {
            for (i, b) in message.bytes().chain([0]).take(size).enumerate() {
                put_opt(buffer.cast::<u8>().wrapping_add(i), if i + 1 == size { 0 } else { b });
            }
        };
        put(out, load(s, &gpu, image(image_ptr)?, log)?)
    }
    fn cuModuleLoadFatBinary(_out: *mut usize, _at: *const c_void) {
        eprintln!("offshoot-emulator: the module is a fat binary; only PTX text can be executed");
        Err(code::NO_BINARY_FOR_GPU)
    }
    fn cuModuleLoad(out: *mut usize, path: *const c_char) {
        let (s, gpu) = current()?;
        let ptx = std::fs::read_to_string(text(path)?).map_err(|_| code::FILE_NOT_FOUND)?;
        put(out, load(s, &gpu, &ptx, |_| ())?)
    }
    fn cuModuleUnload(module: usize) {
        unload(module)
    }
    fn cuModuleGetFunction(out: *mut usize, module: usize, name: *const c_char) {
        put(out, function(module, text(name)?)?)
    }
    fn cuModuleGetFunctionCount(out: *mut c_uint, module: usize) {
        let (s, _) = current()?;
        let m = s.modules.get(&module).ok_or(code::INVALID_HANDLE)?;
        put(out, m.module.kernels().len() as c_uint)
    }
    fn cuModuleGetGlobal_v2(out: *mut u64, size: *mut usize, module: usize, name: *const c_char) {
        global(out, size, module, name)
    }
    fn cuModuleGetLoadingMode(out: *mut c_int) {
        put(out, 2)
    }
    fn cuLibraryLoadData(out: *mut usize, image_ptr: *const c_void, _jo: *const c_int, _jv: *const *mut c_void, _jn: c_uint, _lo: *const c_int, _lv: *const *mut c_void, _ln: c_uint) {
        let (s, gpu) = current()?;
        put(out, load(s, &gpu, image(image_ptr)?, |_| ())?)
    }
    fn cuLibraryUnload(module: usize) {
        unload(module)
    }
    fn cuLibraryGetModule(out: *mut usize, module: usize) {
        put(out, module)
    }
    fn cuLibraryGetKernel(out: *mut usize, module: usize, name: *const c_char) {
        put(out, function(module, text(name)?)?)
    }
    fn cuKernelGetFunction(out: *mut usize, kernel: usize) {
        put(out, kernel)
    }
    fn cuFuncGetAttribute(out: *mut c_int, which: c_int, function: usize) {
        let (s, _) = current()?;
        put(out, function_attribute(s.functions.get(&function).ok_or(code::INVALID_HANDLE)?, which)?)
    }
    fn cuFuncSetAttribute(function: usize, which: c_int, value: c_int) {
        set_attribute(function, which, value)
    }
    fn cuFuncSetCacheConfig(_function: usize, _config: c_int) {
        current().map(|_| ())
    }
    fn cuFuncGetModule(out: *mut usize, function: usize) {
        let (s, _) = current()?;
        put(out, s.functions.get(&function).ok_or(code::INVALID_HANDLE)?.module)
    }
    fn cuFuncGetParamInfo(function: usize, index: usize, offset: *mut usize, size: *mut usize) {
        let (s, _) = current()?;
        let f = s.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        let p = f.kernel.program.params.get(index).ok_or(code::INVALID_VALUE)?;
        put(offset, p.offset as usize)?;
        put_opt(size, p.bytes as usize);
        Ok(())
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(out: *mut c_int, function: usize, threads: c_int, dynamic: usize) {
        occupancy(out, function, threads, dynamic)
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(out: *mut c_int, function: usize, threads: c_int, dynamic: usize, _flags: c_uint) {
        occupancy(out, function, threads, dynamic)
    }
}
