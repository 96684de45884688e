//! Floating-point formats and PTX's rounding, flush and NaN rules.

/// Rounding modes of PTX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

/// The quiet NaN that PTX arithmetic returns.
pub const NAN32: u32 = 0x7fff_ffff;
/// For f16 and bf16 alike.
pub const NAN16: u16 = 0x7fff;

/// PTX's NaN in place of any other.
#[inline(always)]
pub fn canon(x: f32) -> f32 {
    // By its bits: Rust does not define the bits of NaNs, so a float comparison would be optimised
    // away.
    let b = x.to_bits();
    f32::from_bits(if b & 0x7fff_ffff > 0x7f80_0000 {
        NAN32
    } else {
        b
    })
}

/// `.ftz`: subnormals become zero of the same sign.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    let b = x.to_bits();
    if b & 0x7f80_0000 == 0 {
        f32::from_bits(b & 0x8000_0000)
    } else {
        x
    }
}

/// `.sat`: clamp to 0 .. 1, NaN to +0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 {
        if x < 1.0 { x } else { 1.0 }
    } else {
        0.0
    }
}

#[inline(always)]
pub fn min32(a: f32, b: f32) -> f32 {
    let less = a < b || (a == b && a.is_sign_negative());
    canon(if a.is_nan() || (!b.is_nan() && !less) {
        b
    } else {
        a
    })
}

#[inline(always)]
pub fn max32(a: f32, b: f32) -> f32 {
    let more = a > b || (a == b && a.is_sign_positive());
    canon(if a.is_nan() || (!b.is_nan() && !more) {
        b
    } else {
        a
    })
}

#[inline(always)]
pub fn min64(a: f64, b: f64) -> f64 {
    let less = a < b || (a == b && a.is_sign_negative());
    if a.is_nan() || (!b.is_nan() && !less) {
        b
    } else {
        a
    }
}

#[inline(always)]
pub fn max64(a: f64, b: f64) -> f64 {
    let more = a > b || (a == b && a.is_sign_positive());
    if a.is_nan() || (!b.is_nan() && !more) {
        b
    } else {
        a
    }
}

/// Moves `r`, the exact value or a neighbour of it, in the direction of the mode. `above` is the
/// sign of the exact value minus `r`.
fn direct64(r: f64, above: f64, mode: Round) -> f64 {
    if r.is_nan() {
        return r;
    }
    if r.is_infinite() {
        // Rounding to nearest overflowed; a directed mode may stop at the largest finite value.
        let stays = match mode {
            Round::Nearest => true,
            Round::Zero => false,
            Round::Up => r > 0.0,
            Round::Down => r < 0.0,
        };
        return if stays || above == 0.0 {
            r
        } else {
            f64::MAX.copysign(r)
        };
    }
    let toward_zero_is_down = r > 0.0 || (r == 0.0 && above > 0.0);
    match mode {
        Round::Nearest => r,
        Round::Up if above > 0.0 => r.next_up(),
        Round::Down if above < 0.0 => r.next_down(),
        Round::Zero if above < 0.0 && toward_zero_is_down => r.next_down(),
        Round::Zero if above > 0.0 && !toward_zero_is_down => r.next_up(),
        _ => r,
    }
}

/// Rounds the exact sum `hi + lo` (|lo| below an ulp of hi) to f32.
pub fn narrow32(hi: f64, lo: f64, mode: Round) -> f32 {
    let r = hi as f32;
    if r.is_nan() {
        return f32::from_bits(NAN32);
    }
    if mode == Round::Nearest {
        if lo == 0.0 || hi.is_infinite() {
            return r;
        }
        // To odd first, so that the second rounding depends on the bits cut off.
        return odd(hi, lo) as f32;
    }
    if r.is_infinite() {
        if hi.is_infinite() {
            return r;
        }
        let stays = match mode {
            Round::Up => r > 0.0,
            Round::Down => r < 0.0,
            _ => false,
        };
        return if stays { r } else { f32::MAX.copysign(r) };
    }
    let above = if hi == f64::from(r) {
        lo
    } else {
        hi - f64::from(r)
    };
    match mode {
        Round::Up if above > 0.0 => r.next_up(),
        Round::Down if above < 0.0 => r.next_down(),
        Round::Zero if above < 0.0 && (r > 0.0 || (r == 0.0 && hi > 0.0)) => r.next_down(),
        Round::Zero if above > 0.0 && (r < 0.0 || (r == 0.0 && hi < 0.0)) => r.next_up(),
        _ => r,
    }
}

/// `hi + lo` rounded to odd in f64.
fn odd(hi: f64, lo: f64) -> f64 {
    if lo == 0.0 || hi.to_bits() & 1 == 1 {
        return hi;
    }
    // The exact value lies strictly between hi and its neighbour toward lo; the odd one of the two
    // is the answer.
    if (lo > 0.0) == (hi > 0.0) {
        f64::from_bits(hi.to_bits() | 1)
    } else {
        f64::from_bits(hi.to_bits() - 1)
    }
}

/// a + b as rounded sum and exact error.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

fn exact_zero(s: f64, a: f64, b: f64, mode: Round) -> f64 {
    if s == 0.0 && mode == Round::Down && (a.is_sign_negative() || b.is_sign_negative()) {
        -0.0
    } else {
        s
    }
}

pub fn add32(a: f32, b: f32, mode: Round) -> f32 {
    let (x, y) = (f64::from(a), f64::from(b));
    let (s, e) = two_sum(x, y);
    if !s.is_finite() {
        return canon(s as f32);
    }
    if s == 0.0 {
        return exact_zero(s, x, y, mode) as f32;
    }
    narrow32(s, e, mode)
}

pub fn mul32(a: f32, b: f32, mode: Round) -> f32 {
    narrow32(f64::from(a) * f64::from(b), 0.0, mode)
}

pub fn fma32(a: f32, b: f32, c: f32, mode: Round) -> f32 {
    let p = f64::from(a) * f64::from(b);
    let (s, e) = two_sum(p, f64::from(c));
    if !s.is_finite() {
        return canon(s as f32);
    }
    if s == 0.0 {
        return exact_zero(s, p, f64::from(c), mode) as f32;
    }
    narrow32(s, e, mode)
}

pub fn div32(a: f32, b: f32, mode: Round) -> f32 {
    let q = f64::from(a) / f64::from(b);
    if !q.is_finite() || q == 0.0 {
        return canon(q as f32);
    }
    let rest = (-q).mul_add(f64::from(b), f64::from(a));
    narrow32(q, rest / f64::from(b), mode)
}

pub fn sqrt32(a: f32, mode: Round) -> f32 {
    let r = f64::from(a).sqrt();
    if !r.is_finite() || r == 0.0 {
        return canon(r as f32);
    }
    let rest = (-r).mul_add(r, f64::from(a));
    narrow32(r, rest / (2.0 * r), mode)
}

pub fn add64(a: f64, b: f64, mode: Round) -> f64 {
    let (s, e) = two_sum(a, b);
    if s == 0.0 {
        return exact_zero(s, a, b, mode);
    }
    if s.is_infinite() {
        return if a.is_infinite() || b.is_infinite() {
            s
        } else {
            direct64(s, -s.signum(), mode)
        };
    }
    direct64(s, e, mode)
}

pub fn mul64(a: f64, b: f64, mode: Round) -> f64 {
    let p = a * b;
    if p.is_infinite() {
        return if a.is_infinite() || b.is_infinite() {
            p
        } else {
            direct64(p, -p.signum(), mode)
        };
    }
    direct64(p, a.mul_add(b, -p), mode)
}

pub fn fma64(a: f64, b: f64, c: f64, mode: Round) -> f64 {
    let r = a.mul_add(b, c);
    if mode == Round::Nearest || r.is_nan() {
        return r;
    }
    if r.is_infinite() {
        return if a.is_infinite() || b.is_infinite() || c.is_infinite() {
            r
        } else {
            direct64(r, -r.signum(), mode)
        };
    }
    let p = a * b;
    let low = a.mul_add(b, -p);
    let (s, t) = two_sum(p, c);
    if r == 0.0 && s == 0.0 && low == 0.0 {
        return exact_zero(r, p, c, mode);
    }
    direct64(r, (s - r) + (t + low), mode)
}

pub fn div64(a: f64, b: f64, mode: Round) -> f64 {
    let q = a / b;
    if mode == Round::Nearest || !q.is_finite() || q == 0.0 {
        return q;
    }
    direct64(q, (-q).mul_add(b, a) / b, mode)
}

pub fn sqrt64(a: f64, mode: Round) -> f64 {
    let r = a.sqrt();
    if mode == Round::Nearest || !r.is_finite() || r == 0.0 {
        return r;
    }
    direct64(r, (-r).mul_add(r, a), mode)
}

/// f64 to f32 in a mode.
pub fn f64_to_f32(x: f64, mode: Round) -> f32 {
    narrow32(x, 0.0, mode)
}

/// To an integral value.
#[inline(always)]
pub fn integral(x: f64, mode: Round) -> f64 {
    match mode {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    }
}

/// f16 bits to f32.
#[inline(always)]
pub fn half_to_f32(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let rest = u32::from(h & 0x7fff);
    // Shift into place, then scale by 2^112: exact for subnormals too.
    let scaled = f32::from_bits(rest << 13) * f32::from_bits(0x7780_0000);
    let special = if rest >= 0x7c00 {
        0x7f80_0000 | rest << 13
    } else {
        scaled.to_bits()
    };
    f32::from_bits(sign | special)
}

/// bf16 bits to f32.
#[inline(always)]
pub fn bf_to_f32(b: u16) -> f32 {
    f32::from_bits(u32::from(b) << 16)
}

/// f32 to f16, nearest even.
#[inline(always)]
pub fn f32_to_half(x: f32) -> u16 {
    let b = x.to_bits();
    let sign = (b >> 16) as u16 & 0x8000;
    let a = b & 0x7fff_ffff;
    if a >= 0x4780_0000 {
        // 65536 and above, infinity, NaN.
        return if a > 0x7f80_0000 {
            NAN16
        } else {
            sign | 0x7c00
        };
    }
    if a < 0x3880_0000 {
        // Subnormal or zero: adding 0.5 aligns the last bit with 2^-24 and rounds.
        let r = f32::from_bits(a) + 0.5;
        return sign | (r.to_bits() - 0.5f32.to_bits()) as u16;
    }
    let rounded = a + 0x0fff + (a >> 13 & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

/// f32 to bf16, nearest even.
#[inline(always)]
pub fn f32_to_bf(x: f32) -> u16 {
    let b = x.to_bits();
    if b & 0x7fff_ffff > 0x7f80_0000 {
        NAN16
    } else {
        (b.wrapping_add(0x7fff + (b >> 16 & 1)) >> 16) as u16
    }
}

/// f64 to f32 rounded to odd: a second rounding to fewer bits then gives the correct result.
#[inline(always)]
pub fn f64_to_f32_odd(x: f64) -> f32 {
    let r = x as f32;
    let back = f64::from(r);
    if back == x || x.is_nan() {
        return r;
    }
    // The two neighbours of x, the one toward zero made odd.
    let b = if back.abs() > x.abs() {
        r.to_bits() - 1
    } else {
        r.to_bits()
    };
    f32::from_bits(b | 1)
}

/// f64 to f16, nearest even, one rounding.
#[inline(always)]
pub fn f64_to_half(x: f64) -> u16 {
    f32_to_half(f64_to_f32_odd(x))
}

/// f64 to bf16, nearest even, one rounding.
#[inline(always)]
pub fn f64_to_bf(x: f64) -> u16 {
    f32_to_bf(f64_to_f32_odd(x))
}

/// f32 to a 16-bit format in a directed mode: nearest first, then a step back.
pub fn f32_to_16(x: f32, mode: Round, near: fn(f32) -> u16, wide: fn(u16) -> f32) -> u16 {
    let r = near(x);
    if x.is_nan() || mode == Round::Nearest || wide(r) == x {
        return r;
    }
    let larger = wide(r).abs() > x.abs();
    let away = match mode {
        Round::Up => x > 0.0,
        Round::Down => x < 0.0,
        _ => false,
    };
    match (larger, away) {
        (true, false) => r - 1,
        (false, true) => r + 1,
        _ => r,
    }
}

/// f32 to tf32: 10 bits of fraction, nearest with ties away from zero (`.rna`), low bits zero.
#[inline(always)]
pub fn f32_to_tf32_away(x: f32) -> f32 {
    let b = x.to_bits();
    if b & 0x7f80_0000 == 0x7f80_0000 {
        canon(x)
    } else {
        f32::from_bits(b.wrapping_add(0x1000) & 0xffff_e000)
    }
}

/// f32 to tf32, nearest even.
#[inline(always)]
pub fn f32_to_tf32(x: f32) -> f32 {
    let b = x.to_bits();
    if b & 0x7f80_0000 == 0x7f80_0000 {
        canon(x)
    } else {
        f32::from_bits(b.wrapping_add(0x0fff + (b >> 13 & 1)) & 0xffff_e000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds `x` to a binary16 by search over all of them.
    fn nearest_half(x: f64) -> u16 {
        let value = |h: u16| f64::from(half_to_f32(h));
        if x.is_nan() {
            return NAN16;
        }
        let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
        if x.abs() >= 65520.0 {
            return sign | 0x7c00;
        }
        let (mut lo, mut hi) = (0u16, 0x7bff);
        while lo < hi {
            let mid = lo + (hi - lo).div_ceil(2);
            if value(mid) <= x.abs() {
                lo = mid
            } else {
                hi = mid - 1
            }
        }
        let (a, b) = (
            value(lo),
            if lo == 0x7bff { 65536.0 } else { value(lo + 1) },
        );
        let up = x.abs() - a > b - x.abs() || (x.abs() - a == b - x.abs() && lo & 1 == 1);
        sign | (lo + u16::from(up))
    }

    #[test]
    fn half_conversion_agrees_with_search() {
        for h in 0..=0x7bffu16 {
            let x = half_to_f32(h);
            assert_eq!(f32_to_half(x), h);
            for delta in [-1i32, 1, 0x0fff, 0x1000, 0x1001] {
                let y = f32::from_bits(x.to_bits().wrapping_add_signed(delta) & 0x7fff_ffff);
                if !y.is_nan() {
                    assert_eq!(f32_to_half(y), nearest_half(f64::from(y)), "{y:e}");
                    assert_eq!(f32_to_half(-y), nearest_half(f64::from(-y)), "{y:e}");
                }
            }
        }
    }

    #[test]
    fn one_rounding_from_f64() {
        // Just above the middle between two halves by less than an f32 can represent.
        let x = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(f64_to_half(x), 0x3c01);
        assert_eq!(f32_to_half(x as f32), 0x3c00);
        assert_eq!(f64_to_bf(1.0 + 2f64.powi(-8) + 2f64.powi(-40)), 0x3f81);
    }

    #[test]
    fn directed_modes_bracket_the_exact_value() {
        let values = [
            1.0f32, 3.0, 0.1, 1e-38, 1e30, -7.25, 1.0000001, -1e-45, 3.4e38, 16777216.0,
        ];
        for a in values {
            for b in values {
                for (name, f) in [
                    ("add", add32 as fn(f32, f32, Round) -> f32),
                    ("mul", mul32),
                    ("div", div32),
                ] {
                    let (lo, hi) = (f(a, b, Round::Down), f(a, b, Round::Up));
                    let (near, zero) = (f(a, b, Round::Nearest), f(a, b, Round::Zero));
                    let native = match name {
                        "add" => a + b,
                        "mul" => a * b,
                        _ => a / b,
                    };
                    assert_eq!(
                        near.to_bits(),
                        canon(native).to_bits(),
                        "{name} {a:e} {b:e}"
                    );
                    assert!(
                        lo <= near && near <= hi,
                        "{name} {a:e} {b:e}: {lo:e} {near:e} {hi:e}"
                    );
                    assert!(
                        lo == hi || lo.next_up() == hi,
                        "{name} {a:e} {b:e}: {lo:e} {hi:e}"
                    );
                    assert_eq!(
                        zero,
                        if near > 0.0 || (near == 0.0 && native >= 0.0 && lo >= 0.0) {
                            lo
                        } else {
                            hi
                        },
                        "{name} {a:e} {b:e}"
                    );
                }
            }
        }
        assert_eq!(fma32(1.0, 1.0, 1e-20, Round::Up), 1.0f32.next_up());
        assert_eq!(fma32(1.0, 1.0, 1e-20, Round::Zero), 1.0);
        assert_eq!(fma64(3.0, 1.0, 1e-40, Round::Up), 3.0f64.next_up());
        assert_eq!(
            sqrt32(2.0, Round::Up),
            2f32.sqrt()
                .next_up()
                .min(sqrt32(2.0, Round::Down).next_up())
        );
    }

    #[test]
    fn min_and_max_skip_nan_and_order_zeros() {
        assert_eq!(min32(f32::NAN, 1.0), 1.0);
        assert_eq!(max32(1.0, f32::NAN), 1.0);
        assert_eq!(min32(f32::NAN, f32::NAN).to_bits(), NAN32);
        assert!(min32(0.0, -0.0).is_sign_negative() && min32(-0.0, 0.0).is_sign_negative());
        assert!(max32(0.0, -0.0).is_sign_positive() && max32(-0.0, 0.0).is_sign_positive());
    }
}
