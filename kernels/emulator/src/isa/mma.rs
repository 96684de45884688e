//! mma.sync: matrix multiply-accumulate on tensor cores, D = A B + C.
//!
//! All shapes from m8n8k4 (f64) on share one fragment layout. With `PER` elements to a register,
//! lane `4 g + t` holds of A row `g` (and `g + 8`), columns `t PER ..` plus `4 PER` per further
//! pair of registers; of B the same with columns for rows; of C rows `g` and `g + 8`, columns `2 t`
//! and `2 t + 1`.
//!
//! Each multiplication is exact. The sum is taken in f64 in the order of k, beginning with C, and
//! rounded once to the type of D; or in the steps of a card (`tensor.rs`), where the launch asks for
//! them. Integer sums are exact, and those of f64 are fused in the order of k.
//!
//! A and B are converted to f64 once, then a dense loop multiplies them. The even columns of B and
//! C come first: so their registers hold them, and no lane has to be moved for C and D.

// Several arrays are indexed by one number throughout.
#![allow(clippy::needless_range_loop)]

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::matrix::whole_warp;
use super::operands::registers;
use crate::float::canon;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, Lane, View, immediate};
use crate::tensor::{self, Accumulator, Factors, TensorCore};
use crate::types::Ty;
use std::mem::MaybeUninit;

pub const DEFS: &[(&str, Decode)] = &[("mma", mma)];

/// Elements of A and B in a register.
pub trait Element: 'static {
    /// What a lane of a register holds.
    type Word: Lane;
    /// Elements to a register.
    const PER: usize;
    /// The least exponent of a normal number, where `tensor.rs` has a card's way of adding.
    const LEAST_EXPONENT: Option<i32> = None;
    /// Element `e` of a word. `sign` is the sign bit of a signed integer type, else 0.
    fn wide(word: Self::Word, e: usize, sign: u32) -> f64;
}

/// Pairs of a 16-bit format.
struct Pair<T>(std::marker::PhantomData<T>);

impl<T: Format> Element for Pair<T> {
    type Word = u32;
    const PER: usize = 2;
    const LEAST_EXPONENT: Option<i32> = Some(T::LEAST_EXPONENT);
    #[inline(always)]
    fn wide(word: u32, e: usize, _: u32) -> f64 {
        f64::from(T::wide((word >> (e * 16)) as u16))
    }
}

struct Tf32;

impl Element for Tf32 {
    type Word = u32;
    const PER: usize = 1;
    const LEAST_EXPONENT: Option<i32> = Some(-126);
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
    fn wide(word: u32, e: usize, sign: u32) -> f64 {
        let v = word >> (e * BITS) & ((1 << BITS) - 1);
        f64::from((v ^ sign).wrapping_sub(sign) as i32)
    }
}

/// Elements of C and D.
pub trait Sum: 'static {
    /// Registers of eight rows.
    const REGISTERS: usize;
    /// The format in which a card adds; of no meaning for integers and f64.
    const FORMAT: Accumulator = Accumulator::F32;
    /// Row `g` of the eight: even columns, then odd ones.
    fn load(v: View, registers: &[u32], g: usize) -> [f64; 8];
    fn store(v: View, registers: &[u32], g: usize, row: [f64; 8], saturate: bool);
}

// Explicit loops here and below: closures given to the standard library's array functions are
// compiled without the processor features of their caller.

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
    const FORMAT: Accumulator = Accumulator::F16;
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

immediate! {
    /// `mma` of floats or integers. `list`: the registers of D, A, B, C.
    struct Mma {
        /// Sign bits of the elements of A and B, 0 for unsigned types and floats.
        sign_a: u32 [8],
        sign_b: u32 [8],
        /// `.satfinite`
        saturate: bool [1],
    }
}

immediate! {
    /// `mma` of single bits. `list`: the registers of D, A, B, C.
    struct BitMma {
        /// Groups of 8 rows.
        groups: u32 [2],
        /// A's registers of a group.
        steps: u32 [2],
        /// Counts the bits that differ, else those that are 1 in both.
        xor: bool [1],
    }
}

/// The registers of D, A, B, C.
struct Fragments<'a> {
    d: &'a [u32],
    a: &'a [u32],
    b: &'a [u32],
    c: &'a [u32],
}

impl Fragments<'_> {
    /// Splits a list by the counts of the first three.
    #[inline(always)]
    fn split(list: &[u32], d: usize, a: usize, b: usize) -> Fragments<'_> {
        let (d, rest) = list.split_at(d);
        let (a, rest) = rest.split_at(a);
        let (b, c) = rest.split_at(b);
        Fragments { d, a, b, c }
    }
}

/// A as f64: by register, element and lane.
#[inline(always)]
fn convert_a<E: Element, const NA: usize>(
    v: View,
    regs: &[u32],
    sign: u32,
    a: &mut [MaybeUninit<f64>; NA],
) {
    for (r, &reg) in regs.iter().enumerate() {
        for chunk in 0..4 {
            let words = v.chunk::<E::Word>(reg, chunk);
            for e in 0..E::PER {
                let to = &mut a[(r * E::PER + e) * 32 + chunk * 8..][..8];
                for j in 0..8 {
                    to[j].write(E::wide(E::Word::from_cell(words[j]), e, sign));
                }
            }
        }
    }
}

/// B as f64: by k, the even columns first.
#[inline(always)]
fn convert_b<E: Element, const NB: usize>(
    v: View,
    regs: &[u32],
    sign: u32,
    b: &mut [MaybeUninit<f64>; NB],
) {
    for (s, &reg) in regs.iter().enumerate() {
        for t in 0..4 {
            let mut words = [<E::Word as Lane>::Cell::default(); 8];
            for j in 0..8 {
                words[j] = v.get::<E::Word>(reg, (j % 4 * 2 + j / 4) * 4 + t).to_cell();
            }
            for e in 0..E::PER {
                let to = &mut b[((s * 4 + t) * E::PER + e) * 8..][..8];
                for j in 0..8 {
                    to[j].write(E::wide(E::Word::from_cell(words[j]), e, sign));
                }
            }
        }
    }
}

/// Adds A B to the sums, four rows at a time.
#[inline(always)]
fn multiply<E: Element, const ROWS: usize, const STEPS: usize>(
    a: &[f64],
    b: &[f64],
    sums: &mut [[f64; 8]; 16],
) {
    for r in 0..ROWS {
        for g in [0, 4] {
            let first = r * 8 + g;
            let mut acc = [
                sums[first],
                sums[first + 1],
                sums[first + 2],
                sums[first + 3],
            ];
            for s in 0..STEPS {
                for t in 0..4 {
                    for e in 0..E::PER {
                        let x = &b[((s * 4 + t) * E::PER + e) * 8..][..8];
                        let y = &a[((s * ROWS + r) * E::PER + e) * 32 + g * 4 + t..][..13];
                        for k in 0..4 {
                            for j in 0..8 {
                                // The multiplication of narrow types is exact, so fusing changes
                                // nothing; that of f64 is fused in hardware.
                                acc[k][j] = y[k * 4].mul_add(x[j], acc[k][j]);
                            }
                        }
                    }
                }
            }
            sums[first..first + 4].copy_from_slice(&acc);
        }
    }
}

/// Adds A B to the sums as a card does. `least`: the least exponent of the elements.
#[inline(never)]
fn multiply_as_card<E: Element, D: Sum, const ROWS: usize, const STEPS: usize>(
    core: TensorCore,
    least: i32,
    a: &[f64],
    b: &[f64],
    sums: &mut [[f64; 8]; 16],
) {
    // The shapes of 16-bit and tf32 elements have 16 of k at most.
    let mut columns = [[0.0; 8]; 16];
    let mut column_exponents = [[0; 8]; 16];
    let depth = STEPS * 4 * E::PER;
    for k in 0..depth {
        columns[k].copy_from_slice(&b[k * 8..][..8]);
        for j in 0..8 {
            column_exponents[k][j] = tensor::exponent(columns[k][j], least);
        }
    }
    let products = core.products as usize * E::PER / 2;
    for row in 0..ROWS * 8 {
        let (mut values, mut exponents) = ([0.0; 16], [0; 16]);
        for k in 0..depth {
            let (s, t, e) = (k / (4 * E::PER), k / E::PER % 4, k % E::PER);
            values[k] = a[((s * ROWS + row / 8) * E::PER + e) * 32 + row % 8 * 4 + t];
            exponents[k] = tensor::exponent(values[k], least);
        }
        let factors = Factors {
            a: &values[..depth],
            a_exponents: &exponents[..depth],
            b: &columns[..depth],
            b_exponents: &column_exponents[..depth],
        };
        tensor::add_products(core, products, factors, D::FORMAT, &mut sums[row]);
    }
}

/// Rows of A and columns of B that hold something other than zeros.
fn useful<E: Element, const ROWS: usize, const STEPS: usize>(a: &[f64], b: &[f64]) -> (u64, u64) {
    let mut rows = 0;
    for row in 0..ROWS * 8 {
        let holds = (0..STEPS * E::PER).any(|n| {
            let (s, e) = (n / E::PER, n % E::PER);
            let first = ((s * ROWS + row / 8) * E::PER + e) * 32 + row % 8 * 4;
            a[first..first + 4].iter().any(|x| *x != 0.0)
        });
        rows += u64::from(holds);
    }
    let mut columns = [false; 8];
    for x in b.chunks_exact(8) {
        for j in 0..8 {
            columns[j] |= x[j] != 0.0;
        }
    }
    (rows, columns.iter().filter(|c| **c).count() as u64)
}

/// `8 * ROWS` rows, 8 columns and `4 * PER * STEPS` inner elements. `NA` and `NB` are the elements
/// of A and B.
#[inline(always)]
fn mma_body<
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
    let list = &env.program.lists[i.list as usize][..];
    let options = Mma::unpack(i.imm);
    let regs = Fragments::split(list, ROWS * D::REGISTERS, ROWS * STEPS, STEPS);
    let v = cx.warp.regs.view();
    let mut a = [MaybeUninit::<f64>::uninit(); NA];
    convert_a::<E, NA>(v, regs.a, options.sign_a, &mut a);
    let mut b = [MaybeUninit::<f64>::uninit(); NB];
    convert_b::<E, NB>(v, regs.b, options.sign_b, &mut b);
    // SAFETY: `convert_a` has written `a` by registers, elements and lanes, `convert_b` has written
    // `b` by steps, quads, elements and columns: `NA` and `NB` in all, as the assertion says.
    let (a, b) = unsafe {
        (
            &*std::ptr::from_ref(&a).cast::<[f64; NA]>(),
            &*std::ptr::from_ref(&b).cast::<[f64; NB]>(),
        )
    };
    let mut sums = [[0f64; 8]; 16];
    for row in 0..ROWS * 8 {
        sums[row] = C::load(v, &regs.c[row / 8 * C::REGISTERS..], row % 8);
    }
    match (env.tensor_core, E::LEAST_EXPONENT) {
        (Some(core), Some(least)) => {
            multiply_as_card::<E, D, ROWS, STEPS>(core, least, a, b, &mut sums);
        }
        _ => multiply::<E, ROWS, STEPS>(a, b, &mut sums),
    }
    for row in 0..ROWS * 8 {
        let to = &regs.d[row / 8 * D::REGISTERS..];
        D::store(v, to, row % 8, sums[row], options.saturate);
    }
    if let Some(counts) = &mut cx.counts {
        let (rows, columns) = useful::<E, ROWS, STEPS>(a, b);
        counts.tensor_products += (ROWS * 8 * NB) as u64;
        counts.tensor_useful += rows * columns * (NB / 8) as u64;
    }
}

/// The variant for this processor.
fn mma_exec<
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
        mma_body::<E, D, C, ROWS, STEPS, NA, NB>(cx, i, m);
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
            mma_body::<E, D, C, ROWS, STEPS, NA, NB>(cx, i, m);
        }
        if crate::simd::fast() {
            return newer::<E, D, C, ROWS, STEPS, NA, NB>;
        }
    }
    plain::<E, D, C, ROWS, STEPS, NA, NB>
}

/// `mma` of bits: how many positions of a row and a column hold 1 in both, or differ.
fn bit_mma(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let env = cx.env;
    let list = &env.program.lists[i.list as usize][..];
    let BitMma { groups, steps, xor } = BitMma::unpack(i.imm);
    let (groups, steps) = (groups as usize, steps as usize);
    let regs = Fragments::split(list, groups * 2, groups * steps, steps);
    let r = &cx.warp.regs;
    let a = |row: usize, word: usize| {
        let reg = regs.a[word / 4 * groups + row / 8];
        r.get::<u32>(reg, row % 8 * 4 + word % 4)
    };
    let b = |column: usize, word: usize| r.get::<u32>(regs.b[word / 4], column * 4 + word % 4);
    let mut out = [[0i32; 8]; 16];
    let (mut full_rows, mut full_columns) = (0u32, 0u32);
    for row in 0..groups * 8 {
        for column in 0..8 {
            let register = row / 8 * 2 + column % 2;
            let mut sum: i32 = r.get(regs.c[register], row % 8 * 4 + column / 2);
            for word in 0..steps * 4 {
                let (x, y) = (a(row, word), b(column, word));
                full_rows |= u32::from(x != 0) << row;
                full_columns |= u32::from(y != 0) << column;
                let z = if xor { x ^ y } else { x & y };
                sum = sum.wrapping_add(z.count_ones() as i32);
            }
            out[row][column] = sum;
        }
    }
    for row in 0..groups * 8 {
        for column in 0..8 {
            let reg = regs.d[row / 8 * 2 + column % 2];
            let lane = row % 8 * 4 + column / 2;
            cx.warp.regs.set::<i32>(reg, lane, out[row][column]);
        }
    }
    if let Some(counts) = &mut cx.counts {
        let inner = (steps * 128) as u64;
        counts.tensor_products += (groups * 64) as u64 * inner;
        counts.tensor_useful +=
            u64::from(full_rows.count_ones() * full_columns.count_ones()) * inner;
    }
}

/// A shape with its types.
struct Variant {
    shape: &'static str,
    /// D, A, B, C. The narrow ones are not types of PTX values.
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
            exec: mma_exec::<
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
            exec: || bit_mma,
        }
    };
}

type H = Pair<F16>;
type B = Pair<Bf16>;

/// All variants. Integer types are written signed; unsigned ones differ by their sign bit only.
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
fn signed(t: &str) -> (&str, u32) {
    match t {
        "u8" => ("s8", 0),
        "s8" => ("s8", 0x80),
        "u4" => ("s4", 0),
        "s4" => ("s4", 0x8),
        other => (other, 0),
    }
}

const SHAPES: [&str; 11] = [
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
];

const TYPES: [&str; 11] = [
    "f16", "bf16", "tf32", "f32", "f64", "u8", "s8", "u4", "s4", "b1", "s32",
];

fn mma(b: &mut Builder, f: &Form) -> Res {
    for m in ["sync", "aligned", "row", "col"] {
        f.has(m);
    }
    let saturate = f.has("satfinite");
    let Some(shape) = f.pick(&SHAPES) else {
        return f.refuse("this shape is not supported");
    };
    let mut types: Vec<&str> = Vec::new();
    for name in &f.inst.modifiers {
        if TYPES.contains(&name.as_str()) {
            f.has(name);
            types.push(name);
        }
    }
    let [d, ta, tb, c] = types[..] else {
        return f.refuse("four types are expected");
    };
    let xor = f.has("xor");
    if (f.has("and") || xor) && !f.has("popc") || f.has("popc") != (ta == "b1") {
        return f.refuse(".xor.popc or .and.popc goes with .b1");
    }
    let is_bits = ta == "b1";
    let ((ta, sign_a), (tb, sign_b)) = (signed(ta), signed(tb));
    let found = VARIANTS
        .iter()
        .find(|v| v.shape == SHAPES[shape] && v.types == [d, ta, tb, c]);
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
    let imm = if is_bits {
        BitMma {
            groups: (variant.registers[0] / 2) as u32,
            steps: variant.registers[2] as u32,
            xor,
        }
        .pack()
    } else {
        Mma {
            sign_a,
            sign_b,
            saturate,
        }
        .pack()
    };
    b.emit((variant.exec)(), Class::Tensor, |i| {
        i.list = list;
        i.imm = imm;
    });
    Ok(())
}
