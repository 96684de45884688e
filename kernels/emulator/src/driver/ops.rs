//! Work for a stream: done at once, or recorded into a graph and done later.

use super::state::{Guard, Node, of_current};
use super::{Cu, code, host};
use crate::checks::FaultKind;
use crate::gpu::{Gpu, LaunchError, Shape};
use std::sync::Arc;

/// One piece of work.
#[derive(Clone)]
pub enum Op {
    Launch {
        function: usize,
        shape: Shape,
        params: Vec<u8>,
    },
    Copy(Span),
    /// `rows` times `count` elements of `width` bytes, `pitch` bytes apart.
    Fill {
        to: u64,
        width: u32,
        value: u32,
        count: u64,
        rows: u64,
        pitch: u64,
    },
    /// Host function and its argument.
    Host {
        function: usize,
        data: usize,
    },
    /// A graph's nodes, in order.
    Child(Vec<Node>),
    Empty,
}

/// A copy between any two places; the addresses show which of them are on the device. Sizes in
/// bytes.
#[derive(Clone, Copy)]
pub struct Span {
    pub to: u64,
    pub from: u64,
    pub width: u64,
    pub rows: u64,
    pub to_pitch: u64,
    pub from_pitch: u64,
    pub layers: u64,
    pub to_layer: u64,
    pub from_layer: u64,
}

impl Span {
    pub fn line(to: u64, from: u64, width: u64) -> Span {
        Span {
            to,
            from,
            width,
            rows: 1,
            to_pitch: width,
            from_pitch: width,
            layers: 1,
            to_layer: width,
            from_layer: width,
        }
    }
}

impl Op {
    /// `CUgraphNodeType`
    pub fn node_type(&self) -> i32 {
        match self {
            Op::Launch { .. } => 0,
            Op::Copy(_) => 1,
            Op::Fill { .. } => 2,
            Op::Host { .. } => 3,
            Op::Child(_) => 4,
            Op::Empty => 5,
        }
    }
}

/// The code the driver returns for a kind of fault.
pub fn fault_code(kind: FaultKind) -> i32 {
    match kind {
        FaultKind::OutOfBounds | FaultKind::UseAfterFree | FaultKind::ReadOnly => {
            code::ILLEGAL_ADDRESS
        }
        FaultKind::Misaligned => code::MISALIGNED_ADDRESS,
        FaultKind::Assert => code::ASSERT,
        _ => code::LAUNCH_FAILED,
    }
}

/// Submits work to a stream.
pub fn submit(mut s: Guard, gpu: &Arc<Gpu>, stream: usize, op: Op) -> Cu {
    if stream > 2 {
        let Some(st) = s.streams.get(&stream) else {
            return Err(code::INVALID_HANDLE);
        };
        of_current(st.context, "a stream")?;
        if let Some(r) = &st.capture {
            let capture = r.capture;
            let id = s.handle();
            let Some(r) = s
                .streams
                .get_mut(&stream)
                .and_then(|st| st.capture.as_mut())
            else {
                return Err(code::INVALID_HANDLE);
            };
            r.ops += 1;
            let after = std::mem::replace(&mut r.last, vec![id]);
            let Some(c) = s.captures.get_mut(&capture) else {
                return Err(code::CAPTURE_INVALIDATED);
            };
            if c.invalid {
                return Err(code::CAPTURE_INVALIDATED);
            }
            c.nodes.push(Node {
                id,
                op,
                after,
                twin: 0,
            });
            return Ok(());
        }
    } else {
        // The legacy stream waits for the others, which a capturing stream cannot do.
        s.not_while_blocking_capture()?;
    }
    run(s, gpu, &op)
}

/// Does the work now. The lock is released for host functions, which may call the driver.
pub fn run(mut s: Guard, gpu: &Arc<Gpu>, op: &Op) -> Cu {
    match op {
        Op::Launch {
            function,
            shape,
            params,
        } => {
            let Some(f) = s.functions.get(function) else {
                return Err(code::INVALID_HANDLE);
            };
            match gpu.launch(&f.kernel, *shape, params.clone()) {
                Ok(()) => Ok(()),
                Err(e) => {
                    eprintln!("{e}");
                    match e {
                        LaunchError::Invalid(_) => Err(code::INVALID_VALUE),
                        LaunchError::Resources(_) if shape.cooperative => {
                            Err(code::COOPERATIVE_LAUNCH_TOO_LARGE)
                        }
                        LaunchError::Resources(_) => Err(code::LAUNCH_OUT_OF_RESOURCES),
                        LaunchError::Check(r) => Err(s.fail(fault_code(r.kind))),
                    }
                }
            }
        }
        Op::Copy(c) => {
            for layer in 0..c.layers {
                for row in 0..c.rows {
                    copy(
                        gpu,
                        c.to + layer * c.to_layer + row * c.to_pitch,
                        c.from + layer * c.from_layer + row * c.from_pitch,
                        c.width,
                    )?;
                }
            }
            Ok(())
        }
        Op::Fill {
            to,
            width,
            value,
            count,
            rows,
            pitch,
        } => {
            let bytes = count
                .checked_mul(u64::from(*width))
                .ok_or(code::INVALID_VALUE)?;
            for row in 0..*rows {
                fill(gpu, to + row * pitch, *width, *value, bytes)?;
            }
            Ok(())
        }
        Op::Child(nodes) => {
            drop(s);
            super::graph::replay(nodes)
        }
        Op::Empty => Ok(()),
        Op::Host { function, data } => {
            drop(s);
            // SAFETY: the caller of `cuLaunchHostFunc` passed a function of this type with its
            // argument.
            let f: extern "C" fn(*mut std::ffi::c_void) = unsafe { std::mem::transmute(*function) };
            f(*data as *mut std::ffi::c_void);
            Ok(())
        }
    }
}

fn fill(gpu: &Gpu, to: u64, width: u32, value: u32, bytes: u64) -> Cu {
    if !to.is_multiple_of(u64::from(width)) || !gpu.inside(to, bytes) {
        eprintln!(
            "offshoot-emulator: a fill of {bytes} bytes at {to:#x} leaves its allocation or is misaligned: {}",
            gpu.heap().describe(to)
        );
        return Err(code::INVALID_VALUE);
    }
    if bytes == 0 {
        return Ok(());
    }
    let v = value.to_le_bytes();
    if v[..width as usize].iter().all(|b| *b == v[0]) {
        gpu.heap().fill(to, bytes, v[0]);
    } else {
        let pattern: Vec<u8> = v[..width as usize]
            .iter()
            .copied()
            .cycle()
            .take(bytes as usize)
            .collect();
        gpu.heap().copy_in(to, &pattern);
    }
    Ok(())
}

/// Between host and device, either way.
pub fn copy(gpu: &Gpu, to: u64, from: u64, len: u64) -> Cu {
    if len == 0 {
        return Ok(());
    }
    let heap = gpu.heap();
    let (to_device, from_device) = (heap.reserved(to), heap.reserved(from));
    if to_device && !gpu.inside(to, len) || from_device && !gpu.inside(from, len) {
        eprintln!(
            "offshoot-emulator: a copy of {len} bytes leaves its allocation: from {}, to {}",
            if from_device {
                heap.describe(from)
            } else {
                "host memory".to_owned()
            },
            if to_device {
                heap.describe(to)
            } else {
                "host memory".to_owned()
            },
        );
        return Err(code::INVALID_VALUE);
    }
    match (to_device, from_device) {
        (true, true) => heap.copy(from, to, len),
        (true, false) => {
            if from == 0 {
                return Err(code::INVALID_VALUE);
            }
            heap.copy_in(to, host(from as usize, len as usize));
        }
        (false, true) => {
            if to == 0 {
                return Err(code::INVALID_VALUE);
            }
            // SAFETY: the driver API requires of its callers host memory of the length they name.
            heap.copy_out(from, unsafe {
                std::slice::from_raw_parts_mut(to as *mut u8, len as usize)
            });
        }
        (false, false) => {
            if to == 0 || from == 0 {
                return Err(code::INVALID_VALUE);
            }
            // SAFETY: as above, for both ends; `copy` allows overlap.
            unsafe { std::ptr::copy(from as *const u8, to as *mut u8, len as usize) };
        }
    }
    Ok(())
}
