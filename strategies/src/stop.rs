//! When a vote is settled, so that no more solutions need be written (SEMANTICS.md, "Stopping").

use serde::{Deserialize, Serialize};

/// When a majority vote stops before N solutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopRule {
    /// Never.
    #[default]
    None,
    /// When the solutions that are left could not change the answer, whatever they say: the result
    /// is that of all N.
    Unbeatable,
    /// When the most frequent answer is more frequent than the second with a probability above 0.95
    /// (Adaptive-Consistency, Aggarwal et al., arXiv 2305.11860).
    Beta,
}

/// The probability above which [`StopRule::Beta`] stops: the default of Adaptive-Consistency's code.
const CONFIDENCE: f64 = 0.95;

impl StopRule {
    /// Every rule.
    pub const ALL: [StopRule; 3] = [StopRule::None, StopRule::Unbeatable, StopRule::Beta];

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        match self {
            StopRule::None => "none",
            StopRule::Unbeatable => "unbeatable",
            StopRule::Beta => "beta",
        }
    }

    /// Whether a vote is settled in which the two most frequent answers have `first` and `second`
    /// solutions and `left` more could be written.
    pub fn settles(self, first: usize, second: usize, left: usize) -> bool {
        match self {
            StopRule::None => false,
            // A tie goes to the answer that came first, which may be the other.
            StopRule::Unbeatable => first > second.saturating_add(left),
            StopRule::Beta => first > 0 && lead(first, second) > CONFIDENCE,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_table() {
        type Case = (StopRule, usize, usize, usize, bool);
        let cases: &[Case] = &[
            (StopRule::None, 100, 0, 0, false),
            (StopRule::Unbeatable, 0, 0, 0, false),
            (StopRule::Unbeatable, 9, 0, 7, true),
            (StopRule::Unbeatable, 8, 0, 8, false),
            (StopRule::Unbeatable, 8, 3, 5, false),
            (StopRule::Unbeatable, 9, 3, 5, true),
            // 1 - 2^-(a + 1) for an answer without a rival: 0.9375 and 0.96875.
            (StopRule::Beta, 0, 0, 16, false),
            (StopRule::Beta, 3, 0, 13, false),
            (StopRule::Beta, 4, 0, 12, true),
            // Against one: (1 + 7 + 21 + 35 + 35 + 21) / 128 = 0.9375 and 247 / 256 = 0.965.
            (StopRule::Beta, 5, 1, 10, false),
            (StopRule::Beta, 6, 1, 9, true),
            (StopRule::Beta, 5, 5, 6, false),
        ];
        for &(rule, first, second, left, expected) in cases {
            let found = rule.settles(first, second, left);
            assert_eq!(found, expected, "{rule:?} {first} {second} {left}");
        }
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
