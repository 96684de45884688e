//! SIMD video instructions: two halves or four bytes of a word at once.

use super::Decode;
use super::shapes::tri_imm;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Choice, Class, choice, immediate};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[
    ("vadd2", simd),
    ("vadd4", simd),
    ("vsub2", simd),
    ("vsub4", simd),
    ("vavrg2", simd),
    ("vavrg4", simd),
    ("vabsdiff2", simd),
    ("vabsdiff4", simd),
    ("vmin2", simd),
    ("vmin4", simd),
    ("vmax2", simd),
    ("vmax4", simd),
    ("vset2", simd),
    ("vset4", simd),
];

choice! {
    enum Operation {
        Add = "vadd",
        Sub = "vsub",
        Average = "vavrg",
        AbsDiff = "vabsdiff",
        Min = "vmin",
        Max = "vmax",
        Set = "vset",
    }
}

choice! {
    enum Comparison {
        Equal = "eq",
        NotEqual = "ne",
        Less = "lt",
        LessEqual = "le",
        Greater = "gt",
        GreaterEqual = "ge",
    }
}

immediate! {
    struct Simd {
        operation: Operation [3],
        /// Of `vset`.
        comparison: Comparison [3],
        /// Bits of a part.
        bits: u32 [5],
        signed_d: bool [1],
        signed_a: bool [1],
        signed_b: bool [1],
        saturate: bool [1],
        /// `.add`: the third source plus the sum of all parts.
        sum: bool [1],
    }
}

/// `imm` is a [`Simd`].
fn parts(a: u32, b: u32, c: u32, imm: u64) -> u32 {
    let simd = Simd::unpack(imm);
    let bits = simd.bits;
    let mask = (1u32 << bits) - 1;
    let part = |v: u32, shift: u32, signed: bool| {
        let x = (v >> shift & mask) as i32;
        if signed {
            x << (32 - bits) >> (32 - bits)
        } else {
            x
        }
    };
    let mut out = if simd.sum { c } else { 0 };
    for shift in (0..32).step_by(bits as usize) {
        let (x, y) = (part(a, shift, simd.signed_a), part(b, shift, simd.signed_b));
        let r = match simd.operation {
            Operation::Add => x + y,
            Operation::Sub => x - y,
            Operation::Average => {
                let s = x + y;
                (s + i32::from(s >= 0)) >> 1
            }
            Operation::AbsDiff => (x - y).abs(),
            Operation::Min => x.min(y),
            Operation::Max => x.max(y),
            Operation::Set => i32::from(match simd.comparison {
                Comparison::Equal => x == y,
                Comparison::NotEqual => x != y,
                Comparison::Less => x < y,
                Comparison::LessEqual => x <= y,
                Comparison::Greater => x > y,
                Comparison::GreaterEqual => x >= y,
            }),
        };
        let r = if simd.saturate && simd.signed_d {
            r.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        } else if simd.saturate {
            r.clamp(0, mask as i32)
        } else {
            r
        };
        if simd.sum {
            let r = part(r as u32, 0, simd.signed_d);
            out = out.wrapping_add(r as u32);
        } else {
            out |= (r as u32 & mask) << shift;
        }
    }
    out
}

fn simd(b: &mut Builder, f: &Form) -> Res {
    let name = f.inst.opcode.as_str();
    let (stem, bits) = match name.strip_suffix('2') {
        Some(stem) => (stem, 16),
        None => (name.trim_end_matches('4'), 8),
    };
    let Some(&(_, operation)) = Operation::ALL.iter().find(|o| o.0 == stem) else {
        return f.refuse("this operation is not supported");
    };
    let types = f.types();
    let is_set = operation == Operation::Set;
    let (d, ta, tb) = match types[..] {
        [d, ta, tb] if !is_set => (d, ta, tb),
        [ta, tb] if is_set => (Ty::U32, ta, tb),
        _ => return f.refuse("the types of the result and of both sources are expected"),
    };
    if [d, ta, tb].iter().any(|t| !matches!(t, Ty::U32 | Ty::S32)) {
        return f.refuse("the types must be .u32 or .s32");
    }
    let comparison = if is_set {
        match f.choose::<Comparison>() {
            Some(c) => c,
            None => return f.refuse("a comparison is expected"),
        }
    } else {
        Comparison::Equal
    };
    let (saturate, sum) = (f.has("sat"), f.has("add"));
    let ops = f.operands(4)?;
    let plain = |o: &Operand| matches!(o, Operand::Name(n) if n.contains('.'));
    if ops.iter().any(plain) {
        return f.refuse("selectors and masks of parts are not supported");
    }
    let regs = [
        b.src(f, &ops[1], Ty::U32)?,
        b.src(f, &ops[2], Ty::U32)?,
        b.src(f, &ops[3], Ty::U32)?,
    ];
    let to = b.dst(f, &ops[0], Ty::U32)?;
    let simd = Simd {
        operation,
        comparison,
        bits,
        signed_d: d.signed(),
        signed_a: ta.signed(),
        signed_b: tb.signed(),
        saturate,
        sum,
    };
    b.emit(tri_imm(parts), Class::Integer, |i| {
        i.dst = to;
        i.src = regs;
        i.imm = simd.pack();
    });
    Ok(())
}
