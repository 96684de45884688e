//! Launches.

use super::ops::{Op, submit};
use super::state::{Function, current, of_current};
use super::{Cu, api, code, get, host};
use crate::gpu::Shape;
use std::ffi::{c_int, c_uint, c_void};

/// The parameter buffer from an array of pointers or from `extra`.
pub fn parameters(f: &Function, params: *const *const c_void, extra: *const usize) -> Cu<Vec<u8>> {
    let p = &f.kernel.program;
    let mut out = vec![0; p.param_bytes as usize];
    if !params.is_null() {
        for (i, slot) in p.params.iter().enumerate() {
            let value = get(params.wrapping_add(i))?;
            if value.is_null() {
                return Err(code::INVALID_VALUE);
            }
            out[slot.offset as usize..][..slot.bytes as usize]
                .copy_from_slice(host(value as usize, slot.bytes as usize));
        }
    } else if !extra.is_null() {
        // Pairs of a key and a value; key 0 ends, 1 is the buffer, 2 a pointer to its size.
        let (mut buffer, mut size) = (0, 0);
        for i in 0..8 {
            match get(extra.wrapping_add(i * 2))? {
                0 => break,
                1 => buffer = get(extra.wrapping_add(i * 2 + 1))?,
                2 => size = get(get(extra.wrapping_add(i * 2 + 1))? as *const usize)?,
                _ => return Err(code::INVALID_VALUE),
            }
        }
        let n = out.len().min(size);
        if n < out.len() {
            return Err(code::INVALID_VALUE);
        }
        out[..n].copy_from_slice(host(buffer, n));
    } else if !out.is_empty() {
        return Err(code::INVALID_VALUE);
    }
    Ok(out)
}

fn launch(
    function: usize,
    shape: Shape,
    stream: usize,
    params: *const *const c_void,
    extra: *const usize,
) -> Cu {
    let (s, gpu) = current()?;
    let Some(f) = s.functions.get(&function) else {
        return Err(code::INVALID_HANDLE);
    };
    if let Some(module) = s.modules.get(&f.module) {
        of_current(module.context, "a kernel")?;
    }
    if shape.shared > f.max_dynamic {
        eprintln!(
            "offshoot-emulator: {}: {} bytes of dynamic shared memory, but {} are allowed; cuFuncSetAttribute raises that",
            f.kernel.program.name, shape.shared, f.max_dynamic
        );
        return Err(code::INVALID_VALUE);
    }
    let params = parameters(f, params, extra)?;
    submit(
        s,
        &gpu,
        stream,
        Op::Launch {
            function,
            shape,
            params,
        },
    )
}

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`
pub const COOPERATIVE: c_int = 2;

/// `CUlaunchConfig`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: usize,
    attributes: *const Attribute,
    count: c_uint,
}

/// `CUlaunchAttribute`: a number, padding, 64 bytes of value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Attribute {
    which: c_int,
    pad: [u8; 4],
    value: [u32; 16],
}

api! {
    fn cuLaunchKernel(
        function: usize,
        gx: c_uint,
        gy: c_uint,
        gz: c_uint,
        bx: c_uint,
        by: c_uint,
        bz: c_uint,
        shared: c_uint,
        stream: usize,
        params: *const *const c_void,
        extra: *const usize,
    ) {
        launch(function, Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared, cooperative: false }, stream, params, extra)
    }
    fn cuLaunchCooperativeKernel(
        function: usize,
        gx: c_uint,
        gy: c_uint,
        gz: c_uint,
        bx: c_uint,
        by: c_uint,
        bz: c_uint,
        shared: c_uint,
        stream: usize,
        params: *const *const c_void,
    ) {
        launch(function, Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared, cooperative: true }, stream, params, std::ptr::null())
    }
    fn cuLaunchKernelEx(config: *const Config, function: usize, params: *const *const c_void, extra: *const usize) {
        let c = get(config)?;
        let mut shape = Shape { grid: c.grid, block: c.block, shared: c.shared, cooperative: false };
        for i in 0..c.count as usize {
            let a = get(c.attributes.wrapping_add(i))?;
            match a.which {
                COOPERATIVE => shape.cooperative = a.value[0] != 0,
                4 if a.value[..3] != [1, 1, 1] => {
                    eprintln!("offshoot-emulator: clusters are not supported");
                    return Err(code::NOT_SUPPORTED);
                }
                _ => {}
            }
        }
        launch(function, shape, c.stream, params, extra)
    }
    fn cuLaunchHostFunc(stream: usize, function: usize, data: usize) {
        let (s, gpu) = current()?;
        if function == 0 {
            return Err(code::INVALID_VALUE);
        }
        submit(s, &gpu, stream, Op::Host { function, data })
    }
}
