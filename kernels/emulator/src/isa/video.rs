//! SIMD video instructions: two halves or four bytes of a word at once.

use super::Decode;
use super::shapes::tri_imm;
use crate::lower::{Builder, Form, Res};
use crate::machine::Class;
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

const OPS: [&str; 7] = ["vadd", "vsub", "vavrg", "vabsdiff", "vmin", "vmax", "vset"];
const COMPARISONS: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];

/// `imm`: operation, then by four bits: comparison, bits 8-13: width of a part, then flags for signed results, signed
/// sources, saturation and summing up.
fn parts(a: u32, b: u32, c: u32, imm: u64) -> u32 {
    let (op, comparison, bits) = (imm & 15, imm >> 4 & 15, (imm >> 8 & 63) as u32);
    let flag = |n: u64| imm >> n & 1 == 1;
    let (signed_d, signed_a, signed_b, saturate, sum) =
        (flag(16), flag(17), flag(18), flag(19), flag(20));
    let mask = (1u32 << bits) - 1;
    let part = |v: u32, at: u32, signed: bool| {
        let x = (v >> at & mask) as i32;
        if signed {
            x << (32 - bits) >> (32 - bits)
        } else {
            x
        }
    };
    let mut out = if sum { c } else { 0 };
    for at in (0..32).step_by(bits as usize) {
        let (x, y) = (part(a, at, signed_a), part(b, at, signed_b));
        let r = match op {
            0 => x + y,
            1 => x - y,
            2 => {
                let s = x + y;
                (s + i32::from(s >= 0)) >> 1
            }
            3 => (x - y).abs(),
            4 => x.min(y),
            5 => x.max(y),
            _ => i32::from(match comparison {
                0 => x == y,
                1 => x != y,
                2 => x < y,
                3 => x <= y,
                4 => x > y,
                _ => x >= y,
            }),
        };
        let r = if saturate && signed_d {
            r.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        } else if saturate {
            r.clamp(0, mask as i32)
        } else {
            r
        };
        if sum {
            let r = part(r as u32, 0, signed_d);
            out = out.wrapping_add(r as u32);
        } else {
            out |= (r as u32 & mask) << at;
        }
    }
    out
}

fn simd(b: &mut Builder, f: &Form) -> Res {
    let name = f.inst.opcode.as_str();
    let (op, bits) = (
        &name[..name.len() - 1],
        if name.ends_with('2') { 16 } else { 8 },
    );
    let Some(op) = OPS.iter().position(|o| *o == op) else {
        return f.refuse("this operation is not supported");
    };
    let types = f.types();
    let is_set = OPS[op] == "vset";
    let (d, ta, tb) = match types[..] {
        [d, ta, tb] if !is_set => (d, ta, tb),
        [ta, tb] if is_set => (Ty::U32, ta, tb),
        _ => return f.refuse("the types of the result and of both sources are expected"),
    };
    if [d, ta, tb].iter().any(|t| !matches!(t, Ty::U32 | Ty::S32)) {
        return f.refuse("the types must be .u32 or .s32");
    }
    let comparison = match (is_set, f.pick(&COMPARISONS)) {
        (false, _) => 0,
        (true, Some(c)) => c,
        (true, None) => return f.refuse("a comparison is expected"),
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
    let imm = op as u64
        | (comparison as u64) << 4
        | bits << 8
        | u64::from(d.signed()) << 16
        | u64::from(ta.signed()) << 17
        | u64::from(tb.signed()) << 18
        | u64::from(saturate) << 19
        | u64::from(sum) << 20;
    b.emit(tri_imm(parts), Class::Integer, |i| {
        i.dst = to;
        i.src = regs;
        i.imm = imm;
    });
    Ok(())
}
