//! ldmatrix, stmatrix, movmatrix.

use super::Decode;
use super::memory::{addresses, space_of};
use super::operands::{address, registers};
use crate::checks::{FaultKind, Touch};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, Place, immediate};
use crate::memory::WINDOW_SHIFT;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[
    ("ldmatrix", ldmatrix),
    ("stmatrix", stmatrix),
    ("movmatrix", movmatrix),
];

/// Whether all 32 lanes of the warp are here. Otherwise they wait or the launch fails, and the
/// caller must return.
pub fn whole_warp(cx: &mut Cx<'_>, m: u32) -> bool {
    if m == 0 {
        return false;
    }
    if cx.warp.live != !0 {
        let missing = !cx.warp.live;
        cx.fail(
            FaultKind::DivergentSync,
            m.trailing_zeros(),
            format!("lanes {missing:#010x} have left the kernel or do not exist"),
        );
        return false;
    }
    cx.converged(m, !0, false)
}

immediate! {
    /// `ldmatrix` and `stmatrix`.
    struct MatrixAccess {
        offset: i32 [32],
        transposed: bool [1],
    }
}

/// Row addresses of `count` 8x8 matrices in shared memory, checked. `None` when the warp is not
/// ready.
fn rows(cx: &mut Cx<'_>, i: &Ins, mask: u32, count: usize, touch: Touch) -> Option<[u64; 32]> {
    if !whole_warp(cx, mask) {
        return None;
    }
    let mut addrs = addresses(cx, i.src[0], MatrixAccess::unpack(i.imm).offset);
    for a in &mut addrs {
        *a &= (1 << WINDOW_SHIFT) - 1;
    }
    let lanes = if count == 4 {
        !0
    } else {
        (1u32 << (count * 8)) - 1
    };
    cx.check(Place::Shared, &addrs, lanes, 16, touch)
        .then_some(addrs)
}

fn load_matrix(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let prog = cx.env.program;
    let list = &prog.lists[i.list as usize];
    let transposed = MatrixAccess::unpack(i.imm).transposed;
    let Some(addrs) = rows(cx, i, mask, list.len(), Touch::Read) else {
        return;
    };
    for (matrix, &reg) in list.iter().enumerate() {
        let words = &cx.block.shared[..];
        let mut d = [0u32; 32];
        for row in 0..8 {
            let first = addrs[matrix * 8 + row] as usize / 4;
            let four = &words[first..first + 4];
            for t in 0..4 {
                if transposed {
                    // Columns 2 t and 2 t + 1 of this row go to rows of lanes.
                    for h in 0..2 {
                        let to = (t * 2 + h) * 4 + row / 2;
                        d[to] |= (four[t] >> (h * 16) & 0xffff) << (row % 2 * 16);
                    }
                } else {
                    d[row * 4 + t] = four[t];
                }
            }
        }
        cx.warp.regs.put::<u32>(reg, !0, &d);
    }
}

fn store_matrix(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let prog = cx.env.program;
    let list = &prog.lists[i.list as usize];
    let transposed = MatrixAccess::unpack(i.imm).transposed;
    let Some(addrs) = rows(cx, i, mask, list.len(), Touch::Write) else {
        return;
    };
    for (matrix, &reg) in list.iter().enumerate() {
        let s = cx.warp.regs.all::<u32>(reg);
        for (lane, v) in s.into_iter().enumerate() {
            for h in 0..2 {
                let (g, t) = (lane / 4, lane % 4 * 2 + h);
                let (row, col) = if transposed { (t, g) } else { (g, t) };
                cx.block.shared_store(
                    addrs[matrix * 8 + row] as u32 + col as u32 * 2,
                    2,
                    u64::from(v >> (h * 16) & 0xffff),
                );
            }
        }
    }
}

fn matrix_access(b: &mut Builder, f: &Form, load: bool) -> Res {
    f.has("sync");
    f.has("aligned");
    space_of(f);
    let transposed = f.has("trans");
    if f.pick(&["m8n8"]).is_none() || f.ty()? != Ty::B16 {
        return f.refuse("only .m8n8 with .b16 is supported");
    }
    let Some(count) = f.pick(&["x1", "x2", "x4"]) else {
        return f.refuse(".x1, .x2 or .x4 is expected");
    };
    let ops = f.operands(2)?;
    let (data, addr) = if load {
        (&ops[0], &ops[1])
    } else {
        (&ops[1], &ops[0])
    };
    let (base, offset) = address(b, f, addr)?;
    let regs = registers(b, f, data, 1 << count, Ty::B32, load)?;
    let list = b.list(regs);
    let exec: Exec = if load { load_matrix } else { store_matrix };
    b.emit(exec, Class::Matrix, |i| {
        i.src[0] = base;
        i.list = list;
        i.imm = MatrixAccess { offset, transposed }.pack();
    });
    Ok(())
}

fn ldmatrix(b: &mut Builder, f: &Form) -> Res {
    matrix_access(b, f, true)
}

fn stmatrix(b: &mut Builder, f: &Form) -> Res {
    matrix_access(b, f, false)
}

/// Transposes the 8x8 matrix that the warp holds.
fn transpose(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let a = cx.warp.regs.all::<u32>(i.src[0]);
    let element = |row: usize, col: usize| a[row * 4 + col / 2] >> (col % 2 * 16) & 0xffff;
    let d: [u32; 32] = std::array::from_fn(|lane| {
        let (g, t) = (lane / 4, lane % 4 * 2);
        element(t, g) | element(t + 1, g) << 16
    });
    cx.warp.regs.put::<u32>(i.dst, !0, &d);
}

fn movmatrix(b: &mut Builder, f: &Form) -> Res {
    for m in ["sync", "aligned", "m8n8", "trans"] {
        f.has(m);
    }
    let ops = f.operands(2)?;
    if f.ty()? != Ty::B16 {
        return f.refuse(".b16 is expected");
    }
    let a = b.src(f, &ops[1], Ty::B32)?;
    let d = b.dst(f, &ops[0], Ty::B32)?;
    b.emit(transpose, Class::Matrix, |i| {
        i.dst = d;
        i.src[0] = a;
    });
    Ok(())
}
