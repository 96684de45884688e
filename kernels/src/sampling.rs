//! Sampling: the settings, and the exact arithmetic that draws a token from logits.
//!
//! The same logits give the same token on every device, in whatever order the device adds, because
//! probabilities are integers:
//!
//! - A token's *weight* is `floor(2^((l - max) * (log2(e) / T)) * 2^30)`. `2^x` is the crate's
//!   polynomial, a fixed sequence of IEEE f32 operations. The most likely token weighs exactly
//!   `2^30`; a token 2^30 times less likely weighs 0. Sums of weights are exact in u64. (30 bits
//!   and not 32, because f32 to i32 is one instruction on every device.)
//! - Tokens are ordered by likelihood: larger logit first, then lower id. Top-k keeps the first
//!   `k`. Top-p keeps the shortest prefix whose weight is at least `ceil(p * total)`, in f64. Min-p
//!   keeps weights of at least `ceil(min_p * 2^30)`. The first token is always kept.
//! - With 64 random bits `u` and `W` the sum of the kept weights, `r = floor(u * W / 2^64)`. The
//!   drawn token is the first one, by id, at which the running sum of kept weights exceeds `r`.
//!
//! NaN logits, and logits without a finite maximum, are an error and never give a token.
#![allow(unsafe_code)] // One cast, with its reason.

use crate::Error;
use crate::exp2::exp2;
use crate::philox::uniform_u64;
use crate::widest::{maximum, widest};
use std::f32::consts::LOG2_E;

/// The weight of the most likely token: 2^30.
const ONE: f32 = 1_073_741_824.0;

/// Weights summed at once in the search for the drawn token.
const SUM_CHUNK: usize = 64;

/// The distribution a token is drawn from, given its logits.
///
/// The settings apply in this order: repetition penalty, temperature, top-k, top-p, min-p.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Logits are divided by this. 0 means greedy: the largest logit, the lowest id on a tie.
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the fewest most likely tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this times the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens in the history are divided (if positive) or multiplied (if negative) by
    /// this; 1 changes nothing (Keskar et al. 2019, arXiv 1909.05858).
    pub repetition_penalty: f32,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };
}

/// The model's own distribution: temperature 1, no filter, no penalty.
impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 1.0,
            ..Sampling::GREEDY
        }
    }
}

/// One token to draw.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    /// Index of the row of logits.
    pub row: usize,
    /// The distribution.
    pub sampling: &'a Sampling,
    /// Distinct token ids that the repetition penalty applies to; ignored if it is 1.
    pub history: &'a [u32],
    /// Philox key, derived from the seed and the branch's path.
    pub key: u64,
    /// Philox counter: position of the drawn token in its sequence.
    pub position: u64,
    /// Whether [`Sample::confidence`] is computed as well.
    pub confidence: bool,
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its id.
    pub token_id: u32,
    /// Its log-probability (natural logarithm) under the model's own distribution: temperature 1,
    /// no filter, no penalty. vLLM's `raw_logprobs`.
    pub logprob: f32,
    /// Its log-probability under the distribution that it was drawn from: after penalty,
    /// temperature and filters; exact, since the weights are integers. 0 where the most likely
    /// token was taken. vLLM's `processed_logprobs`, but for temperature 0, where vLLM gives those
    /// of temperature 1.
    pub processed_logprob: f32,
    /// If the draw asked for it.
    pub confidence: Option<Confidence>,
}

/// How sure the model's own distribution is of the next token: temperature 1, no filter, no penalty,
/// whichever token is drawn. In nats; larger is surer. `V` is the size of the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confidence {
    /// `-(1 / V) sum_j ln(V p_j)`, the KL divergence of the distribution from the uniform one: 0 where
    /// all tokens are equally likely (self-certainty, Kang et al. 2025, arXiv 2502.18581;
    /// `confidence_logits` of backprop07/Self-Certainty, `src/confidence_list.py`).
    pub self_certainty: f32,
    /// Minus the mean log-probability of the [`TOP_TOKENS`] most likely tokens, or of all where there
    /// are fewer (DeepConf, Fu et al. 2025, arXiv 2508.15260; `compute_confidence` of
    /// facebookresearch/deepconf, `helper.py`, which adds the drawn token where it is not among them,
    /// as vLLM lists it, and rounds to 3 decimals).
    pub top: f32,
}

/// The tokens that [`Confidence::top`] is the mean over.
pub const TOP_TOKENS: usize = 20;

/// How far below the largest logit a logit counts in a [`Confidence`], at most: so a masked token, whose
/// logit is minus infinity, leaves it finite.
pub(crate) const MAX_BELOW: f32 = 1e4;

impl Confidence {
    /// From `sum`, the sum of `e^(l - max)` over a row of logits `l`, and the sums of `l - max` over all
    /// `vocabulary` tokens and over the [`TOP_TOKENS`] most likely ones.
    pub(crate) fn new(sum: f64, below: f64, top_below: f64, vocabulary: usize) -> Confidence {
        let tokens = vocabulary as f64;
        let top_tokens = vocabulary.min(TOP_TOKENS) as f64;
        Confidence {
            self_certainty: (sum.ln() - below / tokens - tokens.ln()) as f32,
            top: (sum.ln() - top_below / top_tokens) as f32,
        }
    }
}

impl Sample {
    /// The token `token_id`, of this weight among the kept ones, whose weights sum to `total`.
    pub(crate) fn new(token_id: u32, logprob: f64, weight: u32, total: u64) -> Sample {
        Sample {
            token_id,
            logprob: logprob as f32,
            processed_logprob: (f64::from(weight) / total as f64).ln() as f32,
            confidence: None,
        }
    }
}

/// A token by its weight among the kept ones.
struct Weighed {
    token: usize,
    weight: u32,
    /// The sum of the kept weights.
    total: u64,
}

/// Draws tokens. It reuses scratch memory between draws; results do not depend on earlier draws.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Logits after the repetition penalty, if it applies.
    penalised: Vec<f32>,
    /// Weights, by token id.
    weights: Vec<u32>,
    /// Tokens not filtered out, as [`rank`]s.
    candidates: Vec<u64>,
}

/// A sort key that is larger for a more likely token: the logit's bits in numerical order, then the
/// inverted id.
fn rank(logit: f32, id: usize) -> u64 {
    // -0.0 + 0.0 is 0.0, so both zeros tie.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    u64::from(ordered) << 32 | u64::from(!(id as u32))
}

/// The token id of a [`rank`].
fn id_of(rank: u64) -> usize {
    !(rank as u32) as usize
}

impl Sampler {
    /// A sampler; it allocates at the first draw.
    pub fn new() -> Sampler {
        Sampler::default()
    }

    /// Draws a token from `logits`, `[vocabulary]`, which are row `draw.row` (used in messages
    /// only).
    ///
    /// # Errors
    ///
    /// [`Error::BadLogits`] if a logit is NaN or the largest is not finite.
    ///
    /// # Panics
    ///
    /// If `logits` is empty, a history id is not below its length, or the temperature is negative
    /// or NaN; the caller checks its settings.
    pub fn draw(&mut self, logits: &[f32], draw: &Draw<'_>) -> Result<Sample, Error> {
        let sampling = draw.sampling;
        assert!(!logits.is_empty(), "no logits to draw from");
        assert!(
            sampling.temperature >= 0.0,
            "temperature {} is not a number from 0 up",
            sampling.temperature
        );
        let raw_max = finite_max(logits, draw.row)?;

        let mut penalised = std::mem::take(&mut self.penalised);
        let result = if sampling.repetition_penalty == 1.0 || draw.history.is_empty() {
            Ok((logits, raw_max))
        } else {
            penalised.clear();
            penalised.extend_from_slice(logits);
            for &id in draw.history {
                let logit = &mut penalised[id as usize];
                *logit = if *logit > 0.0 {
                    *logit / sampling.repetition_penalty
                } else {
                    *logit * sampling.repetition_penalty
                };
            }
            finite_max(&penalised, draw.row).map(|max| (&penalised[..], max))
        }
        .map(|(shaped, max)| {
            let Weighed {
                token,
                weight,
                total,
            } = if sampling.temperature == 0.0 {
                Weighed {
                    token: greedy(shaped, max),
                    weight: 1,
                    total: 1,
                }
            } else {
                self.sampled(shaped, max, draw)
            };
            let sum = exp_sum(logits, raw_max);
            let logprob = f64::from(logits[token] - raw_max) - sum.ln();
            let confidence = draw.confidence.then(|| {
                let (below, top) = (below_sum(logits, raw_max), top_below_sum(logits, raw_max));
                Confidence::new(sum, below, top, logits.len())
            });
            Sample {
                confidence,
                ..Sample::new(token as u32, logprob, weight, total)
            }
        });
        self.penalised = penalised;
        result
    }

    /// Draws from the filtered distribution of `logits`, whose maximum is `max`.
    fn sampled(&mut self, logits: &[f32], max: f32, draw: &Draw<'_>) -> Weighed {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = *draw.sampling;
        let random = uniform_u64(draw.key, draw.position);
        let scale = (LOG2_E / temperature).min(f32::MAX);
        let total = weigh(logits, max, scale, &mut self.weights);
        let weights = &self.weights;

        let top_k = top_k as usize;
        let filters_k = top_k > 0 && top_k < logits.len();
        if !filters_k && top_p >= 1.0 && min_p <= 0.0 {
            // Whole chunks first: their sums are vectorised, a running sum is not.
            let mut r = fraction(random, total);
            for (i, chunk) in weights.chunks(SUM_CHUNK).enumerate() {
                let sum: u64 = chunk.iter().map(|&w| u64::from(w)).sum();
                if r < sum {
                    let ids = i * SUM_CHUNK..;
                    let token = first_above(ids.zip(chunk.iter().map(|&w| u64::from(w))), r);
                    return Weighed {
                        token,
                        weight: weights[token],
                        total,
                    };
                }
                r -= sum;
            }
            unreachable!("r is below the sum of the weights");
        }

        // Tokens of weight 0 are never drawn, so leaving them out changes no filter's result.
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(
            (0..logits.len())
                .filter(|&id| weights[id] > 0)
                .map(|id| rank(logits[id], id)),
        );
        let weight = |rank: u64| u64::from(weights[id_of(rank)]);
        if filters_k && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, |a, b| b.cmp(a));
            candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            let total: u64 = candidates.iter().map(|&c| weight(c)).sum();
            let target = (f64::from(top_p.max(0.0)) * total as f64).ceil() as u64;
            let kept = shortest_prefix(candidates, target.max(1), weight);
            candidates.truncate(kept);
        }
        if min_p > 0.0 {
            let min_weight = (f64::from(min_p.min(1.0)) * f64::from(ONE)).ceil() as u64;
            candidates.retain(|&c| weight(c) >= min_weight);
        }

        let total: u64 = candidates.iter().map(|&c| weight(c)).sum();
        candidates.sort_unstable_by_key(|&c| id_of(c));
        let token = first_above(
            candidates.iter().map(|&c| (id_of(c), weight(c))),
            fraction(random, total),
        );
        Weighed {
            token,
            weight: weights[token],
            total,
        }
    }
}

widest! {
    /// The largest logit, or an error if a logit is NaN or the largest is not finite.
    fn finite_max(logits: &[f32], row: usize) -> Result<f32, Error> {
        let max = maximum(logits);
        let ordered = logits.iter().fold(true, |all, &l| all & (l <= max));
        if ordered && max.is_finite() {
            return Ok(max);
        }
        let bad = |l: &f32| l.is_nan() || *l == f32::INFINITY;
        let token = logits.iter().position(bad).unwrap_or(0);
        Err(Error::BadLogits {
            row,
            token,
            value: logits[token],
        })
    }
}

/// The lowest id with logit `max`.
fn greedy(logits: &[f32], max: f32) -> usize {
    logits
        .iter()
        .position(|&l| l == max)
        .expect("the maximum is one of the logits")
}

widest! {
    /// Fills `weights` with the weights of all tokens and returns their sum. `max` is the maximum
    /// of `logits`, none of which is NaN.
    fn weigh(logits: &[f32], max: f32, scale: f32, weights: &mut Vec<u32>) -> u64 {
        weights.resize(logits.len(), 0);
        for (weight, &l) in weights.iter_mut().zip(logits) {
            let power = exp2((l - max) * scale) * ONE;
            debug_assert!((0.0..=ONE).contains(&power), "{l} above {max}");
            // SAFETY: the exponent is not above 0, so `2^x` is in [0, 1], and ONE is 2^30. A
            // saturating cast (`as`) would not be vectorised.
            *weight = unsafe { power.to_int_unchecked::<i32>() } as u32;
        }
        weights.iter().map(|&w| u64::from(w)).sum()
    }
}

widest! {
    /// `sum_i e^(l_i - max)` in f64, in 16 lanes by index modulo 16, then the lanes in order.
    fn exp_sum(logits: &[f32], max: f32) -> f64 {
        let mut lanes = [0.0f64; 16];
        let mut chunks = logits.chunks_exact(16);
        for chunk in &mut chunks {
            for (lane, &l) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(exp2((l - max) * LOG2_E));
            }
        }
        for (lane, &l) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane += f64::from(exp2((l - max) * LOG2_E));
        }
        lanes.iter().sum()
    }
}

widest! {
    /// `sum_i max(l_i - max, -MAX_BELOW)` in f64, in 16 lanes by index modulo 16, then the lanes in order.
    fn below_sum(logits: &[f32], max: f32) -> f64 {
        let mut lanes = [0.0f64; 16];
        let mut chunks = logits.chunks_exact(16);
        for chunk in &mut chunks {
            for (lane, &l) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from((l - max).max(-MAX_BELOW));
            }
        }
        for (lane, &l) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane += f64::from((l - max).max(-MAX_BELOW));
        }
        lanes.iter().sum()
    }
}

/// The sum of `max(l - max, -MAX_BELOW)` over the [`TOP_TOKENS`] largest logits, the largest first.
fn top_below_sum(logits: &[f32], max: f32) -> f64 {
    // Descending. A chunk whose maximum is not above the last one holds nothing of it: most of them.
    let mut top = [f32::NEG_INFINITY; TOP_TOKENS];
    for chunk in logits.chunks(SUM_CHUNK) {
        if maximum(chunk) <= top[TOP_TOKENS - 1] {
            continue;
        }
        for &l in chunk {
            let place = top.partition_point(|&t| t >= l);
            if place < TOP_TOKENS {
                top[place..].rotate_right(1);
                top[place] = l;
            }
        }
    }
    let count = logits.len().min(TOP_TOKENS);
    let below = |&l: &f32| f64::from((l - max).max(-MAX_BELOW));
    top[..count].iter().map(below).sum()
}

/// `floor(random / 2^64 * total)`.
fn fraction(random: u64, total: u64) -> u64 {
    ((u128::from(random) * u128::from(total)) >> 64) as u64
}

/// The first id at which the running sum of weights exceeds `r`. `r` is below their total.
fn first_above(weights: impl Iterator<Item = (usize, u64)>, r: u64) -> usize {
    let mut sum = 0;
    for (id, weight) in weights {
        sum += weight;
        if sum > r {
            return id;
        }
    }
    unreachable!("r is below the sum of the weights")
}

/// Moves the most likely candidates to the front, as many as are needed for their weight to reach
/// `target`, and returns their number.
///
/// Bisection by partial sorting: each round halves the undecided part, so the cost is linear.
fn shortest_prefix(candidates: &mut [u64], target: u64, weight: impl Fn(u64) -> u64) -> usize {
    let (mut low, mut high) = (0, candidates.len());
    // Invariant: the first `low` are kept and weigh `kept_weight` < target; the first `high` reach
    // it.
    let mut kept_weight = 0;
    while high - low > 1 {
        let middle = (high - low) / 2;
        candidates[low..high].select_nth_unstable_by(middle, |a, b| b.cmp(a));
        let upper: u64 = candidates[low..low + middle]
            .iter()
            .map(|&c| weight(c))
            .sum();
        if kept_weight + upper >= target {
            high = low + middle;
        } else {
            kept_weight += upper;
            low += middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    fn sampling(temperature: f32, top_k: u32, top_p: f32, min_p: f32) -> Sampling {
        Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty: 1.0,
        }
    }

    fn draw(logits: &[f32], sampling: &Sampling, key: u64, position: u64) -> Sample {
        Sampler::new()
            .draw(
                logits,
                &Draw {
                    row: 0,
                    sampling,
                    history: &[],
                    key,
                    position,
                    confidence: false,
                },
            )
            .expect("good logits")
    }

    /// `len` logits in [-range, range), rounded to eighths so that some tie.
    fn logits(seed: u64, len: usize, range: f32) -> Vec<f32> {
        (0..len as u64)
            .map(|i| {
                let unit = (uniform_u64(seed, i) >> 40) as f32 / (1 << 23) as f32 - 1.0;
                (unit * range * 8.0).round() / 8.0
            })
            .collect()
    }

    /// The kept tokens and their probabilities, computed by sorting in f64.
    fn kept_by_sorting(logits: &[f32], s: &Sampling) -> Vec<(usize, f64)> {
        let scaled: Vec<f64> = logits
            .iter()
            .map(|&l| f64::from(l) / f64::from(s.temperature))
            .collect();
        let p: Vec<f64> = reference::log_softmax(&scaled)
            .iter()
            .map(|l| l.exp())
            .collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        if s.top_k > 0 {
            order.truncate(s.top_k as usize);
        }
        let total: f64 = order.iter().map(|&t| p[t]).sum();
        let mut sum = 0.0;
        let mut count = 0;
        while count < order.len() && (count == 0 || sum < f64::from(s.top_p) * total) {
            sum += p[order[count]];
            count += 1;
        }
        if s.top_p < 1.0 {
            order.truncate(count);
        }
        let best = p[order[0]];
        order.retain(|&t| p[t] >= f64::from(s.min_p) * best);
        let total: f64 = order.iter().map(|&t| p[t]).sum();
        let mut kept: Vec<(usize, f64)> = order.iter().map(|&t| (t, p[t] / total)).collect();
        kept.sort_unstable_by_key(|&(t, _)| t);
        kept
    }

    /// Pearson's chi-square statistic of `draws` draws against `kept`, with cells of small
    /// expectation pooled, and its degrees of freedom. Fails if a token is drawn that was not kept.
    fn chi_square(logits: &[f32], s: &Sampling, kept: &[(usize, f64)], draws: u64) -> (f64, usize) {
        let mut counts = vec![0u64; logits.len()];
        let mut sampler = Sampler::new();
        for position in 0..draws {
            let draw = Draw {
                row: 0,
                sampling: s,
                history: &[],
                key: 99,
                position,
                confidence: false,
            };
            counts[sampler.draw(logits, &draw).expect("good logits").token_id as usize] += 1;
        }
        let drawn: u64 = kept.iter().map(|&(t, _)| counts[t]).sum();
        assert_eq!(
            drawn, draws,
            "{s:?}: a token that was filtered out was drawn"
        );
        let (mut statistic, mut cells) = (0.0, 0);
        let mut add = |count: f64, expected: f64| {
            statistic += (count - expected).powi(2) / expected;
            cells += 1;
        };
        let (mut pooled_count, mut pooled_expected) = (0.0, 0.0);
        for &(t, p) in kept {
            let expected = p * draws as f64;
            if expected < 8.0 {
                pooled_count += counts[t] as f64;
                pooled_expected += expected;
            } else {
                add(counts[t] as f64, expected);
            }
        }
        if pooled_expected >= 8.0 {
            add(pooled_count, pooled_expected);
        }
        (statistic, cells.max(1) - 1)
    }

    const SETTINGS: [(f32, u32, f32, f32); 9] = [
        (1.0, 0, 1.0, 0.0),
        (0.7, 0, 1.0, 0.0),
        (1.5, 0, 1.0, 0.0),
        (1.0, 5, 1.0, 0.0),
        (1.0, 1, 1.0, 0.0),
        (0.8, 0, 0.9, 0.0),
        (1.0, 0, 1.0, 0.1),
        (0.9, 40, 0.8, 0.05),
        (1.0, 0, 0.0, 0.0),
    ];

    #[test]
    fn draws_follow_the_filtered_distribution() {
        for (temperature, k, p, m) in SETTINGS {
            let s = sampling(temperature, k, p, m);
            for (seed, len) in [(1, 7), (2, 64), (3, 512)] {
                let logits = logits(seed, len, 4.0);
                let kept = kept_by_sorting(&logits, &s);
                let (statistic, freedom) = chi_square(&logits, &s, &kept, 20_000);
                // Mean f, variance 2 f: five standard deviations, and 6 more for few cells.
                let f = freedom as f64;
                let limit = f + 5.0 * (2.0 * f).sqrt() + 6.0;
                assert!(
                    statistic <= limit,
                    "{s:?}, {len} tokens: chi-square {statistic:.1} with {freedom} degrees of freedom"
                );
            }
        }
    }

    #[test]
    fn filters_keep_exactly_what_sorting_keeps() {
        for seed in 0..300 {
            let len = 1 + (uniform_u64(7, seed) % 70) as usize;
            let logits = logits(100 + seed, len, 3.0);
            for (temperature, k, p, m) in SETTINGS {
                let s = sampling(temperature, k, p, m);
                let mut sampler = Sampler::new();
                let kept: Vec<usize> = kept_by_sorting(&logits, &s).iter().map(|k| k.0).collect();
                let mut seen = std::collections::BTreeSet::new();
                for position in 0..200 {
                    let draw = Draw {
                        row: 0,
                        sampling: &s,
                        history: &[],
                        key: seed,
                        position,
                        confidence: false,
                    };
                    seen.insert(sampler.draw(&logits, &draw).expect("good").token_id as usize);
                }
                assert!(
                    seen.iter().all(|t| kept.contains(t)),
                    "seed {seed} {s:?}: drew {seen:?}, kept {kept:?}"
                );
                let filters_k = k > 0 && (k as usize) < len;
                if filters_k || p < 1.0 || m > 0.0 {
                    let mut filtered: Vec<usize> =
                        sampler.candidates.iter().map(|&c| id_of(c)).collect();
                    filtered.sort_unstable();
                    assert_eq!(filtered, kept, "seed {seed} {s:?}");
                }
            }
        }
    }

    #[test]
    fn top_p_stops_exactly_where_it_is_reached() {
        for (equal, top_p, kept) in [(4, 0.5, 2), (4, 0.75, 3), (8, 0.125, 1), (4, 0.5001, 3)] {
            let s = sampling(1.0, 0, top_p, 0.0);
            let mut sampler = Sampler::new();
            let d = Draw {
                row: 0,
                sampling: &s,
                history: &[],
                key: 0,
                position: 0,
                confidence: false,
            };
            sampler.draw(&vec![1.5; equal], &d).expect("good");
            let ids: Vec<usize> = sampler.candidates.iter().map(|&c| id_of(c)).collect();
            let expected: Vec<usize> = (0..kept).collect();
            assert_eq!(ids, expected, "{equal} equal tokens, top-p {top_p}");
        }
    }

    #[test]
    fn greedy_takes_the_largest_logit_and_the_lowest_id() {
        let s = sampling(0.0, 0, 1.0, 0.0);
        for (logits, expected) in [
            (vec![0.0], 0),
            (vec![1.0, 3.0, 3.0], 1),
            (vec![-0.0, 0.0], 0),
            (vec![f32::NEG_INFINITY, -5.0], 1),
        ] {
            assert_eq!(draw(&logits, &s, 1, 1).token_id, expected, "{logits:?}");
        }
    }

    #[test]
    fn a_tiny_temperature_is_nearly_greedy() {
        let logits = [1.0, 2.0, 1.999_999_9, -3.0];
        for temperature in [f32::MIN_POSITIVE, 1e-45, 1e-9] {
            let s = sampling(temperature, 0, 1.0, 0.0);
            for position in 0..50 {
                assert_eq!(
                    draw(&logits, &s, 3, position).token_id,
                    1,
                    "{temperature:e}"
                );
            }
        }
    }

    #[test]
    fn scratch_memory_never_shows() {
        let s = sampling(0.9, 20, 0.95, 0.01);
        let mut sampler = Sampler::new();
        for position in 0..300 {
            let logits = logits(position, 1 + (position as usize * 37) % 300, 5.0);
            let d = Draw {
                row: 0,
                sampling: &s,
                history: &[0],
                key: 5,
                position,
                confidence: false,
            };
            let reused = sampler.draw(&logits, &d).expect("good");
            assert_eq!(reused, draw(&logits, &s, 5, position), "draw {position}");
        }
    }

    #[test]
    fn log_probabilities_are_of_the_raw_distribution() {
        let mut s = sampling(0.3, 3, 0.9, 0.0);
        s.repetition_penalty = 1.3;
        for (seed, len, range) in [(1, 5, 2.0), (2, 512, 20.0), (3, 152_000, 1.0)] {
            let logits = logits(seed, len, range);
            let wide: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
            let expected = reference::log_softmax(&wide);
            let d = Draw {
                row: 0,
                sampling: &s,
                history: &[0, 2],
                key: 1,
                position: seed,
                confidence: false,
            };
            let sample = Sampler::new().draw(&logits, &d).expect("good");
            let error = f64::from(sample.logprob) - expected[sample.token_id as usize];
            // The relative error of exp2, the rounding of its argument and of the result.
            assert!(error.abs() < 3e-6, "{len} tokens: off by {error:e}");
        }
    }

    #[test]
    fn confidences_are_those_of_the_raw_distribution() {
        let mut s = sampling(0.3, 3, 0.9, 0.0);
        s.repetition_penalty = 1.3;
        for (seed, len, range) in [
            (1, 1, 2.0),
            (2, 19, 2.0),
            (3, 20, 30.0),
            (4, 21, 5.0),
            (5, 512, 20.0),
            // Ties at the twentieth.
            (6, 700, 0.5),
            (7, 152_000, 12.0),
        ] {
            let logits = logits(seed, len, range);
            let wide: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
            let mut logprobs = reference::log_softmax(&wide);
            let tokens = len as f64;
            let certainty = -logprobs.iter().map(|l| l + tokens.ln()).sum::<f64>() / tokens;
            logprobs.sort_by(|a, b| b.total_cmp(a));
            logprobs.truncate(20);
            let top = -logprobs.iter().sum::<f64>() / logprobs.len() as f64;
            let mut d = Draw {
                row: 0,
                sampling: &s,
                history: &[0],
                key: 1,
                position: seed,
                confidence: true,
            };
            let sample = Sampler::new().draw(&logits, &d).expect("good");
            let found = sample.confidence.expect("asked for");
            // The relative error of exp2, and the rounding of the results.
            let limit = |expected: f64| 3e-6 * expected.abs().max(1.0);
            let error = f64::from(found.self_certainty) - certainty;
            assert!(
                error.abs() < limit(certainty),
                "{len}: {found:?}, {certainty}"
            );
            let error = f64::from(found.top) - top;
            assert!(
                error.abs() < limit(top),
                "{len} tokens: {found:?}, not {top}"
            );
            d.confidence = false;
            let without = Sampler::new().draw(&logits, &d).expect("good");
            assert_eq!(
                without,
                Sample {
                    confidence: None,
                    ..sample
                }
            );
        }
    }

    #[test]
    fn confidences_of_known_distributions() {
        let s = Sampling::default();
        let of = |logits: &[f32]| {
            let d = Draw {
                row: 0,
                sampling: &s,
                history: &[],
                key: 1,
                position: 2,
                confidence: true,
            };
            let sample = Sampler::new().draw(logits, &d).expect("good");
            sample.confidence.expect("asked for")
        };
        // Uniform: no divergence; every token has 1/64.
        let uniform = of(&[-3.0; 64]);
        assert!(uniform.self_certainty.abs() < 1e-6, "{uniform:?}");
        assert!((uniform.top - 64f32.ln()).abs() < 1e-6, "{uniform:?}");
        // Half and half: -(ln(2 * 0.8) + ln(2 * 0.2)) / 2 and -(ln 0.8 + ln 0.2) / 2.
        let two = of(&[4f32.ln(), 0.0]);
        assert!((two.self_certainty - 0.223_143_55).abs() < 1e-6, "{two:?}");
        assert!((two.top - 0.916_290_7).abs() < 1e-6, "{two:?}");
        // Masked tokens count 1e4 below the most likely one.
        let masked = of(&[0.0, f32::NEG_INFINITY]);
        assert!(
            (masked.self_certainty - (5e3 - 2f32.ln())).abs() < 1e-3,
            "{masked:?}"
        );
        assert!((masked.top - 5e3).abs() < 1e-3, "{masked:?}");
    }

    #[test]
    fn processed_log_probabilities_are_of_the_distribution_drawn_from() {
        for (temperature, k, p, m) in SETTINGS {
            let s = sampling(temperature, k, p, m);
            for (seed, len) in [(1, 7), (2, 64), (3, 512)] {
                let logits = logits(seed, len, 4.0);
                let kept = kept_by_sorting(&logits, &s);
                for position in 0..20 {
                    let sample = draw(&logits, &s, 4, position);
                    let (_, expected) = (kept.iter())
                        .find(|(token, _)| *token == sample.token_id as usize)
                        .expect("a kept token");
                    let found = f64::from(sample.processed_logprob);
                    // A weight is cut to an integer of at least e^-8 / 0.7 of 2^30, that is, of
                    // some thousands.
                    assert!((found - expected.ln()).abs() < 1e-3, "{s:?}: {found}");
                }
            }
        }
        let greedy = draw(&[0.0, 1.0], &sampling(0.0, 0, 1.0, 0.0), 1, 1);
        assert_eq!(greedy.processed_logprob, 0.0);
    }

    #[test]
    fn the_repetition_penalty_divides_or_multiplies() {
        let mut s = sampling(0.0, 0, 1.0, 0.0);
        s.repetition_penalty = 2.0;
        let token = |logits: &[f32], history: &[u32]| {
            let d = Draw {
                row: 0,
                sampling: &s,
                history,
                key: 0,
                position: 0,
                confidence: false,
            };
            Sampler::new().draw(logits, &d).expect("good").token_id
        };
        assert_eq!(token(&[3.0, 2.0], &[]), 0);
        assert_eq!(token(&[3.0, 2.0], &[0]), 1);
        assert_eq!(token(&[-1.0, -1.5], &[0]), 1);
    }

    #[test]
    fn bad_logits_are_an_error() {
        let s = sampling(1.0, 0, 1.0, 0.0);
        let d = Draw {
            row: 4,
            sampling: &s,
            history: &[],
            key: 0,
            position: 0,
            confidence: false,
        };
        let infinity = f32::INFINITY;
        for (logits, token) in [
            (vec![0.0, f32::NAN], 1),
            (vec![f32::NAN, 0.0], 0),
            (vec![0.0, 1.0, infinity], 2),
            (vec![-infinity, -infinity], 0),
            (vec![f32::NAN; 40], 0),
        ] {
            let error = Sampler::new().draw(&logits, &d).expect_err("bad");
            assert!(
                matches!(error, Error::BadLogits { row: 4, token: t, .. } if t == token),
                "{logits:?}: {error}"
            );
        }
    }

    #[test]
    fn known_tokens() {
        // The whole chain. A Python program written from the module's head gives the same tokens,
        // and a GPU must as well.
        let logits = logits(11, 1000, 6.0);
        let tokens = |s: Sampling| -> Vec<u32> {
            (0..6)
                .map(|i| draw(&logits, &s, 0xfeed, i).token_id)
                .collect()
        };
        assert_eq!(tokens(sampling(1.0, 0, 1.0, 0.0)), KNOWN[0]);
        assert_eq!(tokens(sampling(0.8, 50, 0.9, 0.02)), KNOWN[1]);
    }

    const KNOWN: [[u32; 6]; 2] = [
        [212, 168, 810, 760, 279, 954],
        [226, 211, 787, 760, 265, 997],
    ];
}
