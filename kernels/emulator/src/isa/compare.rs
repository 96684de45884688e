//! setp, set, selp, slct.

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::operands::mixed;
use super::shapes::{Combine, Comparison, cmp, select, tri};
use crate::float::flush;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Choice, Class, Cx, Exec, Ins, choice, immediate};
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("setp", setp), ("set", set), ("selp", selp), ("slct", slct)];

choice! {
    /// The comparisons, in the order of the manual: all types, unsigned integers, floats.
    enum Operator {
        Eq = "eq",
        Ne = "ne",
        Lt = "lt",
        Le = "le",
        Gt = "gt",
        Ge = "ge",
        Lo = "lo",
        Ls = "ls",
        Hi = "hi",
        Hs = "hs",
        Equ = "equ",
        Neu = "neu",
        Ltu = "ltu",
        Leu = "leu",
        Gtu = "gtu",
        Geu = "geu",
        Num = "num",
        Nan = "nan",
    }
}

/// The comparisons that have code of their own.
#[derive(Clone, Copy)]
enum Base {
    Equal,
    Less,
    LessEqual,
    /// Ordered and different.
    Different,
    /// Neither is NaN.
    Ordered,
}

/// A comparison as a base comparison.
struct Recipe {
    base: Base,
    /// The operands are swapped.
    swap: bool,
    /// The result is negated.
    negate: bool,
}

impl Operator {
    fn recipe(self) -> Recipe {
        use Base::{Different, Equal, Less, LessEqual, Ordered};
        use Operator::*;
        let (base, swap, negate) = match self {
            Eq => (Equal, false, false),
            Ne => (Different, false, false),
            Lt | Lo => (Less, false, false),
            Le | Ls => (LessEqual, false, false),
            Gt | Hi => (Less, true, false),
            Ge | Hs => (LessEqual, true, false),
            Equ => (Different, false, true),
            Neu => (Equal, false, true),
            Ltu => (LessEqual, true, true),
            Leu => (Less, true, true),
            Gtu => (LessEqual, false, true),
            Geu => (Less, false, true),
            Num => (Ordered, false, false),
            Nan => (Ordered, false, true),
        };
        Recipe { base, swap, negate }
    }

    /// For unsigned integers only.
    fn unsigned_only(self) -> bool {
        use Operator::*;
        matches!(self, Lo | Ls | Hi | Hs)
    }

    /// For floats only.
    fn float_only(self) -> bool {
        use Operator::*;
        matches!(self, Equ | Neu | Ltu | Leu | Gtu | Geu | Num | Nan)
    }

    fn of(f: &Form) -> Res<Operator> {
        match f.choose() {
            Some(operator) => Ok(operator),
            None => f.refuse("a comparison is expected"),
        }
    }

    fn name(self) -> &'static str {
        Operator::ALL
            .iter()
            .find(|o| o.1 == self)
            .map_or("", |o| o.0)
    }
}

macro_rules! integers {
    ($base:expr, $t:ty) => {
        match $base {
            Base::Equal => cmp(|a: $t, b: $t| a == b),
            Base::Less => cmp(|a: $t, b: $t| a < b),
            Base::LessEqual => cmp(|a: $t, b: $t| a <= b),
            Base::Different | Base::Ordered => cmp(|a: $t, b: $t| a != b),
        }
    };
}

/// Comparisons through a view of the operands as floats.
macro_rules! floats {
    ($base:expr, $t:ty, $v:expr) => {
        match $base {
            Base::Equal => cmp(|a: $t, b: $t| $v(a) == $v(b)),
            Base::Less => cmp(|a: $t, b: $t| $v(a) < $v(b)),
            Base::LessEqual => cmp(|a: $t, b: $t| $v(a) <= $v(b)),
            Base::Different => cmp(|a: $t, b: $t| $v(a) < $v(b) || $v(a) > $v(b)),
            Base::Ordered => cmp(|a: $t, b: $t| !$v(a).is_nan() && !$v(b).is_nan()),
        }
    };
}

#[inline(always)]
fn same<T>(x: T) -> T {
    x
}

fn low<T: Format>(h: u32) -> f32 {
    T::wide(h as u16)
}

fn high<T: Format>(h: u32) -> f32 {
    T::wide((h >> 16) as u16)
}

fn compare_exec(f: &Form, operator: Operator, t: Ty, ftz: bool) -> Res<Exec> {
    let float = matches!(
        t,
        Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64 | Ty::F16x2 | Ty::Bf16x2
    );
    if float && operator.unsigned_only() || !float && operator.float_only() {
        let name = operator.name();
        return f.refuse(format!("comparison .{name} does not fit the type"));
    }
    let op = operator.recipe().base;
    Ok(match t {
        Ty::B16 | Ty::U16 => integers!(op, u16),
        Ty::B32 | Ty::U32 => integers!(op, u32),
        Ty::B64 | Ty::U64 => integers!(op, u64),
        Ty::S16 => integers!(op, i16),
        Ty::S32 => integers!(op, i32),
        Ty::S64 => integers!(op, i64),
        Ty::F32 if ftz => floats!(op, f32, flush),
        Ty::F32 => floats!(op, f32, same),
        Ty::F64 => floats!(op, f64, same),
        Ty::F16 => floats!(op, u16, F16::wide),
        Ty::Bf16 => floats!(op, u16, Bf16::wide),
        _ => return f.refuse("this type is not supported"),
    })
}

/// Emits the comparison into predicate `p` and perhaps its complement into `q`.
fn compare(b: &mut Builder, f: &Form, t: Ty, ops: &[Operand], p: u32, q: Option<u32>) -> Res {
    let operator = Operator::of(f)?;
    let combine = match f.pick(&["and", "or", "xor"]) {
        None => Combine::None,
        Some(0) => Combine::And,
        Some(1) => Combine::Or,
        Some(_) => Combine::Xor,
    };
    let ftz = f.has("ftz");
    let exec = compare_exec(f, operator, t, ftz)?;
    let (x, y) = (b.src(f, &ops[0], t)?, b.src(f, &ops[1], t)?);
    let recipe = operator.recipe();
    let (x, y) = if recipe.swap { (y, x) } else { (x, y) };
    let (third, flip) = match (combine, ops.get(2)) {
        (Combine::None, None) => (0, 0),
        (Combine::And | Combine::Or | Combine::Xor, Some(op)) => b.pred(f, op)?,
        _ => return f.refuse("a third source goes with .and, .or or .xor"),
    };
    let options = Comparison {
        combine,
        negate_third: flip != 0,
        complement: q.is_some(),
        negate: recipe.negate,
    };
    b.emit(exec, Class::Compare, |i| {
        i.dst = p;
        i.src = [x, y, third];
        i.list = q.unwrap_or(0);
        i.imm = options.pack();
    });
    Ok(())
}

fn setp(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let n = f.inst.operands.len();
    if !(3..=4).contains(&n) {
        return f.refuse("3 or 4 operands are expected");
    }
    let ops = f.operands(n)?;
    if matches!(t, Ty::F16x2 | Ty::Bf16x2) {
        return setp_packed(b, f, t, ops);
    }
    let (p, q) = match &ops[0] {
        Operand::Pair(p, q) => (b.pred_dst(f, p)?, Some(b.pred_dst(f, q)?)),
        p => (b.pred_dst(f, p)?, None),
    };
    compare(b, f, t, &ops[1..], p, q)
}

/// `setp.f16x2 p|q`: one predicate per half.
fn setp_packed(b: &mut Builder, f: &Form, t: Ty, ops: &[Operand]) -> Res {
    let operator = Operator::of(f)?;
    f.has("ftz");
    let Operand::Pair(p, q) = &ops[0] else {
        return f.refuse("two destinations are expected");
    };
    if ops.len() != 3 || operator.unsigned_only() {
        return f.refuse("this form is not supported");
    }
    let Recipe { base, swap, negate } = operator.recipe();
    let halves: [Exec; 2] = match t {
        Ty::F16x2 => [
            floats!(base, u32, low::<F16>),
            floats!(base, u32, high::<F16>),
        ],
        _ => [
            floats!(base, u32, low::<Bf16>),
            floats!(base, u32, high::<Bf16>),
        ],
    };
    let options = Comparison {
        combine: Combine::None,
        negate_third: false,
        complement: false,
        negate,
    };
    for (exec, dst) in halves.into_iter().zip([p, q]) {
        let (x, y) = (b.src(f, &ops[1], t)?, b.src(f, &ops[2], t)?);
        let d = b.pred_dst(f, dst)?;
        // The two count as one instruction.
        let class = if std::ptr::eq(dst, p) {
            Class::Compare
        } else {
            Class::Hidden
        };
        b.emit(exec, class, |i| {
            i.dst = d;
            i.src = if swap { [y, x, 0] } else { [x, y, 0] };
            i.imm = options.pack();
        });
    }
    Ok(())
}

immediate! {
    /// `set.f16x2.f16x2` and its relatives.
    struct SetPacked {
        operator: Operator [5],
        /// The sources are bf16x2, else f16x2.
        bf16: bool [1],
        /// The destination is an integer: all ones for true, else 1.0.
        integer: bool [1],
    }
}

/// Compares both halves and sets each half of the destination.
// `a < b || a > b` is not `a != b` where one is NaN.
#[allow(clippy::double_comparisons)]
fn set_packed(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    use Operator::*;
    let set = SetPacked::unpack(i.imm);
    let unordered = |a: f32, b: f32| a.is_nan() || b.is_nan();
    let holds = |a: f32, b: f32| match set.operator {
        Eq => a == b,
        Ne => a < b || a > b,
        Lt | Lo => a < b,
        Le | Ls => a <= b,
        Gt | Hi => a > b,
        Ge | Hs => a >= b,
        Equ => !(a < b || a > b),
        Neu => a != b,
        Ltu => unordered(a, b) || a < b,
        Leu => unordered(a, b) || a <= b,
        Gtu => unordered(a, b) || a > b,
        Geu => unordered(a, b) || a >= b,
        Num => !unordered(a, b),
        Nan => unordered(a, b),
    };
    let one = match (set.integer, set.bf16) {
        (true, _) => 0xffff,
        (_, true) => 0x3f80,
        _ => 0x3c00,
    };
    let half = |a: u32, b: u32| {
        let (a, b) = (a as u16, b as u16);
        let yes = if set.bf16 {
            holds(Bf16::wide(a), Bf16::wide(b))
        } else {
            holds(F16::wide(a), F16::wide(b))
        };
        if yes { one } else { 0 }
    };
    let (a, b) = (
        cx.warp.regs.all::<u32>(i.src[0]),
        cx.warp.regs.all::<u32>(i.src[1]),
    );
    let d: [u32; 32] =
        std::array::from_fn(|l| half(a[l], b[l]) | half(a[l] >> 16, b[l] >> 16) << 16);
    cx.warp.regs.put::<u32>(i.dst, m, &d);
}

fn set(b: &mut Builder, f: &Form) -> Res {
    let types = f.types();
    let [d, t] = types[..] else {
        return f.refuse("two types are expected");
    };
    let n = f.inst.operands.len();
    if !(3..=4).contains(&n) {
        return f.refuse("3 or 4 operands are expected");
    }
    let ops = f.operands(n)?;
    if matches!(t, Ty::F16x2 | Ty::Bf16x2) {
        let operator = Operator::of(f)?;
        f.has("ftz");
        if n != 3 || operator.unsigned_only() {
            return f.refuse("this form is not supported");
        }
        let (x, y) = (b.src(f, &ops[1], t)?, b.src(f, &ops[2], t)?);
        let reg = b.dst(f, &ops[0], d)?;
        let set = SetPacked {
            operator,
            bf16: t == Ty::Bf16x2,
            integer: d.integer(),
        };
        b.emit(set_packed, Class::Compare, |i| {
            i.dst = reg;
            i.src = [x, y, 0];
            i.imm = set.pack();
        });
        return Ok(());
    }
    let p = b.pred_dst(f, &Operand::Sink)?;
    compare(b, f, t, &ops[1..], p, None)?;
    let one = match d {
        Ty::F32 => u64::from(1f32.to_bits()),
        Ty::U32 | Ty::S32 => 0xffff_ffff,
        Ty::F16 => 0x3c00,
        Ty::Bf16 => 0x3f80,
        Ty::U16 | Ty::S16 => 0xffff,
        _ => return f.refuse("destination type is not supported"),
    };
    let (yes, no) = (b.constant(one, false), b.constant(0, false));
    let reg = b.dst(f, &ops[0], d)?;
    // The two count as one instruction.
    b.emit(select(same::<u32>), Class::Hidden, |i| {
        i.dst = reg;
        i.src = [yes, no, p];
    });
    Ok(())
}

fn selp(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let ops = f.operands(4)?;
    let exec = if t.bytes() == 8 {
        select(same::<u64>)
    } else {
        select(same::<u32>)
    };
    if t == Ty::Pred || t.bytes() == 1 {
        return f.refuse("this type is not supported");
    }
    let (x, y) = (b.src(f, &ops[1], t)?, b.src(f, &ops[2], t)?);
    let (p, flip) = b.pred(f, &ops[3])?;
    let d = b.dst(f, &ops[0], t)?;
    b.emit(exec, Class::Move, |i| {
        i.dst = d;
        i.src = [x, y, p];
        i.imm = u64::from(flip);
    });
    Ok(())
}

fn slct(b: &mut Builder, f: &Form) -> Res {
    let types = f.types();
    let [d, c] = types[..] else {
        return f.refuse("two types are expected");
    };
    f.has("ftz");
    let e = match (d.bytes(), c) {
        (2 | 4, Ty::S32) => tri(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
        (2 | 4, Ty::F32) => tri(|a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b }),
        (8, Ty::S32) => tri(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
        (8, Ty::F32) => tri(|a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b }),
        _ => return f.refuse("these types are not supported"),
    };
    mixed(b, f, Class::Move, e, d, &[d, d, c])
}
