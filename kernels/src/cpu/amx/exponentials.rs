//! The exponentials of attention's scores, in the layout of AMX's GEMMs.
//!
//! Numerics: `x = s * scale - max * scale` is rounded once. `2^x = 2^n (1 + f q(f))`, with `n` the
//! integer nearest to `x`, `f = x - n` and `q` of degree 3, fitted for the smallest relative error
//! of the whole: 2.9e-6. That is a fifth of the error of keeping 16 bits: 8 bits truncated, and 8
//! bits of the rest rounded to nearest.
//!
//! Budget: 17 instructions per 16 scores, plus one for the maximum; scores are read twice and
//! written once.

use super::INPUTS;
use crate::exp2::ROUND;
use std::arch::x86_64::*;

/// Smaller exponents are clamped to this one: next to the largest `p`, which is 1, `2^x` is 0
/// anyway.
const MIN_EXPONENT: f32 = -125.0;
/// Coefficients of `q`, the constant first.
const Q: [u32; 4] = [0x3f31_7096, 0x3e76_01bc, 0x3d64_fe23, 0x3c1d_0166];

/// The positions `first..visible` that a row sees.
#[derive(Clone, Copy)]
struct Sight {
    first: usize,
    visible: usize,
}

impl Sight {
    /// Which of the 16 positions from `position` on are seen.
    #[inline(always)]
    fn mask(self, position: usize) -> __mmask16 {
        let below = |end: usize| !(!0u32 << end.saturating_sub(position).min(16)) as u16;
        below(self.visible) & !below(self.first)
    }

    /// Whether all positions of the group from `position` on are seen.
    #[inline(always)]
    fn whole(self, position: usize) -> bool {
        self.first <= position && position + INPUTS <= self.visible
    }
}

/// The first and the last 16 scores of a group.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(group: &[f32; INPUTS]) -> [__m512; 2] {
    // SAFETY: 32 numbers.
    unsafe {
        [
            _mm512_loadu_ps(group.as_ptr()),
            _mm512_loadu_ps(group[16..].as_ptr()),
        ]
    }
}

/// The largest score in sight, NaN ignored. `start` is the position of the first group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn max_score(groups: &[[f32; INPUTS]], start: usize, sight: Sight) -> f32 {
    // `vmaxps` returns its second operand if one is NaN, so scores come first.
    let none = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut largest = [none; 4];
    for (groups, position) in groups.chunks(2).zip((start..).step_by(2 * INPUTS)) {
        for (i, group) in groups.iter().enumerate() {
            let position = position + i * INPUTS;
            let [mut a, mut b] = load(group);
            if !sight.whole(position) {
                a = _mm512_mask_mov_ps(none, sight.mask(position), a);
                b = _mm512_mask_mov_ps(none, sight.mask(position + 16), b);
            }
            largest[2 * i] = _mm512_max_ps(a, largest[2 * i]);
            largest[2 * i + 1] = _mm512_max_ps(b, largest[2 * i + 1]);
        }
    }
    let [a, b, c, d] = largest;
    _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)))
}

/// [`split_exponentials`](super::split_exponentials).
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn split(groups: &mut [[f32; INPUTS]], first: usize, visible: usize, scale: f32) -> f32 {
    let sight = Sight { first, visible };
    let (before, from) = groups.split_at_mut(first / INPUTS);
    before.fill([0.0; INPUTS]);
    let start = first / INPUTS * INPUTS;
    let max = max_score(from, start, sight);

    let [scales, max_scaled] = [scale, max * scale].map(|v| _mm512_set1_ps(v));
    let (min, round) = (_mm512_set1_ps(MIN_EXPONENT), _mm512_set1_ps(ROUND));
    let one = _mm512_set1_ps(1.0);
    let q = Q.map(|bits| _mm512_set1_ps(f32::from_bits(bits)));
    let exponential = |s: __m512| {
        // `vmaxps` returns its second operand if one is NaN, so NaN stays.
        let x = _mm512_max_ps(min, _mm512_fmsub_ps(s, scales, max_scaled));
        let rounded = _mm512_add_ps(x, round);
        let f = _mm512_sub_ps(x, _mm512_sub_ps(rounded, round));
        let p = _mm512_fmadd_ps(q[3], f, q[2]);
        let p = _mm512_fmadd_ps(p, f, q[1]);
        let p = _mm512_fmadd_ps(p, f, q[0]);
        let p = _mm512_fmadd_ps(p, f, one);
        // ROUND's own bits are shifted out, which leaves n.
        let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(rounded));
        let power = _mm512_add_epi32(n, _mm512_castps_si512(one));
        _mm512_mul_ps(p, _mm512_castsi512_ps(power))
    };
    // Indices of the upper halves of 32 words.
    let upper: [u16; INPUTS] = std::array::from_fn(|i| 2 * i as u16 + 1);
    // SAFETY: 32 numbers of 16 bits.
    let upper = unsafe { _mm512_loadu_epi16(upper.as_ptr().cast()) };
    let high_bits = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let half = _mm512_set1_epi32(0x8000);
    let rest = |p: __m512| {
        let kept = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(p), high_bits));
        _mm512_add_epi32(_mm512_castps_si512(_mm512_sub_ps(p, kept)), half)
    };
    let mut sums = [_mm512_setzero_ps(); 2];
    for (group, position) in from.iter_mut().zip((start..).step_by(INPUTS)) {
        let [mut a, mut b] = load(group).map(&exponential);
        if !sight.whole(position) {
            a = _mm512_maskz_mov_ps(sight.mask(position), a);
            b = _mm512_maskz_mov_ps(sight.mask(position + 16), b);
        }
        sums = [_mm512_add_ps(sums[0], a), _mm512_add_ps(sums[1], b)];
        let words = |a, b| _mm512_permutex2var_epi16(a, upper, b);
        let high = words(_mm512_castps_si512(a), _mm512_castps_si512(b));
        let low = words(rest(a), rest(b));
        // SAFETY: room for 32 numbers.
        unsafe {
            _mm512_storeu_si512(group.as_mut_ptr().cast(), high);
            _mm512_storeu_si512(group[16..].as_mut_ptr().cast(), low);
        }
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
}

#[cfg(test)]
mod tests {
    use super::super::{available, split_exponentials};
    use super::*;

    /// The sum of the two parts of a position's `p`.
    fn whole(scores: &[f32], position: usize) -> f64 {
        let halves: &[u16] = bytemuck::cast_slice(scores);
        let group = position / INPUTS * 2 * INPUTS + position % INPUTS;
        [group, group + INPUTS]
            .map(|index| f64::from(f32::from_bits(u32::from(halves[index]) << 16)))
            .iter()
            .sum()
    }

    #[test]
    fn parts_and_sum_are_those_of_the_scores_in_sight() {
        if !available() {
            eprintln!("not run: this machine has no AMX");
            return;
        }
        let numbers = crate::cases::numbers(9, 200);
        for (first, visible) in [
            (0, 1),
            (0, 200),
            (3, 64),
            (31, 33),
            (32, 96),
            (70, 71),
            (95, 160),
        ] {
            let mut scores = numbers.clone();
            // Scores out of sight must not enter the sum.
            scores[..first].fill(f32::NAN);
            scores[visible..].fill(f32::INFINITY);
            scores.resize(224, f32::NAN);
            let scale = 3.0;
            let sum = split_exponentials(&mut scores, first, visible, scale);
            let seen = &numbers[first..visible];
            let max = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exact = |s: f32| (f64::from(s - max) * f64::from(scale)).exp2();
            let total: f64 = seen.iter().map(|&s| exact(s)).sum();
            assert!(
                (f64::from(sum) / total - 1.0).abs() < 4e-6,
                "{first}..{visible}"
            );
            let groups = numbers.iter().chain(&[0.0; INPUTS]);
            let end = visible.next_multiple_of(INPUTS);
            for (position, &number) in groups.enumerate().take(end) {
                let found = whole(&scores, position);
                if (first..visible).contains(&position) {
                    let error = found / exact(number) - 1.0;
                    assert!(
                        error.abs() < 2e-5,
                        "{first}..{visible}, {position}: {error:e}"
                    );
                } else {
                    assert_eq!(found, 0.0, "{first}..{visible}, {position}");
                }
            }
        }
        // NaN makes the sum NaN; scores far below the maximum give almost 0.
        for bits in [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff] {
            let mut scores = vec![1.0; 32];
            scores[7] = f32::from_bits(bits);
            assert!(split_exponentials(&mut scores, 0, 32, 1.0).is_nan());
        }
        let mut scores = vec![-1e30; 32];
        scores[5] = 0.0;
        assert_eq!(split_exponentials(&mut scores, 0, 32, 1.0), 1.0);
        assert!(whole(&scores, 6) < 1e-30);
    }
}
