//! How the tensor cores of a card add, for inputs of bf16, f16 and tf32.
//!
//! A step takes the accumulator and a few products of the inner dimension and rounds once:
//!
//! 1. Products are exact. A term is a significand and an exponent: a product's exponent is the sum of
//!    its factors' exponents, so its significand lies in 1 .. 4. Subnormal numbers keep the least
//!    exponent of their format, with a significand below 1.
//! 2. Every term, the accumulator too, is aligned to the largest exponent and cut behind
//!    `fraction_bits` bits, towards zero.
//! 3. The cut terms are added exactly. The sum is cut to f32, towards zero, or rounded to f16, to the
//!    nearest even number. The next step begins with it.
//!
//! Sources, all measured on cards by their authors, none here:
//!
//! - Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Comput. Sci. 7:e330
//!   (2021): exact products, alignment to the largest term, no normalisation in between, rounding
//!   towards zero in f32 and to nearest in f16, subnormal numbers in and out (V100, T4, A100).
//! - Khattak, Mikaitis, "Accurate models of NVIDIA tensor cores", arXiv 2512.07004, with its models
//!   (`MATLAB-tensor-core`): products in a step and bits kept beyond f32's 23: 8 (tf32: 4) and 1 for A100
//!   and Ada, 16 (tf32: 8) and 2 for H100, H200 and B200, by `wmma`; sums beyond the largest f32 are infinite.
//! - Xie et al., "Bit-accurate modeling of GPU matrix multiply-accumulate units", arXiv 2511.10909, with
//!   its models (`MMA-Sim`): the same numbers by `mma.sync` up to Hopper, which halves of k a step takes,
//!   exponents of products that are not normalised, NaN as 0x7fffffff.
//!
//! Unverified: `mma.sync` on B200 (measured by `wmma` only); results below 2^-126, where the sources
//! disagree on the least exponent of the alignment; the sign of a sum that is zero (here +0); C and D of
//! different types.

use crate::float::f64_to_half;
use crate::float::half_to_f32;

/// The adder of a card's tensor cores. The module text says what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorCore {
    /// Products of 16-bit factors that a step adds to the accumulator. A step of tf32 has half as many.
    pub products: u32,
    /// Bits that a term keeps behind the binary point at the largest exponent. f32 has 23.
    pub fraction_bits: u32,
}

/// The sums of eight neighbouring columns.
pub type Columns<T> = [T; 8];

/// The exponent of zero: below that of every product.
const NONE: i32 = -10_000;

/// The exponent of a number that is no subnormal f64, at least `least`.
#[inline(always)]
pub fn exponent(x: f64, least: i32) -> i32 {
    let e = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    if x == 0.0 { NONE } else { e.max(least) }
}

/// 2^e, for an exponent of a normal f64.
#[inline(always)]
fn power(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// A number cut to f32, towards zero; infinite from 2^128 on.
#[inline(always)]
fn cut_to_f32(x: f64) -> f64 {
    let nearest = x as f32;
    let away = f64::from(nearest).abs() > x.abs();
    // The f32 next to it in the direction of zero has the number before its bits.
    let cut = f32::from_bits(nearest.to_bits() - u32::from(away));
    if x.abs() < power(128) {
        f64::from(cut)
    } else {
        f64::from(nearest)
    }
}

/// The format of the accumulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accumulator {
    F32,
    F16,
}

impl Accumulator {
    fn least_exponent(self) -> i32 {
        match self {
            Accumulator::F32 => -126,
            Accumulator::F16 => -14,
        }
    }

    #[inline(always)]
    fn round(self, x: f64) -> f64 {
        match self {
            Accumulator::F32 => cut_to_f32(x),
            Accumulator::F16 => f64::from(half_to_f32(f64_to_half(x))),
        }
    }
}

/// A row of A and eight columns of B, by k: values and their exponents.
#[derive(Clone, Copy)]
pub struct Factors<'a> {
    pub a: &'a [f64],
    pub a_exponents: &'a [i32],
    pub b: &'a [Columns<f64>],
    pub b_exponents: &'a [Columns<i32>],
}

impl<'a> Factors<'a> {
    fn range(self, from: usize, to: usize) -> Factors<'a> {
        Factors {
            a: &self.a[from..to],
            a_exponents: &self.a_exponents[from..to],
            b: &self.b[from..to],
            b_exponents: &self.b_exponents[from..to],
        }
    }
}

/// The sum of one step before it is rounded.
#[inline(always)]
fn step(core: TensorCore, f: Factors<'_>, c: &Columns<f64>, least: i32) -> Columns<f64> {
    let mut top = [NONE; 8];
    for j in 0..8 {
        top[j] = exponent(c[j], least);
    }
    for (ea, eb) in f.a_exponents.iter().zip(f.b_exponents) {
        for j in 0..8 {
            top[j] = top[j].max(ea + eb[j]);
        }
    }
    let bits = core.fraction_bits as i32;
    let mut scale = [0.0; 8];
    let mut sum = [0.0; 8];
    // The plain sum shows infinities and NaN: of finite terms it is finite.
    let mut plain = *c;
    for j in 0..8 {
        // Without a term the sum is zero at any scale.
        top[j] = top[j].clamp(-900, 900);
        scale[j] = power(bits - top[j]);
        sum[j] = 0.0 + (c[j] * scale[j]).trunc();
    }
    for (a, b) in f.a.iter().zip(f.b) {
        for j in 0..8 {
            let product = a * b[j];
            plain[j] += product;
            // Cut terms are below 2^(bits + 2), so their sum is exact in f64.
            sum[j] += (product * scale[j]).trunc();
        }
    }
    for j in 0..8 {
        plain[j] = if plain[j].is_finite() {
            sum[j] * power(top[j] - bits)
        } else {
            plain[j]
        };
    }
    plain
}

#[inline(always)]
fn add_steps(
    core: TensorCore,
    products: usize,
    f: Factors<'_>,
    format: Accumulator,
    sums: &mut Columns<f64>,
) {
    let k = f.a.len();
    let mut from = 0;
    while from < k {
        let to = k.min(from + products.max(1));
        *sums = step(core, f.range(from, to), sums, format.least_exponent());
        for sum in sums.iter_mut() {
            *sum = format.round(*sum);
        }
        from = to;
    }
}

/// Adds the products of a row and eight columns to `sums`, a step for each `products` of them. The sums
/// are numbers of `format`, before and after.
pub fn add_products(
    core: TensorCore,
    products: usize,
    f: Factors<'_>,
    format: Accumulator,
    sums: &mut Columns<f64>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        fn newer(
            core: TensorCore,
            products: usize,
            f: Factors<'_>,
            format: Accumulator,
            sums: &mut Columns<f64>,
        ) {
            add_steps(core, products, f, format, sums);
        }
        if crate::simd::fast() {
            // SAFETY: the processor has these features.
            return unsafe { newer(core, products, f, format, sums) };
        }
    }
    add_steps(core, products, f, format, sums);
}

#[cfg(test)]
mod tests;
