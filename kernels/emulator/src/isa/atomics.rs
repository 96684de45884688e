//! atom and red.

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::memory::{Access, addresses, resolve, space_of, strong};
use crate::checks::Touch;
use crate::float::{canon, max32, min32};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Ins, Place, lanes_of};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("atom", atom), ("red", red)];

const OPS: [&str; 10] = [
    "add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec",
];
const KINDS: [Ty; 15] = [
    Ty::U32,
    Ty::S32,
    Ty::B32,
    Ty::F32,
    Ty::U64,
    Ty::S64,
    Ty::B64,
    Ty::F64,
    Ty::F16,
    Ty::Bf16,
    Ty::F16x2,
    Ty::Bf16x2,
    Ty::B16,
    Ty::U16,
    Ty::S16,
];

fn halves<T: Format>(old: u64, v: u64, op: usize) -> u64 {
    let one = |a: u64, b: u64| {
        let (x, y) = (T::wide(a as u16), T::wide(b as u16));
        u64::from(T::narrow(match op {
            0 => x + y,
            1 => min32(x, y),
            _ => max32(x, y),
        }))
    };
    one(old, v) | one(old >> 16, v >> 16) << 16
}

/// New memory value from the old one and the operands.
pub fn combine(op: usize, t: Ty, old: u64, v: u64, swap: u64) -> u64 {
    match (OPS[op], t) {
        ("add", Ty::F32) => {
            u64::from(canon(f32::from_bits(old as u32) + f32::from_bits(v as u32)).to_bits())
        }
        ("add", Ty::F64) => (f64::from_bits(old) + f64::from_bits(v)).to_bits(),
        ("add" | "min" | "max", Ty::F16) => halves::<F16>(old, v, op) & 0xffff,
        ("add" | "min" | "max", Ty::Bf16) => halves::<Bf16>(old, v, op) & 0xffff,
        ("add" | "min" | "max", Ty::F16x2) => halves::<F16>(old, v, op),
        ("add" | "min" | "max", Ty::Bf16x2) => halves::<Bf16>(old, v, op),
        ("add", _) => old.wrapping_add(v),
        ("min", Ty::S32) => u64::from((old as i32).min(v as i32) as u32),
        ("max", Ty::S32) => u64::from((old as i32).max(v as i32) as u32),
        ("min", Ty::S64) => (old as i64).min(v as i64) as u64,
        ("max", Ty::S64) => (old as i64).max(v as i64) as u64,
        ("min", _) => old.min(v),
        ("max", _) => old.max(v),
        ("and", _) => old & v,
        ("or", _) => old | v,
        ("xor", _) => old ^ v,
        ("exch", _) => v,
        ("cas", _) => {
            if old == v {
                swap
            } else {
                old
            }
        }
        ("inc", _) => {
            if old >= v {
                0
            } else {
                old + 1
            }
        }
        _ => {
            if old == 0 || old > v {
                v
            } else {
                old - 1
            }
        }
    }
}

/// `list`: operation, type; bit 16: there is a destination; bit 17: it is a 16-bit register.
fn exec(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let a = Access::unpack(i.imm);
    let mut addrs = addresses(cx, i.src[0], a.offset);
    let (op, t) = (
        (i.list & 0xff) as usize,
        KINDS[(i.list >> 8 & 0xff) as usize],
    );
    let (keep, wide) = (i.list >> 16 & 1 == 1, a.bytes == 8);
    let (vl, sl, d) = (i.src[1], i.src[2], i.dst);
    resolve(cx, a, &mut addrs, m, |cx, place, addrs, lanes| {
        for lane in lanes_of(lanes) {
            let get = |cx: &Cx<'_>, reg: u32| {
                let v = if wide {
                    cx.warp.regs.get::<u64>(reg, lane)
                } else {
                    u64::from(cx.warp.regs.get::<u32>(reg, lane))
                };
                if a.bytes == 2 { v & 0xffff } else { v }
            };
            let (v, swap) = (get(cx, vl), get(cx, sl));
            let old = if place == Place::Global {
                cx.env
                    .heap
                    .update(addrs[lane], a.bytes, &|old| combine(op, t, old, v, swap))
            } else {
                let old = cx.load(place, lane, addrs[lane], a.bytes);
                cx.store(
                    place,
                    lane,
                    addrs[lane],
                    a.bytes,
                    combine(op, t, old, v, swap),
                );
                old
            };
            cx.events += u64::from(combine(op, t, old, v, swap) != old);
            if keep {
                if wide {
                    cx.warp.regs.set::<u64>(d, lane, old);
                } else {
                    cx.warp.regs.set::<u32>(d, lane, old as u32);
                }
            }
        }
    });
}

fn atom(b: &mut Builder, f: &Form) -> Res {
    common(b, f, true)
}

fn red(b: &mut Builder, f: &Form) -> Res {
    common(b, f, false)
}

fn common(b: &mut Builder, f: &Form, returns: bool) -> Res {
    let t = f.ty()?;
    let space = space_of(f);
    strong(f);
    f.has("acq_rel");
    f.has("noftz");
    let Some(op) = f.pick(&OPS) else {
        return f.refuse("an operation is expected");
    };
    let Some(kind) = KINDS.iter().position(|k| *k == t) else {
        return f.refuse("this type is not supported");
    };
    let n = 2 + usize::from(returns) + usize::from(OPS[op] == "cas");
    let ops = super::memory::cache_hint(f, n)?;
    let at = usize::from(returns);
    let float = matches!(
        t,
        Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64 | Ty::F16x2 | Ty::Bf16x2
    );
    let small = t.bytes() == 2 && !matches!(OPS[op], "cas" | "add" | "min" | "max" | "exch");
    if small
        || float && !matches!(OPS[op], "add" | "min" | "max" | "exch")
        || matches!(t, Ty::F32 | Ty::F64) && matches!(OPS[op], "min" | "max")
    {
        return f.refuse("this operation does not exist for the type");
    }
    if matches!(ops[at + 1], Operand::Vector(_)) {
        return f.refuse("vector atomics are not supported");
    }
    let (base, offset, _) = b.address(f, &ops[at])?;
    let Ok(offset) = i32::try_from(offset) else {
        return f.refuse("the offset is too large");
    };
    let v = b.src(f, &ops[at + 1], t)?;
    let swap = if OPS[op] == "cas" {
        b.src(f, &ops[at + 2], t)?
    } else {
        v
    };
    let d = if returns { b.dst(f, &ops[0], t)? } else { 0 };
    let place = space.and_then(Place::of);
    if place != Some(Place::Shared) {
        b.communicates = true;
    }
    let access = Access {
        offset,
        bytes: t.bytes(),
        count: 1,
        place,
        touch: Touch::Atomic,
        signed: false,
    };
    b.emit(exec, Class::Atomic, |i| {
        i.dst = d;
        i.src[0] = base;
        i.src[1] = v;
        i.src[2] = swap;
        i.imm = access.pack();
        i.list = op as u32 | (kind as u32) << 8 | u32::from(returns) << 16;
    });
    Ok(())
}
