//! atom and red.

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::memory::{Access, addresses, resolve, space_of, strong};
use super::operands::address;
use crate::checks::Touch;
use crate::float::{canon, max32, min32};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Ins, Place, choice, immediate, lanes_of};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("atom", atom), ("red", red)];

choice! {
    /// What an atomic does with memory.
    pub enum Operation {
        Add = "add",
        Min = "min",
        Max = "max",
        And = "and",
        Or = "or",
        Xor = "xor",
        Exchange = "exch",
        CompareAndSwap = "cas",
        Increment = "inc",
        Decrement = "dec",
    }
}
use Operation::{Add, And, CompareAndSwap, Decrement, Exchange, Increment, Max, Min, Or, Xor};

const TYPES: [Ty; 15] = [
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

immediate! {
    struct Atomic {
        access: Access [50],
        operation: Operation [4],
        ty: Ty [5],
        /// `atom` and not `red`.
        returns: bool [1],
    }
}

/// An operation on both halves of a word.
fn halves<T: Format>(old: u64, v: u64, op: Operation) -> u64 {
    let one = |a: u64, b: u64| {
        let (x, y) = (T::wide(a as u16), T::wide(b as u16));
        u64::from(T::narrow(match op {
            Add => x + y,
            Min => min32(x, y),
            _ => max32(x, y),
        }))
    };
    one(old, v) | one(old >> 16, v >> 16) << 16
}

/// New memory value from the old one and the operands.
fn combine(op: Operation, t: Ty, old: u64, v: u64, swap: u64) -> u64 {
    match (op, t) {
        (Add, Ty::F32) => {
            u64::from(canon(f32::from_bits(old as u32) + f32::from_bits(v as u32)).to_bits())
        }
        (Add, Ty::F64) => (f64::from_bits(old) + f64::from_bits(v)).to_bits(),
        (Add | Min | Max, Ty::F16) => halves::<F16>(old, v, op) & 0xffff,
        (Add | Min | Max, Ty::Bf16) => halves::<Bf16>(old, v, op) & 0xffff,
        (Add | Min | Max, Ty::F16x2) => halves::<F16>(old, v, op),
        (Add | Min | Max, Ty::Bf16x2) => halves::<Bf16>(old, v, op),
        (Add, _) => old.wrapping_add(v),
        (Min, Ty::S32) => u64::from((old as i32).min(v as i32) as u32),
        (Max, Ty::S32) => u64::from((old as i32).max(v as i32) as u32),
        (Min, Ty::S64) => (old as i64).min(v as i64) as u64,
        (Max, Ty::S64) => (old as i64).max(v as i64) as u64,
        (Min, _) => old.min(v),
        (Max, _) => old.max(v),
        (And, _) => old & v,
        (Or, _) => old | v,
        (Xor, _) => old ^ v,
        (Exchange, _) => v,
        (CompareAndSwap, _) => {
            if old == v {
                swap
            } else {
                old
            }
        }
        (Increment, _) => {
            if old >= v {
                0
            } else {
                old + 1
            }
        }
        (Decrement, _) => {
            if old == 0 || old > v {
                v
            } else {
                old - 1
            }
        }
    }
}

/// `src`: address, operand and, for `cas`, the new value. `imm` is an [`Atomic`].
fn exec(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let atomic = Atomic::unpack(i.imm);
    let (a, op, t) = (atomic.access, atomic.operation, atomic.ty);
    let mut addrs = addresses(cx, i.src[0], a.offset);
    let wide = a.bytes == 8;
    let [_, operand, swap] = i.src;
    resolve(cx, a, &mut addrs, m, |cx, place, addrs, lanes| {
        for lane in lanes_of(lanes) {
            let get = |cx: &Cx<'_>, reg: u32| {
                let v = cx.warp.regs.get_bits(reg, lane, wide);
                if a.bytes == 2 { v & 0xffff } else { v }
            };
            let (v, swap) = (get(cx, operand), get(cx, swap));
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
            if atomic.returns {
                cx.warp.regs.set_bits(i.dst, lane, wide, old);
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
    let Some(operation) = f.choose::<Operation>() else {
        return f.refuse("an operation is expected");
    };
    if !TYPES.contains(&t) {
        return f.refuse("this type is not supported");
    }
    let swaps = operation == CompareAndSwap;
    let n = 2 + usize::from(returns) + usize::from(swaps);
    let ops = super::memory::cache_hint(f, n)?;
    if !exists(operation, t) {
        return f.refuse("this operation does not exist for the type");
    }
    let ops = if returns { &ops[1..] } else { ops };
    if matches!(ops[1], Operand::Vector(_)) {
        return f.refuse("vector atomics are not supported");
    }
    let (base, offset) = address(b, f, &ops[0])?;
    let v = b.src(f, &ops[1], t)?;
    let swap = if swaps { b.src(f, &ops[2], t)? } else { v };
    let d = if returns {
        b.dst(f, &f.inst.operands[0], t)?
    } else {
        0
    };
    let place = space.and_then(Place::of);
    if place != Some(Place::Shared) {
        b.communicates = true;
    }
    let atomic = Atomic {
        access: Access {
            offset,
            bytes: t.bytes(),
            ..Access::new(place, Touch::Atomic)
        },
        operation,
        ty: t,
        returns,
    };
    b.emit(exec, Class::Atomic, |i| {
        i.dst = d;
        i.src = [base, v, swap];
        i.imm = atomic.pack();
    });
    Ok(())
}

/// Whether PTX has the operation for a type.
fn exists(operation: Operation, t: Ty) -> bool {
    let float = matches!(
        t,
        Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64 | Ty::F16x2 | Ty::Bf16x2
    );
    match operation {
        Add | Exchange => true,
        Min | Max => !matches!(t, Ty::F32 | Ty::F64),
        CompareAndSwap => !float,
        And | Or | Xor | Increment | Decrement => !float && t.bytes() != 2,
    }
}
