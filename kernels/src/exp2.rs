//! `2^x` in f32 by a fixed sequence of IEEE operations.
//!
//! Every multiplication and addition is rounded separately (no fused multiply-add), so the result
//! has the same bits on every machine, and in every loop that the compiler vectorises. A GPU uses
//! `__fmul_rn` and `__fadd_rn`.
//!
//! The relative error is at most 1.5e-7 (measured over the whole range). `x` is split into an
//! integer `n` and `f` in [-0.5, 0.5]. `2^f = 1 + f * p(f)`, with `p` of degree 5 through Chebyshev
//! nodes (its own error is 1e-8, the rest is rounding). `2^n` is built by shifting `n` into the
//! exponent.

/// Adding `1.5 * 2^23` rounds an f32 of magnitude below 2^22 to the nearest integer, ties to even,
/// and leaves it in the low mantissa bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

const C1: f32 = f32::from_bits(0x3f31_7218);
const C2: f32 = f32::from_bits(0x3e75_fdf0);
const C3: f32 = f32::from_bits(0x3d63_57b6);
const C4: f32 = f32::from_bits(0x3c1d_952a);
const C5: f32 = f32::from_bits(0x3aaf_8448);
const C6: f32 = f32::from_bits(0x3922_09c5);

/// `2^x`, with `x` clamped to [-126, 127]. NaN gives NaN.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    let x = if x < -126.0 { -126.0 } else { x };
    let x = if x > 127.0 { 127.0 } else { x };
    let rounded = x + ROUND;
    let f = x - (rounded - ROUND);
    let p = C6;
    let p = p * f + C5;
    let p = p * f + C4;
    let p = p * f + C3;
    let p = p * f + C2;
    let p = p * f + C1;
    let p = p * f + 1.0;
    // The shift drops the bits of ROUND itself, so only n is left.
    let two_to_n = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    p * two_to_n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_error_is_as_stated() {
        let mut worst = 0.0f64;
        for i in -1_260_000..=1_270_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp2();
            worst = worst.max((f64::from(exp2(x)) / exact - 1.0).abs());
        }
        assert!(worst < 1.5e-7, "relative error {worst:e}");
    }

    #[test]
    fn special_values() {
        assert_eq!(exp2(0.0), 1.0);
        assert_eq!(exp2(-0.0), 1.0);
        assert_eq!(exp2(-30.0), 2.0f32.powi(-30));
        assert_eq!(exp2(f32::NEG_INFINITY), f32::MIN_POSITIVE);
        assert_eq!(exp2(f32::INFINITY), 2.0f32.powi(127));
        assert!(exp2(f32::NAN).is_nan());
    }
}
