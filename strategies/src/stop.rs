//! When a vote is settled, so that no more solutions need be written (SEMANTICS.md, "Stopping").

use serde::{Deserialize, Serialize};

/// When a vote stops before N solutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopRule {
    /// Never.
    #[default]
    None,
    /// When the solutions that are left could not change the answer of the selection, whatever they say:
    /// the result is that of all N.
    Unbeatable,
    /// When the most frequent answer is more frequent than the second with a probability above 0.95
    /// (Adaptive-Consistency, Aggarwal et al., arXiv 2305.11860).
    Beta,
    /// When the odds that the most frequent answer is the mode, by the prior odds, reach 10 (Best-of-infinity,
    /// arXiv 2509.21091): against all answers seen and one that was not.
    BayesFactor,
}

/// The probability above which [`StopRule::Beta`] stops: the default of Adaptive-Consistency's code.
const CONFIDENCE: f64 = 0.95;

/// The Bayes factor from which [`StopRule::BayesFactor`] stops, and the solutions that an answer counts
/// for that nobody has given yet: the defaults of the authors' code.
const BAYES_FACTOR: f64 = 10.0;
const UNSEEN: f64 = 0.3;

impl StopRule {
    /// Every rule.
    pub const ALL: [StopRule; 4] = [
        StopRule::None,
        StopRule::Unbeatable,
        StopRule::Beta,
        StopRule::BayesFactor,
    ];

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        match self {
            StopRule::None => "none",
            StopRule::Unbeatable => "unbeatable",
            StopRule::Beta => "beta",
            StopRule::BayesFactor => "bayes-factor",
        }
    }

    /// Whether a vote is settled in which the answers have so many solutions each, the most frequent
    /// first, and `left` more could be written.
    pub fn settles(self, votes: &[usize], left: usize) -> bool {
        let nth = |i: usize| votes.get(i).copied().unwrap_or(0);
        let (first, second) = (nth(0), nth(1));
        match self {
            StopRule::None => false,
            // A tie goes to the answer that came first, which may be the other.
            StopRule::Unbeatable => first > second.saturating_add(left),
            StopRule::Beta => first > 0 && lead(first, second) > CONFIDENCE,
            StopRule::BayesFactor => first > 0 && bayes_factor(votes) >= BAYES_FACTOR,
        }
    }

    /// Whether it counts answers, so that the solution with the highest score says nothing to it.
    pub(crate) fn counts_answers(self) -> bool {
        matches!(self, StopRule::Beta | StopRule::BayesFactor)
    }

    /// The number of solutions after which the vote is looked at next, once `written` are there:
    /// 1, 2, 4, 8, then every 8.
    pub(crate) fn next_check(self, written: usize) -> usize {
        match (self, written) {
            (StopRule::None, _) => usize::MAX,
            (_, 0) => 1,
            (_, 1..8) => (2 * written).min(8),
            _ => written + 8,
        }
    }
}

/// Whether a vote weighted by scores in [0, 1] is settled: the sums of the answers' `weights`, in any
/// order, are such that `left` more solutions, each of weight 1, cannot give another answer the highest
/// sum.
pub(crate) fn weighted_vote_is_unbeatable(weights: &[f64], left: usize) -> bool {
    /// Above the rounding of the sums that are still to come.
    const ROUNDING: f64 = 1e-9;
    let (mut first, mut second) = (0.0f64, 0.0f64);
    for &weight in weights {
        second = second.max(weight.min(first));
        first = first.max(weight);
    }
    first - second > left as f64 + ROUNDING
}

/// The probability that the first of two answers is the more frequent one, of which `a` and `b`
/// solutions were seen, under a uniform prior: the integral of Beta(a + 1, b + 1) from ½ to 1, which
/// is the probability of at most `a` heads in a + b + 1 throws of a coin.
fn lead(a: usize, b: usize) -> f64 {
    let throws = (a + b + 1) as f64;
    // Terms C(throws, k) / 2^throws, by their logarithms: the powers leave the range of f64.
    let mut log_term = -throws * std::f64::consts::LN_2;
    let mut sum = log_term.exp();
    for k in 1..=a {
        log_term += ((throws - k as f64 + 1.0) / k as f64).ln();
        sum += log_term.exp();
    }
    sum.min(1.0)
}

/// The posterior odds that the first answer is the most probable one, by the prior odds of one among all
/// answers and an unseen one. The posterior of the answers' probabilities is a Dirichlet distribution
/// with one more than an answer's solutions; the authors draw from it, here the probability is computed.
fn bayes_factor(votes: &[usize]) -> f64 {
    let unseen = std::iter::once(UNSEEN);
    let shapes: Vec<f64> = (votes.iter().map(|&v| v as f64))
        .chain(unseen)
        .map(|count| count + 1.0)
        .collect();
    let first = first_is_largest(&shapes);
    shapes.len() as f64 * first / (1.0 - first).max(f64::MIN_POSITIVE)
}

/// The probability that the first component of a Dirichlet distribution is the largest: that of
/// independent Gamma variables of these shapes, whose shares the components are. The integral of the
/// first's density times the others' distribution functions, by the trapezoidal rule.
fn first_is_largest(shapes: &[f64]) -> f64 {
    const POINTS: usize = 4000;
    let widest = shapes.iter().copied().fold(1.0, f64::max);
    // Beyond this every density is below 1e-15.
    let end = widest + 12.0 * widest.sqrt() + 40.0;
    let densities = |shape: f64| {
        let log = move |x: f64| (shape - 1.0) * x.ln() - x;
        let mode = (shape - 1.0).max(1e-3);
        // Relative to the mode: no power overflows. The integrals are normalised below.
        (0..=POINTS).map(move |i| {
            let x = (i as f64 * end / POINTS as f64).max(1e-9);
            (log(x) - log(mode)).exp()
        })
    };
    let distribution = |shape: f64| {
        let mut before = 0.0;
        let sums: Vec<f64> = densities(shape)
            .scan(0.0, |sum, density| {
                *sum += (before + density) / 2.0;
                before = density;
                Some(*sum)
            })
            .collect();
        let total = sums[POINTS];
        sums.into_iter().map(move |sum| sum / total).collect()
    };
    let others: Vec<Vec<f64>> = shapes[1..]
        .iter()
        .map(|&shape| distribution(shape))
        .collect();
    let below = |i: usize| others.iter().map(|d| d[i]).product::<f64>();
    let (mut inside, mut all) = (0.0, 0.0);
    for (i, density) in densities(shapes[0]).enumerate() {
        inside += density * below(i);
        all += density;
    }
    inside / all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_table() {
        type Case = (StopRule, &'static [usize], usize, bool);
        let cases: &[Case] = &[
            (StopRule::None, &[100], 0, false),
            (StopRule::Unbeatable, &[], 0, false),
            (StopRule::Unbeatable, &[9], 7, true),
            (StopRule::Unbeatable, &[8], 8, false),
            (StopRule::Unbeatable, &[8, 3], 5, false),
            (StopRule::Unbeatable, &[9, 3], 5, true),
            // 1 - 2^-(a + 1) for an answer without a rival: 0.9375 and 0.96875.
            (StopRule::Beta, &[], 16, false),
            (StopRule::Beta, &[3], 13, false),
            (StopRule::Beta, &[4], 12, true),
            // Against one: (1 + 7 + 21 + 35 + 35 + 21) / 128 = 0.9375 and 247 / 256 = 0.965.
            (StopRule::Beta, &[5, 1], 10, false),
            (StopRule::Beta, &[6, 1], 9, true),
            (StopRule::Beta, &[5, 5], 6, false),
            // Factors of 9.2 and 19, 9.5 and 34, 2.9 of a tie.
            (StopRule::BayesFactor, &[], 16, false),
            (StopRule::BayesFactor, &[2], 14, false),
            (StopRule::BayesFactor, &[3], 13, true),
            (StopRule::BayesFactor, &[3, 1], 12, false),
            (StopRule::BayesFactor, &[5, 1], 10, true),
            (StopRule::BayesFactor, &[4, 4], 8, false),
        ];
        for &(rule, votes, left, expected) in cases {
            let found = rule.settles(votes, left);
            assert_eq!(found, expected, "{rule:?} {votes:?} {left}");
        }
    }

    #[test]
    fn weighted_vote_table() {
        type Case = (&'static [f64], usize, bool);
        let cases: &[Case] = &[
            (&[], 0, false),
            (&[], 3, false),
            // An answer that nobody has given yet may get all that is left.
            (&[2.5], 2, true),
            (&[2.5], 3, false),
            // A tie goes by the size of the group, which may change.
            (&[2.0], 2, false),
            (&[1.0, 3.5, 0.5], 2, true),
            (&[3.5, 1.5, 1.5], 2, false),
            (&[0.5, 0.5], 0, false),
            (&[0.5, 0.75], 0, true),
            // Scores of 0 lead nobody.
            (&[0.0, 0.0], 0, false),
            // 0.1 + 0.2 is more than 0.3 by rounding only.
            (&[0.1 + 0.2, 0.3], 0, false),
        ];
        for &(weights, left, expected) in cases {
            let found = weighted_vote_is_unbeatable(weights, left);
            assert_eq!(found, expected, "{weights:?} {left}");
        }
    }

    /// Against the same integral by 400,000 points with scaled densities (Python).
    #[test]
    fn bayes_factors_are_the_integrals() {
        for (votes, expected) in [
            (&[1][..], 4.062388),
            (&[2], 9.228679),
            (&[5], 74.980703),
            (&[3, 1], 9.459771),
            (&[6, 1], 61.932631),
            (&[4, 4], 2.906328),
            (&[12, 5], 59.110331),
            (&[10, 3, 1, 1], 140.908432),
        ] {
            let found = bayes_factor(votes);
            assert!((found / expected - 1.0).abs() < 2e-3, "{votes:?}: {found}");
        }
        // Large counts leave no range.
        assert!(bayes_factor(&[5000, 10]) > 1e6);
        assert!((bayes_factor(&[40_000, 40_000]) - 3.0).abs() < 0.1);
    }

    #[test]
    fn a_lead_is_a_probability_however_many_votes_there_are() {
        assert!((lead(0, 0) - 0.5).abs() < 1e-12);
        assert!((lead(4, 0) - 0.96875).abs() < 1e-12);
        assert!((lead(6, 1) - 247.0 / 256.0).abs() < 1e-12);
        for (a, b) in [(700, 650), (40_000, 20_000), (3, 60_000)] {
            let (ahead, behind) = (lead(a, b), lead(b, a));
            assert!((0.0..=1.0).contains(&ahead), "{ahead}");
            assert!((ahead + behind - 1.0).abs() < 1e-9, "{ahead} {behind}");
        }
    }

    #[test]
    fn checks_come_at_1_2_4_8_and_every_8() {
        let checks: Vec<usize> =
            std::iter::successors(Some(0), |&k| Some(StopRule::Beta.next_check(k)))
                .skip(1)
                .take(7)
                .collect();
        assert_eq!(checks, [1, 2, 4, 8, 16, 24, 32]);
        assert_eq!(StopRule::None.next_check(0), usize::MAX);
    }
}
