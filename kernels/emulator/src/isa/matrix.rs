//! mma.sync, ldmatrix, stmatrix, movmatrix.
//!
//! All `mma` shapes from m8n8k16 on share one layout: with `e` elements to a 32-bit register (or one 64-bit one),
//! lane `4 g + t` holds of A row `g` (and `g + 8`), columns `t e ..` plus `4 e` per further pair of registers; of B
//! the same with columns for rows; of C rows `g` and `g + 8`, columns `2 t` and `2 t + 1`.
//! Products are exact, their sum is taken in f64 (or exact integers) and rounded once to the type of D.

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::memory::{Access, addresses, space_of};
use crate::build::{Builder, Form, Res};
use crate::checks::{FaultKind, Touch};
use crate::float::canon;
use crate::machine::{Class, Cx, Exec, Ins, Place};
use crate::memory::WINDOW_SHIFT;
use crate::ptx::tree::Operand;
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[
    ("mma", mma),
    ("ldmatrix", ldmatrix),
    ("stmatrix", stmatrix),
    ("movmatrix", movmatrix),
];

/// The element types of A and B.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Element {
    F16,
    Bf16,
    Tf32,
    F64,
    U8,
    S8,
    U4,
    S4,
    B1And,
    B1Xor,
}

impl Element {
    fn bits(self) -> u32 {
        match self {
            Element::F16 | Element::Bf16 => 16,
            Element::Tf32 => 32,
            Element::F64 => 64,
            Element::U8 | Element::S8 => 8,
            Element::U4 | Element::S4 => 4,
            Element::B1And | Element::B1Xor => 1,
        }
    }

    /// Elements to a register.
    fn per_register(self) -> u32 {
        (32 / self.bits()).max(1)
    }

    fn integer(self) -> bool {
        !matches!(
            self,
            Element::F16 | Element::Bf16 | Element::Tf32 | Element::F64
        )
    }
}

/// The elements of `registers` as f64: `store(register, lane, index in the register, value)`.
fn unpack(
    cx: &Cx<'_>,
    element: Element,
    registers: &[u32],
    store: impl FnMut(usize, usize, usize, f64) + Copy,
) {
    #[inline(always)]
    fn narrow(
        cx: &Cx<'_>,
        registers: &[u32],
        bits: u32,
        value: impl Fn(u32) -> f64,
        mut store: impl FnMut(usize, usize, usize, f64),
    ) {
        let mask = if bits == 32 {
            u32::MAX
        } else {
            (1 << bits) - 1
        };
        for (r, &line) in registers.iter().enumerate() {
            let raw = cx.w.r.all::<u32>(line);
            for (lane, word) in raw.into_iter().enumerate() {
                for e in 0..32 / bits {
                    store(r, lane, e as usize, value(word >> (e * bits) & mask));
                }
            }
        }
    }
    let bits = element.bits();
    match element {
        Element::F16 => narrow(cx, registers, 16, |v| f64::from(F16::wide(v as u16)), store),
        Element::Bf16 => narrow(
            cx,
            registers,
            16,
            |v| f64::from(Bf16::wide(v as u16)),
            store,
        ),
        // The hardware reads the upper 19 bits.
        Element::Tf32 => narrow(
            cx,
            registers,
            32,
            |v| f64::from(f32::from_bits(v & 0xffff_e000)),
            store,
        ),
        Element::S8 => narrow(cx, registers, 8, |v| f64::from(v as i8), store),
        Element::S4 => narrow(cx, registers, 4, |v| f64::from((v as i8) << 4 >> 4), store),
        Element::U8 | Element::U4 | Element::B1And | Element::B1Xor => {
            narrow(cx, registers, bits, f64::from, store)
        }
        Element::F64 => {
            let mut store = store;
            for (r, &line) in registers.iter().enumerate() {
                for (lane, v) in cx.w.r.all::<f64>(line).into_iter().enumerate() {
                    store(r, lane, 0, v);
                }
            }
        }
    }
}

const ELEMENTS: [Element; 10] = [
    Element::F16,
    Element::Bf16,
    Element::Tf32,
    Element::F64,
    Element::U8,
    Element::S8,
    Element::U4,
    Element::S4,
    Element::B1And,
    Element::B1Xor,
];

/// What D and C hold.
const D_F32: u32 = 0;
const D_F16: u32 = 1;
const D_S32: u32 = 2;
const D_F64: u32 = 3;

/// All of the warp must be here, and does nothing but this.
fn whole_warp(cx: &mut Cx<'_>, m: u32) -> bool {
    if m == 0 {
        return false;
    }
    if cx.w.live != !0 {
        let missing = !cx.w.live;
        cx.fail(
            FaultKind::DivergentSync,
            m.trailing_zeros(),
            format!("lanes {missing:#010x} have left the kernel or do not exist"),
        );
        return false;
    }
    cx.converged(m, !0, false)
}

/// `list`: m, n, k, element of A, of B, kind of D, kind of C, saturate, then the registers of D, A, B, C.
fn product(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let prog = cx.env.program;
    let l = &prog.lists[i.list as usize];
    let (m, n, k) = (l[0] as usize, l[1] as usize, l[2] as usize);
    let (ea, eb) = (ELEMENTS[l[3] as usize], ELEMENTS[l[4] as usize]);
    let (d_kind, c_kind, saturate) = (l[5], l[6], l[7] == 1);
    let count = |kind: u32| {
        if kind == D_F16 {
            m * n / 64
        } else {
            m * n / 32
        }
    };
    let (nd, nc) = (count(d_kind), count(c_kind));
    let per = ea.per_register() as usize;
    let (na, nb) = (m * k / 32 / per, k * n / 32 / per);
    let (d_regs, rest) = l[8..].split_at(nd);
    let (a_regs, rest) = rest.split_at(na);
    let (b_regs, c_regs) = rest.split_at(nb);
    debug_assert_eq!(c_regs.len(), nc);
    // A by rows; B by rows too, so that its eight columns lie side by side.
    let rows = m / 8;
    let mut small = [0f64; 24 * 64];
    let mut large;
    let room: &mut [f64] = if k <= 64 {
        &mut small
    } else {
        large = vec![0f64; 24 * k];
        &mut large
    };
    let (a, b) = room.split_at_mut(16 * k);
    let b = &mut b[..8 * k];
    let (pa, pb) = (
        std::cell::Cell::from_mut(a).as_slice_of_cells(),
        std::cell::Cell::from_mut(b).as_slice_of_cells(),
    );
    unpack(cx, ea, a_regs, |r, lane, e, v| {
        let (row, first) = (lane / 4 + r % rows * 8, lane % 4 * per + r / rows * 4 * per);
        pa[row * k + first + e].set(v);
    });
    unpack(cx, eb, b_regs, |r, lane, e, v| {
        pb[(lane % 4 * per + r * 4 * per + e) * 8 + lane / 4].set(v);
    });
    let (a, b) = (&*a, &*b);
    let mut c = [0f64; 128];
    for_elements(rows, n, |r, h, row, col, lane| {
        c[row * n + col] = match c_kind {
            D_F32 => f64::from(cx.w.r.get::<f32>(c_regs[r * 2 + h], lane)),
            D_F16 => f64::from(F16::wide(
                (cx.w.r.get::<u32>(c_regs[r], lane) >> (h * 16)) as u16,
            )),
            D_S32 => f64::from(cx.w.r.get::<i32>(c_regs[r * 2 + h], lane)),
            _ => cx.w.r.get::<f64>(c_regs[r * 2 + h], lane),
        };
    });
    let xor = ea == Element::B1Xor;
    multiply(a, b, &mut c, m, k, xor);
    if let Some(counts) = &mut cx.counts {
        let full_rows = (0..m)
            .filter(|r| a[r * k..(r + 1) * k].iter().any(|x| *x != 0.0))
            .count();
        let full_columns = (0..n)
            .filter(|j| (0..k).any(|x| b[x * 8 + j] != 0.0))
            .count();
        counts.tensor_products += (m * n * k) as u64;
        counts.tensor_useful += (full_rows * full_columns * k) as u64;
    }
    for_elements(rows, n, |r, h, row, col, lane| {
        let x = c[row * n + col];
        match d_kind {
            D_F32 => cx.w.r.set::<f32>(d_regs[r * 2 + h], lane, canon(x as f32)),
            D_F16 => {
                let old = cx.w.r.get::<u32>(d_regs[r], lane);
                let bits = u32::from(F16::narrow64(x)) << (h * 16);
                cx.w.r
                    .set::<u32>(d_regs[r], lane, old & !(0xffff << (h * 16)) | bits);
            }
            D_S32 => {
                // Exact in f64; without saturation the sum wraps.
                let v = x as i64;
                let v = if saturate {
                    v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
                } else {
                    v as i32
                };
                cx.w.r.set::<i32>(d_regs[r * 2 + h], lane, v);
            }
            _ => cx.w.r.set::<f64>(d_regs[r * 2 + h], lane, x),
        }
    });
}

/// Every element of an accumulator: register pair, half, row, column, lane.
#[inline(always)]
fn for_elements(rows: usize, n: usize, mut f: impl FnMut(usize, usize, usize, usize, usize)) {
    debug_assert_eq!(n, 8);
    for r in 0..rows {
        for lane in 0..32 {
            for h in 0..2 {
                f(r, h, lane / 4 + r * 8, lane % 4 * 2 + h, lane);
            }
        }
    }
}

#[inline(always)]
fn multiply_body(a: &[f64], b: &[f64], c: &mut [f64], m: usize, k: usize, xor: bool) {
    for (row, out) in a.chunks_exact(k).zip(c.chunks_exact_mut(8)).take(m) {
        let mut sum = [0f64; 8];
        sum.copy_from_slice(out);
        if xor {
            for (y, x) in row.iter().zip(b.chunks_exact(8)) {
                for j in 0..8 {
                    sum[j] += if *y == x[j] { 0.0 } else { 1.0 };
                }
            }
        } else {
            for (y, x) in row.iter().zip(b.chunks_exact(8)) {
                for j in 0..8 {
                    // Products of narrow types are exact, so fusing changes nothing; that of f64 is fused in hardware.
                    sum[j] = y.mul_add(x[j], sum[j]);
                }
            }
        }
        out.copy_from_slice(&sum);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_fast(a: &[f64], b: &[f64], c: &mut [f64], m: usize, k: usize, xor: bool) {
    multiply_body(a, b, c, m, k, xor);
}

fn multiply(a: &[f64], b: &[f64], c: &mut [f64], m: usize, k: usize, xor: bool) {
    #[cfg(target_arch = "x86_64")]
    if super::shapes::fast() {
        // SAFETY: the processor has the features the function asks for.
        return unsafe { multiply_fast(a, b, c, m, k, xor) };
    }
    multiply_body(a, b, c, m, k, xor);
}

fn registers(
    b: &mut Builder,
    f: &Form,
    op: &Operand,
    n: usize,
    ty: Ty,
    write: bool,
) -> Res<Vec<u32>> {
    let one = [op.clone()];
    let parts: &[Operand] = match op {
        Operand::Vector(parts) => parts,
        _ => &one,
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

fn mma(b: &mut Builder, f: &Form) -> Res {
    f.has("sync");
    f.has("aligned");
    f.has("row");
    f.has("col");
    let saturate = f.has("satfinite");
    let shapes: [(&str, [usize; 3]); 13] = [
        ("m16n8k4", [16, 8, 4]),
        ("m16n8k8", [16, 8, 8]),
        ("m16n8k16", [16, 8, 16]),
        ("m16n8k32", [16, 8, 32]),
        ("m16n8k64", [16, 8, 64]),
        ("m16n8k128", [16, 8, 128]),
        ("m16n8k256", [16, 8, 256]),
        ("m8n8k16", [8, 8, 16]),
        ("m8n8k32", [8, 8, 32]),
        ("m8n8k128", [8, 8, 128]),
        ("m8n8k4", [8, 8, 4]),
        ("m8n32k16", [0; 3]),
        ("m32n8k16", [0; 3]),
    ];
    let Some(&(_, [m, n, k])) = shapes.iter().find(|s| f.has(s.0)) else {
        return f.refuse("this shape is not supported");
    };
    // The types in order: D, A, B, C. The narrow ones are no PTX value types and are read here.
    let mut kinds: Vec<&str> = Vec::new();
    for name in &f.inst.modifiers {
        if matches!(
            name.as_str(),
            "f16" | "bf16" | "tf32" | "f32" | "f64" | "u8" | "s8" | "u4" | "s4" | "b1" | "s32"
        ) {
            f.has(name);
            kinds.push(name);
        }
    }
    let [d, ta, tb, c] = kinds[..] else {
        return f.refuse("four types are expected");
    };
    let xor = f.has("xor");
    if (f.has("and") || xor) && !f.has("popc") || f.has("popc") != (ta == "b1") {
        return f.refuse(".xor.popc or .and.popc goes with .b1");
    }
    let element = |t: &str| match t {
        "f16" => Some(Element::F16),
        "bf16" => Some(Element::Bf16),
        "tf32" => Some(Element::Tf32),
        "f64" => Some(Element::F64),
        "u8" => Some(Element::U8),
        "s8" => Some(Element::S8),
        "u4" => Some(Element::U4),
        "s4" => Some(Element::S4),
        "b1" if xor => Some(Element::B1Xor),
        "b1" => Some(Element::B1And),
        _ => None,
    };
    let (Some(ea), Some(eb)) = (element(ta), element(tb)) else {
        return f.refuse("these element types are not supported");
    };
    let kind = |t: &str| match t {
        "f32" => Some(D_F32),
        "f16" => Some(D_F16),
        "s32" => Some(D_S32),
        "f64" => Some(D_F64),
        _ => None,
    };
    let (Some(dk), Some(ck)) = (kind(d), kind(c)) else {
        return f.refuse("this accumulator type is not supported");
    };
    let fits = match ea {
        Element::F16 => eb == ea && m == 16 && (k == 8 || k == 16) && dk <= D_F16 && ck <= D_F16,
        Element::Bf16 => eb == ea && m == 16 && (k == 8 || k == 16) && dk == D_F32 && ck == D_F32,
        Element::Tf32 => eb == ea && m == 16 && (k == 4 || k == 8) && dk == D_F32 && ck == D_F32,
        Element::F64 => {
            eb == ea && (m == 8 && k == 4 || m == 16 && k <= 16) && dk == D_F64 && ck == D_F64
        }
        Element::U8 | Element::S8 => {
            eb.bits() == 8
                && (m == 8 && k == 16 || m == 16 && (k == 16 || k == 32))
                && dk == D_S32
                && ck == D_S32
        }
        Element::U4 | Element::S4 => {
            eb.bits() == 4
                && (m == 8 && k == 32 || m == 16 && (k == 32 || k == 64))
                && dk == D_S32
                && ck == D_S32
        }
        _ => eb.bits() == 1 && k >= 128 && dk == D_S32 && ck == D_S32,
    };
    if !fits || ea.integer() != eb.integer() {
        return f.refuse("this combination of shape and types is not supported");
    }
    let ops = f.operands(4)?;
    let per = ea.per_register() as usize;
    let register = |kind: u32| if kind == D_F64 { Ty::B64 } else { Ty::B32 };
    let source = if ea == Element::F64 { Ty::B64 } else { Ty::B32 };
    let count = |kind: u32| {
        if kind == D_F16 {
            m * n / 64
        } else {
            m * n / 32
        }
    };
    let ra = registers(b, f, &ops[1], m * k / 32 / per, source, false)?;
    let rb = registers(b, f, &ops[2], k * n / 32 / per, source, false)?;
    let rc = registers(b, f, &ops[3], count(ck), register(ck), false)?;
    let rd = registers(b, f, &ops[0], count(dk), register(dk), true)?;
    let code = |e: Element| ELEMENTS.iter().position(|x| *x == e).unwrap_or(0) as u32;
    let mut list = vec![
        m as u32,
        n as u32,
        k as u32,
        code(ea),
        code(eb),
        dk,
        ck,
        u32::from(saturate),
    ];
    list.extend(rd.into_iter().chain(ra).chain(rb).chain(rc));
    let list = b.list(list);
    b.emit(product, Class::Tensor, |i| i.list = list);
    Ok(())
}

/// Row addresses of `count` 8x8 matrices in shared memory, checked. `None` when the warp is not ready.
fn rows(cx: &mut Cx<'_>, i: &Ins, mask: u32, count: usize, touch: Touch) -> Option<[u64; 32]> {
    if !whole_warp(cx, mask) {
        return None;
    }
    let access = Access::unpack(i.imm);
    let mut addrs = addresses(cx, i.a, access.offset);
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
    let turned = i.b == 1;
    let Some(addrs) = rows(cx, i, mask, list.len(), Touch::Read) else {
        return;
    };
    for (matrix, &line) in list.iter().enumerate() {
        let at = |row: usize, col: usize| {
            cx.block
                .shared_load(addrs[matrix * 8 + row] as u32 + col as u32 * 2, 2) as u32
        };
        let d: [u32; 32] = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4 * 2);
            if turned {
                at(t, g) | at(t + 1, g) << 16
            } else {
                at(g, t) | at(g, t + 1) << 16
            }
        });
        cx.w.r.put::<u32>(line, !0, &d);
    }
}

fn store_matrix(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let prog = cx.env.program;
    let list = &prog.lists[i.list as usize];
    let turned = i.b == 1;
    let Some(addrs) = rows(cx, i, mask, list.len(), Touch::Write) else {
        return;
    };
    for (matrix, &line) in list.iter().enumerate() {
        let s = cx.w.r.all::<u32>(line);
        for (lane, v) in s.into_iter().enumerate() {
            for h in 0..2 {
                let (g, t) = (lane / 4, lane % 4 * 2 + h);
                let (row, col) = if turned { (t, g) } else { (g, t) };
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
    let turned = f.has("trans");
    if f.pick(&["m8n8"]).is_none() || f.ty()? != Ty::B16 {
        return f.refuse("only .m8n8 with .b16 is supported");
    }
    let Some(count) = f.pick(&["x1", "x2", "x4"]) else {
        return f.refuse(".x1, .x2 or .x4 is expected");
    };
    let ops = f.operands(2)?;
    let (data, address) = if load {
        (&ops[0], &ops[1])
    } else {
        (&ops[1], &ops[0])
    };
    let (a, offset, _) = b.address(f, address)?;
    let Ok(offset) = i32::try_from(offset) else {
        return f.refuse("the offset is too large");
    };
    let lines = registers(b, f, data, 1 << count, Ty::B32, load)?;
    let list = b.list(lines);
    let touch = if load { Touch::Read } else { Touch::Write };
    let access = Access {
        offset,
        bytes: 16,
        count: 1,
        place: Some(Place::Shared),
        touch,
        signed: false,
    };
    b.emit(
        if load {
            load_matrix as Exec
        } else {
            store_matrix
        },
        Class::Matrix,
        |i| {
            i.a = a;
            i.b = u32::from(turned);
            i.list = list;
            i.imm = access.pack();
        },
    );
    Ok(())
}

fn ldmatrix(b: &mut Builder, f: &Form) -> Res {
    matrix_access(b, f, true)
}

fn stmatrix(b: &mut Builder, f: &Form) -> Res {
    matrix_access(b, f, false)
}

/// The 8x8 matrix held by the warp, turned.
fn turn(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let a = cx.w.r.all::<u32>(i.a);
    let at = |row: usize, col: usize| a[row * 4 + col / 2] >> (col % 2 * 16) & 0xffff;
    let d: [u32; 32] = std::array::from_fn(|lane| {
        let (g, t) = (lane / 4, lane % 4 * 2);
        at(t, g) | at(t + 1, g) << 16
    });
    cx.w.r.put::<u32>(i.d, !0, &d);
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
    b.emit(turn, Class::Matrix, |i| {
        i.d = d;
        i.a = a;
    });
    Ok(())
}
