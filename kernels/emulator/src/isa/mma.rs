//! mma.sync: products on tensor cores.
//!
//! All shapes from m8n8k4 (f64) on share one layout: with `PER` elements to a register, lane `4 g + t` holds of A row
//! `g` (and `g + 8`), columns `t PER ..` plus `4 PER` per further pair of registers; of B the same with columns for
//! rows; of C rows `g` and `g + 8`, columns `2 t` and `2 t + 1`.
//! Products are exact, their sum is taken in f64 in the order of k, beginning with C, and rounded once to the type
//! of D. Integer sums are exact.
//!
//! A product is decoded once into f64 and then is a dense loop: of C and B the even columns come first, which is how
//! their registers hold them, so that no lane has to be moved for C and D.

// Several arrays are indexed by one number throughout.
#![allow(clippy::needless_range_loop)]

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::matrix::whole_warp;
use super::operands::registers;
use crate::float::canon;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, Lane, View};
use crate::types::Ty;
use std::mem::MaybeUninit;

pub const DEFS: &[(&str, Decode)] = &[("mma", mma)];

/// Elements of A and B in a register.
pub trait Element: 'static {
    /// What a lane of a register holds.
    type Word: Lane;
    /// Elements to a register.
    const PER: usize;
    /// Element `e` of a word. `flip` is the sign bit of a signed integer type, else 0.
    fn wide(word: Self::Word, e: usize, flip: u32) -> f64;
}

/// Pairs of a 16-bit format.
struct Pair<T>(std::marker::PhantomData<T>);

impl<T: Format> Element for Pair<T> {
    type Word = u32;
    const PER: usize = 2;
    #[inline(always)]
    fn wide(word: u32, e: usize, _: u32) -> f64 {
        f64::from(T::wide((word >> (e * 16)) as u16))
    }
}

struct Tf32;

impl Element for Tf32 {
    type Word = u32;
    const PER: usize = 1;
    #[inline(always)]
    fn wide(word: u32, _: usize, _: u32) -> f64 {
        // The hardware reads the upper 19 bits.
        f64::from(f32::from_bits(word & 0xffff_e000))
    }
}

struct F64;

impl Element for F64 {
    type Word = f64;
    const PER: usize = 1;
    #[inline(always)]
    fn wide(word: f64, _: usize, _: u32) -> f64 {
        word
    }
}

/// Integers of `BITS` bits.
struct Int<const BITS: usize>;

impl<const BITS: usize> Element for Int<BITS> {
    type Word = u32;
    const PER: usize = 32 / BITS;
    #[inline(always)]
    fn wide(word: u32, e: usize, flip: u32) -> f64 {
        let v = word >> (e * BITS) & ((1 << BITS) - 1);
        f64::from((v ^ flip).wrapping_sub(flip) as i32)
    }
}

/// Elements of C and D.
pub trait Sum: 'static {
    /// Registers of eight rows.
    const REGISTERS: usize;
    /// Row `g` of the eight: even columns, then odd ones.
    fn load(v: View, registers: &[u32], g: usize) -> [f64; 8];
    fn store(v: View, registers: &[u32], g: usize, row: [f64; 8], saturate: bool);
}

// Explicit loops here and below: closures given to the standard library's array functions are compiled without the
// processor features of their caller.

macro_rules! sum {
    ($name:ident, $t:ty, |$x:ident, $saturate:ident| $round:expr) => {
        struct $name;
        impl Sum for $name {
            const REGISTERS: usize = 2;
            #[inline(always)]
            fn load(v: View, registers: &[u32], g: usize) -> [f64; 8] {
                let mut out = [0f64; 8];
                for half in 0..2 {
                    let cells = v.quad::<$t>(registers[half], g);
                    for j in 0..4 {
                        out[half * 4 + j] = f64::from(<$t>::from_cell(cells[j]));
                    }
                }
                out
            }
            #[inline(always)]
            fn store(v: View, registers: &[u32], g: usize, row: [f64; 8], $saturate: bool) {
                for half in 0..2 {
                    let mut cells = [Default::default(); 4];
                    for j in 0..4 {
                        let $x = row[half * 4 + j];
                        cells[j] = ($round).to_cell();
                    }
                    v.set_quad::<$t>(registers[half], g, cells);
                }
            }
        }
    };
}

sum!(SumF32, f32, |x, _saturate| canon(x as f32));
sum!(SumF64, f64, |x, _saturate| x);
// The sum is exact in f64; without saturation it wraps.
sum!(SumS32, i32, |x, saturate| {
    if saturate {
        (x as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    } else {
        x as i64 as i32
    }
});

struct SumF16;

impl Sum for SumF16 {
    const REGISTERS: usize = 1;
    #[inline(always)]
    fn load(v: View, registers: &[u32], g: usize) -> [f64; 8] {
        let words = v.quad::<u32>(registers[0], g);
        let mut out = [0f64; 8];
        for j in 0..4 {
            out[j] = f64::from(F16::wide(words[j] as u16));
            out[j + 4] = f64::from(F16::wide((words[j] >> 16) as u16));
        }
        out
    }
    #[inline(always)]
    fn store(v: View, registers: &[u32], g: usize, row: [f64; 8], _: bool) {
        let mut words = [0u32; 4];
        for j in 0..4 {
            words[j] =
                u32::from(F16::narrow64(row[j])) | u32::from(F16::narrow64(row[j + 4])) << 16;
        }
        v.set_quad::<u32>(registers[0], g, words);
    }
}

/// A product of `8 * ROWS` rows, 8 columns and `4 * PER * STEPS` inner elements; `NA` and `NB` are the elements of
/// A and B. `list`: the registers of D, A, B, C. `imm`: sign bits of A and B, bit 32 saturates.
#[inline(always)]
fn product_body<
    E: Element,
    D: Sum,
    C: Sum,
    const ROWS: usize,
    const STEPS: usize,
    const NA: usize,
    const NB: usize,
>(
    cx: &mut Cx<'_>,
    i: &Ins,
    mask: u32,
) {
    const {
        assert!(NA == ROWS * STEPS * E::PER * 32 && NB == STEPS * E::PER * 32);
    }
    if !whole_warp(cx, mask) {
        return;
    }
    let env = cx.env;
    let l = &env.program.lists[i.list as usize][..];
    let (flip_a, flip_b) = (i.imm as u32 & 0xff, i.imm as u32 >> 8 & 0xff);
    let saturate = i.imm >> 32 & 1 == 1;
    let (d_regs, rest) = l.split_at(ROWS * D::REGISTERS);
    let (a_regs, rest) = rest.split_at(ROWS * STEPS);
    let (b_regs, c_regs) = rest.split_at(STEPS);
    let v = cx.warp.regs.view();
    // Register by register, element by element, lane by lane.
    let mut a = [MaybeUninit::<f64>::uninit(); NA];
    for (r, &reg) in a_regs.iter().enumerate() {
        for chunk in 0..4 {
            let words = v.chunk::<E::Word>(reg, chunk);
            for e in 0..E::PER {
                let to = &mut a[(r * E::PER + e) * 32 + chunk * 8..][..8];
                for j in 0..8 {
                    to[j].write(E::wide(E::Word::from_cell(words[j]), e, flip_a));
                }
            }
        }
    }
    // By k, even columns first.
    let mut b = [MaybeUninit::<f64>::uninit(); NB];
    for (s, &reg) in b_regs.iter().enumerate() {
        for t in 0..4 {
            let mut words = [<E::Word as Lane>::Cell::default(); 8];
            for j in 0..8 {
                words[j] = v.get::<E::Word>(reg, (j % 4 * 2 + j / 4) * 4 + t).to_cell();
            }
            for e in 0..E::PER {
                let to = &mut b[((s * 4 + t) * E::PER + e) * 8..][..8];
                for j in 0..8 {
                    to[j].write(E::wide(E::Word::from_cell(words[j]), e, flip_b));
                }
            }
        }
    }
    // SAFETY: the loops above have written `a` by registers, elements and lanes, and `b` by steps, quads, elements and
    // columns: `NA` and `NB` in all, as the assertion has it.
    let (a, b) = unsafe {
        (
            &*std::ptr::from_ref(&a).cast::<[f64; NA]>(),
            &*std::ptr::from_ref(&b).cast::<[f64; NB]>(),
        )
    };
    let mut sums = [[0f64; 8]; 16];
    for row in 0..ROWS * 8 {
        sums[row] = C::load(v, &c_regs[row / 8 * C::REGISTERS..], row % 8);
    }
    for r in 0..ROWS {
        for g in [0, 4] {
            let at = r * 8 + g;
            let mut acc = [sums[at], sums[at + 1], sums[at + 2], sums[at + 3]];
            for s in 0..STEPS {
                for t in 0..4 {
                    for e in 0..E::PER {
                        let x = &b[((s * 4 + t) * E::PER + e) * 8..][..8];
                        let y = &a[((s * ROWS + r) * E::PER + e) * 32 + g * 4 + t..][..13];
                        for k in 0..4 {
                            for j in 0..8 {
                                // Products of narrow types are exact, so fusing changes nothing; that of f64 is
                                // fused in hardware.
                                acc[k][j] = y[k * 4].mul_add(x[j], acc[k][j]);
                            }
                        }
                    }
                }
            }
            sums[at..at + 4].copy_from_slice(&acc);
        }
    }
    for row in 0..ROWS * 8 {
        D::store(
            v,
            &d_regs[row / 8 * D::REGISTERS..],
            row % 8,
            sums[row],
            saturate,
        );
    }
    if let Some(counts) = &mut cx.counts {
        let mut rows = 0;
        for row in 0..ROWS * 8 {
            let holds = (0..STEPS * E::PER).any(|n| {
                let (s, e) = (n / E::PER, n % E::PER);
                let at = ((s * ROWS + row / 8) * E::PER + e) * 32 + row % 8 * 4;
                a[at..at + 4].iter().any(|x| *x != 0.0)
            });
            rows += u64::from(holds);
        }
        let mut columns = [false; 8];
        for x in b.chunks_exact(8) {
            for j in 0..8 {
                columns[j] |= x[j] != 0.0;
            }
        }
        let columns = columns.iter().filter(|c| **c).count() as u64;
        counts.tensor_products += (ROWS * 8 * NB) as u64;
        counts.tensor_useful += rows * columns * (NB / 8) as u64;
    }
}

/// The variant for this processor.
fn product<
    E: Element,
    D: Sum,
    C: Sum,
    const ROWS: usize,
    const STEPS: usize,
    const NA: usize,
    const NB: usize,
>() -> Exec {
    fn plain<
        E: Element,
        D: Sum,
        C: Sum,
        const ROWS: usize,
        const STEPS: usize,
        const NA: usize,
        const NB: usize,
    >(
        cx: &mut Cx<'_>,
        i: &Ins,
        m: u32,
    ) {
        product_body::<E, D, C, ROWS, STEPS, NA, NB>(cx, i, m);
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        fn newer<
            E: Element,
            D: Sum,
            C: Sum,
            const ROWS: usize,
            const STEPS: usize,
            const NA: usize,
            const NB: usize,
        >(
            cx: &mut Cx<'_>,
            i: &Ins,
            m: u32,
        ) {
            product_body::<E, D, C, ROWS, STEPS, NA, NB>(cx, i, m);
        }
        if crate::simd::fast() {
            return newer::<E, D, C, ROWS, STEPS, NA, NB>;
        }
    }
    plain::<E, D, C, ROWS, STEPS, NA, NB>
}

/// Products of bits: how many positions hold 1 in both (`imm` 0), or differ (`imm` 1). `d`: A registers per row
/// group, `a`: row groups. `list` as for [`product_body`].
fn bits(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let env = cx.env;
    let l = &env.program.lists[i.list as usize][..];
    let (steps, rows) = (i.dst as usize, i.src[0] as usize);
    let (d_regs, rest) = l.split_at(rows * 2);
    let (a_regs, rest) = rest.split_at(rows * steps);
    let (b_regs, c_regs) = rest.split_at(steps);
    let r = &cx.warp.regs;
    let a = |row: usize, word: usize| {
        r.get::<u32>(a_regs[word / 4 * rows + row / 8], row % 8 * 4 + word % 4)
    };
    let b = |column: usize, word: usize| r.get::<u32>(b_regs[word / 4], column * 4 + word % 4);
    let mut out = [[0i32; 8]; 16];
    let (mut full_rows, mut full_columns) = (0u32, 0u32);
    for row in 0..rows * 8 {
        for column in 0..8 {
            let register = row / 8 * 2 + column % 2;
            let mut sum: i32 = r.get(c_regs[register], row % 8 * 4 + column / 2);
            for word in 0..steps * 4 {
                let (x, y) = (a(row, word), b(column, word));
                full_rows |= u32::from(x != 0) << row;
                full_columns |= u32::from(y != 0) << column;
                let z = if i.imm == 1 { x ^ y } else { x & y };
                sum = sum.wrapping_add(z.count_ones() as i32);
            }
            out[row][column] = sum;
        }
    }
    for row in 0..rows * 8 {
        for column in 0..8 {
            let register = row / 8 * 2 + column % 2;
            cx.warp
                .regs
                .set::<i32>(d_regs[register], row % 8 * 4 + column / 2, out[row][column]);
        }
    }
    if let Some(counts) = &mut cx.counts {
        let inner = (steps * 128) as u64;
        counts.tensor_products += (rows * 64) as u64 * inner;
        counts.tensor_useful +=
            u64::from(full_rows.count_ones() * full_columns.count_ones()) * inner;
    }
}

/// A shape with its types.
struct Variant {
    shape: &'static str,
    /// D, A, B, C. The narrow ones are no PTX value types.
    types: [&'static str; 4],
    /// Registers of D, A, B, C.
    registers: [usize; 4],
    exec: fn() -> Exec,
}

macro_rules! variant {
    ($shape:literal, $d:literal $a:literal $b:literal $c:literal, $e:ty, $ds:ty, $cs:ty, $rows:literal, $steps:literal) => {
        Variant {
            shape: $shape,
            types: [$d, $a, $b, $c],
            registers: [
                $rows * <$ds as Sum>::REGISTERS,
                $rows * $steps,
                $steps,
                $rows * <$cs as Sum>::REGISTERS,
            ],
            exec: product::<
                $e,
                $ds,
                $cs,
                $rows,
                $steps,
                { $rows * $steps * <$e as Element>::PER * 32 },
                { $steps * <$e as Element>::PER * 32 },
            >,
        }
    };
}

macro_rules! bit_variant {
    ($shape:literal, $rows:literal, $steps:literal) => {
        Variant {
            shape: $shape,
            types: ["s32", "b1", "b1", "s32"],
            registers: [$rows * 2, $rows * $steps, $steps, $rows * 2],
            exec: || bits,
        }
    };
}

type H = Pair<F16>;
type B = Pair<Bf16>;

/// All products. Integer types are written signed; unsigned ones differ by their sign bit only.
const VARIANTS: &[Variant] = &[
    variant!("m16n8k16", "f32" "bf16" "bf16" "f32", B, SumF32, SumF32, 2, 2),
    variant!("m16n8k16", "f32" "f16" "f16" "f32", H, SumF32, SumF32, 2, 2),
    variant!("m16n8k16", "f16" "f16" "f16" "f16", H, SumF16, SumF16, 2, 2),
    variant!("m16n8k16", "f32" "f16" "f16" "f16", H, SumF32, SumF16, 2, 2),
    variant!("m16n8k16", "f16" "f16" "f16" "f32", H, SumF16, SumF32, 2, 2),
    variant!("m16n8k8", "f32" "bf16" "bf16" "f32", B, SumF32, SumF32, 2, 1),
    variant!("m16n8k8", "f32" "f16" "f16" "f32", H, SumF32, SumF32, 2, 1),
    variant!("m16n8k8", "f16" "f16" "f16" "f16", H, SumF16, SumF16, 2, 1),
    variant!("m16n8k8", "f32" "f16" "f16" "f16", H, SumF32, SumF16, 2, 1),
    variant!("m16n8k8", "f16" "f16" "f16" "f32", H, SumF16, SumF32, 2, 1),
    variant!("m16n8k8", "f32" "tf32" "tf32" "f32", Tf32, SumF32, SumF32, 2, 2),
    variant!("m16n8k4", "f32" "tf32" "tf32" "f32", Tf32, SumF32, SumF32, 2, 1),
    variant!("m8n8k4", "f64" "f64" "f64" "f64", F64, SumF64, SumF64, 1, 1),
    variant!("m16n8k4", "f64" "f64" "f64" "f64", F64, SumF64, SumF64, 2, 1),
    variant!("m16n8k8", "f64" "f64" "f64" "f64", F64, SumF64, SumF64, 2, 2),
    variant!("m16n8k16", "f64" "f64" "f64" "f64", F64, SumF64, SumF64, 2, 4),
    variant!("m8n8k16", "s32" "s8" "s8" "s32", Int<8>, SumS32, SumS32, 1, 1),
    variant!("m16n8k16", "s32" "s8" "s8" "s32", Int<8>, SumS32, SumS32, 2, 1),
    variant!("m16n8k32", "s32" "s8" "s8" "s32", Int<8>, SumS32, SumS32, 2, 2),
    variant!("m8n8k32", "s32" "s4" "s4" "s32", Int<4>, SumS32, SumS32, 1, 1),
    variant!("m16n8k32", "s32" "s4" "s4" "s32", Int<4>, SumS32, SumS32, 2, 1),
    variant!("m16n8k64", "s32" "s4" "s4" "s32", Int<4>, SumS32, SumS32, 2, 2),
    bit_variant!("m8n8k128", 1, 1),
    bit_variant!("m16n8k128", 2, 1),
    bit_variant!("m16n8k256", 2, 2),
];

/// An integer type as its signed twin, and its sign bit.
fn signed(t: &str) -> (&str, u64) {
    match t {
        "u8" => ("s8", 0),
        "s8" => ("s8", 0x80),
        "u4" => ("s4", 0),
        "s4" => ("s4", 0x8),
        other => (other, 0),
    }
}

fn mma(b: &mut Builder, f: &Form) -> Res {
    for m in ["sync", "aligned", "row", "col"] {
        f.has(m);
    }
    let saturate = f.has("satfinite");
    let Some(&shape) = [
        "m16n8k4",
        "m16n8k8",
        "m16n8k16",
        "m16n8k32",
        "m16n8k64",
        "m16n8k128",
        "m16n8k256",
        "m8n8k4",
        "m8n8k16",
        "m8n8k32",
        "m8n8k128",
    ]
    .iter()
    .find(|s| f.has(s)) else {
        return f.refuse("this shape is not supported");
    };
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
    let ((ta, flip_a), (tb, flip_b)) = (signed(ta), signed(tb));
    let found = VARIANTS
        .iter()
        .find(|v| v.shape == shape && v.types == [d, ta, tb, c]);
    let Some(variant) = found else {
        return f.refuse("this combination of shape and types is not supported");
    };
    let ops = f.operands(4)?;
    let width = if d == "f64" { Ty::B64 } else { Ty::B32 };
    let mut read = |which: usize| -> Res<Vec<u32>> {
        registers(b, f, &ops[which], variant.registers[which], width, false)
    };
    let (ra, rb, rc) = (read(1)?, read(2)?, read(3)?);
    let mut list = registers(b, f, &ops[0], variant.registers[0], width, true)?;
    list.extend(ra.into_iter().chain(rb).chain(rc));
    let list = b.list(list);
    let bit = ta == "b1";
    b.emit((variant.exec)(), Class::Tensor, |i| {
        i.list = list;
        if bit {
            i.dst = variant.registers[2] as u32;
            i.src[0] = (variant.registers[0] / 2) as u32;
            i.imm = u64::from(xor);
        } else {
            i.imm = flip_a | flip_b << 8 | u64::from(saturate) << 32;
        }
    });
    Ok(())
}
