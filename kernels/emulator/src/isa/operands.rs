//! Operand forms that many instructions share.

use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Exec};
use crate::ptx::tree::Operand;
use crate::types::Ty;

/// Emits `dst = exec(sources)` where all `n` sources and the destination have one type.
pub fn uniform(b: &mut Builder, f: &Form, n: usize, t: Ty, class: Class, exec: Exec) -> Res {
    mixed(b, f, class, exec, t, &[t, t, t][..n])
}

/// Emits `dst = exec(sources)` with a type for each operand, at most three sources.
pub fn mixed(b: &mut Builder, f: &Form, class: Class, exec: Exec, d: Ty, sources: &[Ty]) -> Res {
    let ops = f.operands(sources.len() + 1)?;
    let mut regs = [0; 3];
    for (i, t) in sources.iter().enumerate() {
        regs[i] = b.src(f, &ops[i + 1], *t)?;
    }
    let d = b.dst(f, &ops[0], d)?;
    b.emit(exec, class, |i| {
        i.dst = d;
        i.src = regs;
    });
    Ok(())
}

/// An address operand: its 64-bit base register and an offset of 32 bits.
pub fn address(b: &mut Builder, f: &Form, op: &Operand) -> Res<(u32, i32)> {
    let (base, offset, _) = b.address(f, op)?;
    match i32::try_from(offset) {
        Ok(offset) => Ok((base, offset)),
        Err(_) => f.refuse("the offset is too large"),
    }
}

/// The registers of a vector operand, which must be `n`.
pub fn registers(
    b: &mut Builder,
    f: &Form,
    op: &Operand,
    n: usize,
    ty: Ty,
    write: bool,
) -> Res<Vec<u32>> {
    let one = std::slice::from_ref(op);
    let parts: &[Operand] = match op {
        Operand::Vector(parts) => parts,
        _ => one,
    };
    if parts.len() != n {
        return f.refuse(format!(
            "{n} registers are expected, {} are there",
            parts.len()
        ));
    }
    let mut out = Vec::new();
    for p in parts {
        out.push(if write {
            b.dst(f, p, ty)?
        } else {
            b.src(f, p, ty)?
        });
    }
    Ok(out)
}
