//! From a PRM's scores to probabilities of success: a monotone map, and how reliable it is.
//!
//! A PRM's score of a step is not the probability that the solution ends right: PRMs overestimate,
//! small policies' solutions most (arXiv 2506.09338). [`Isotonic`] is the least-squares monotone
//! map between the two, fitted by pooling adjacent violators, with the conventions of
//! scikit-learn's `IsotonicRegression` (`out_of_bounds="clip"`). [`Reliability`] tells how far
//! predictions are from what happened.

use serde::{Deserialize, Serialize};

/// A prediction and what happened: the score of a prefix of a solution, and whether the solution's
/// answer is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The score, or a probability.
    pub score: f64,
    /// Whether the answer is right.
    pub right: bool,
}

/// A monotone map from scores to probabilities: linear between its points, constant beyond them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Isotonic {
    /// Scores, ascending.
    pub scores: Vec<f64>,
    /// The probability at each of them, ascending.
    pub probabilities: Vec<f64>,
}

/// Samples of neighbouring scores that share a probability.
struct Block {
    first: f64,
    last: f64,
    right: f64,
    count: f64,
}

impl Block {
    fn mean(&self) -> f64 {
        self.right / self.count
    }
}

impl Isotonic {
    /// The map nearest to the samples; without samples it is empty and maps a score to itself.
    pub fn fit(samples: &[Sample]) -> Isotonic {
        let mut sorted = samples.to_vec();
        sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
        let mut blocks: Vec<Block> = Vec::new();
        for sample in sorted {
            let (score, right) = (sample.score, f64::from(u8::from(sample.right)));
            match blocks.last_mut() {
                // Equal scores are one point, before any pooling.
                Some(last) if last.first == score => {
                    last.right += right;
                    last.count += 1.0;
                }
                _ => blocks.push(Block {
                    first: score,
                    last: score,
                    right,
                    count: 1.0,
                }),
            }
        }
        let mut pooled: Vec<Block> = Vec::new();
        for mut block in blocks {
            while let Some(before) = pooled.pop_if(|before| before.mean() >= block.mean()) {
                block.first = before.first;
                block.right += before.right;
                block.count += before.count;
            }
            pooled.push(block);
        }
        let mut map = Isotonic {
            scores: Vec::new(),
            probabilities: Vec::new(),
        };
        for block in pooled {
            let probability = block.mean();
            for score in [block.first, block.last] {
                if map.scores.last() != Some(&score) {
                    map.scores.push(score);
                    map.probabilities.push(probability);
                }
            }
        }
        map
    }

    /// Whether scores and probabilities belong together, and both ascend.
    pub fn is_map(&self) -> bool {
        let ascends = |values: &[f64]| values.iter().all(|v| v.is_finite()) && values.is_sorted();
        let are_probabilities = self.probabilities.iter().all(|p| (0.0..=1.0).contains(p));
        let same = self.scores.len() == self.probabilities.len() && !self.scores.is_empty();
        same && are_probabilities && ascends(&self.scores) && ascends(&self.probabilities)
    }

    /// The probability at a score.
    pub fn probability(&self, score: f64) -> f64 {
        let (xs, ys) = (&self.scores, &self.probabilities);
        let above = xs.partition_point(|&x| x < score);
        match (above.checked_sub(1), xs.get(above)) {
            (None, None) => score,
            (None, Some(_)) => ys[0],
            (Some(below), None) => ys[below],
            (Some(below), Some(&x)) => {
                let share = (score - xs[below]) / (x - xs[below]);
                ys[below] + share * (ys[above] - ys[below])
            }
        }
    }
}

/// Predictions of one tenth of the range, and what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bin {
    /// Samples.
    pub count: usize,
    /// The mean prediction.
    pub predicted: f64,
    /// The share that was right.
    pub observed: f64,
    /// The 95 % interval of that share (Wilson 1927). Samples of one problem are not independent, so
    /// it is too narrow.
    pub interval: [f64; 2],
}

/// How far predictions are from what happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Samples.
    pub samples: usize,
    /// The mean squared difference of prediction and outcome (Brier 1950).
    pub brier: f64,
    /// The expected calibration error: the mean of |predicted - observed| over the bins, by their
    /// samples (Guo et al. 2017, arXiv 1706.04599).
    pub ece: f64,
    /// The probability that a right sample has a higher prediction than a wrong one, ties half;
    /// `None` if there are not both.
    pub auroc: Option<f64>,
    /// Predictions from 0 to 0.1, up to 0.9 to 1.
    pub bins: [Bin; 10],
}

impl Reliability {
    /// Compares predictions, from 0 to 1, with outcomes.
    pub fn of(samples: &[Sample]) -> Reliability {
        let mut bins = [Bin::default(); 10];
        let mut brier = 0.0;
        for sample in samples {
            let right = f64::from(u8::from(sample.right));
            brier += (sample.score - right).powi(2);
            let bin = &mut bins[((sample.score * 10.0) as usize).min(9)];
            bin.count += 1;
            bin.predicted += sample.score;
            bin.observed += right;
        }
        let mut ece = 0.0;
        let all = samples.len().max(1) as f64;
        for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
            let count = bin.count as f64;
            bin.predicted /= count;
            bin.observed /= count;
            bin.interval = wilson(bin.observed, count);
            ece += count / all * (bin.predicted - bin.observed).abs();
        }
        Reliability {
            samples: samples.len(),
            brier: brier / all,
            ece,
            auroc: auroc(samples),
            bins,
        }
    }
}

/// The 95 % interval of a share of `count` samples.
pub fn wilson(share: f64, count: f64) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    let z2 = Z * Z / count;
    let middle = (share + z2 / 2.0) / (1.0 + z2);
    let half = Z * (share * (1.0 - share) / count + z2 / (4.0 * count)).sqrt() / (1.0 + z2);
    [(middle - half).max(0.0), (middle + half).min(1.0)]
}

/// The area under the ROC curve, by the rank sum of the right samples.
fn auroc(samples: &[Sample]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    let right = sorted.iter().filter(|sample| sample.right).count() as f64;
    let wrong = sorted.len() as f64 - right;
    if right == 0.0 || wrong == 0.0 {
        return None;
    }
    let mut ranks = 0.0;
    let mut before = 0;
    for ties in sorted.chunk_by(|a, b| a.score == b.score) {
        let rank = before as f64 + (ties.len() as f64 + 1.0) / 2.0;
        ranks += rank * ties.iter().filter(|sample| sample.right).count() as f64;
        before += ties.len();
    }
    Some((ranks - right * (right + 1.0) / 2.0) / (right * wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pairs: &[(f64, u8)]) -> Vec<Sample> {
        let sample = |&(score, right): &(f64, u8)| Sample {
            score,
            right: right == 1,
        };
        pairs.iter().map(sample).collect()
    }

    #[test]
    fn violators_are_pooled() {
        type Case = (&'static [(f64, u8)], &'static [f64], &'static [f64]);
        let cases: &[Case] = &[
            (&[], &[], &[]),
            (&[(0.5, 1)], &[0.5], &[1.0]),
            (&[(0.2, 0), (0.8, 1)], &[0.2, 0.8], &[0.0, 1.0]),
            // The wrong way round: one block.
            (&[(0.2, 1), (0.8, 0)], &[0.2, 0.8], &[0.5, 0.5]),
            // Equal scores are one point.
            (
                &[(0.4, 1), (0.4, 0), (0.4, 0), (0.6, 1)],
                &[0.4, 0.6],
                &[1.0 / 3.0, 1.0],
            ),
            // 1 | 0 pooled to a half; 0 then pulls it to a third, in any order of the samples.
            (
                &[(0.9, 1), (0.1, 0), (0.3, 1), (0.5, 0), (0.4, 0)],
                &[0.1, 0.3, 0.5, 0.9],
                &[0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0],
            ),
        ];
        for (pairs, scores, probabilities) in cases {
            let map = Isotonic::fit(&samples(pairs));
            assert_eq!(map.scores, *scores, "{pairs:?}");
            for (found, expected) in map.probabilities.iter().zip(*probabilities) {
                assert!((found - expected).abs() < 1e-12, "{pairs:?}: {map:?}");
            }
        }
    }

    #[test]
    fn a_score_between_two_points_is_interpolated_and_one_beyond_is_held() {
        let map = Isotonic::fit(&samples(&[(0.2, 0), (0.4, 1), (0.4, 0), (0.8, 1)]));
        for (score, expected) in [
            (-1.0, 0.0),
            (0.2, 0.0),
            (0.3, 0.25),
            (0.4, 0.5),
            (0.6, 0.75),
            (0.8, 1.0),
            (7.0, 1.0),
        ] {
            assert!((map.probability(score) - expected).abs() < 1e-12, "{score}");
        }
        assert_eq!(Isotonic::fit(&[]).probability(0.3), 0.3);
    }

    #[test]
    fn reliability_by_hand() {
        let found = Reliability::of(&samples(&[(0.05, 0), (0.95, 1), (0.95, 0), (1.0, 1)]));
        // (0.0025 + 0.0025 + 0.9025 + 0) / 4
        assert!((found.brier - 0.226_875).abs() < 1e-12, "{found:?}");
        let last = found.bins[9];
        assert_eq!(last.count, 3);
        assert!((last.predicted - 2.9 / 3.0).abs() < 1e-12);
        assert!((last.observed - 2.0 / 3.0).abs() < 1e-12);
        // (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n) with p = 2/3, n = 3, z = 1.96
        assert!((last.interval[0] - 0.207660).abs() < 1e-6, "{last:?}");
        assert!((last.interval[1] - 0.938508).abs() < 1e-6, "{last:?}");
        assert!((found.ece - (0.25 * 0.05 + 0.75 * 0.3)).abs() < 1e-12);
        // Pairs (right, wrong): 0.95 > 0.05, 0.95 = 0.95, 1 > 0.05, 1 > 0.95.
        assert_eq!(found.auroc, Some(3.5 / 4.0));
        assert_eq!(Reliability::of(&samples(&[(0.5, 1)])).auroc, None);
        assert_eq!(Reliability::of(&[]).samples, 0);
    }
}
