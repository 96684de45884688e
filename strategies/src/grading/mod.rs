//! Reading answers off solutions and comparing them.
//!
//! The choice of a grader moves accuracies by more than many methods do (TTS.md 5.2), so its
//! name is part of every result.

mod canonical;
mod extract;
mod latex;
mod units;
mod value;

pub use extract::last_boxed;

use serde::{Deserialize, Serialize};

/// Who compares answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grader {
    /// Exact: two answers are equal if they are the same rational number, or the same text once
    /// LaTeX spelling is normalised. No tolerance, no factor of 100, no guess at what was meant:
    ///
    /// - integers, decimals, fractions, mixed numbers, thousands separators, powers, roots of
    ///   squares and `+ - * /` of these are compared as exact rationals; `50\%` is 1/2;
    /// - tuples, intervals, matrices, unions, equations and powers are compared part by part,
    ///   lists without brackets and `\{...\}` in any order;
    /// - a unit may be left out; two different stated units are different answers;
    /// - everything else is compared as text, words without regard to case.
    #[default]
    Strict,
}

impl Grader {
    /// The word for it in results.
    pub fn name(self) -> &'static str {
        match self {
            Grader::Strict => "strict",
        }
    }

    /// The answer of a solution: the content of its last complete `\boxed{}`.
    pub fn answer(self, solution: &str) -> Option<String> {
        last_boxed(solution).map(String::from)
    }

    /// The form in which equal answers are equal texts, for votes. Units are left out.
    pub fn canonical(self, answer: &str) -> String {
        canonical::canonical(answer).0
    }

    /// Whether the two answers are equal: the same canonical form, and no two different units.
    /// Never panics and always ends, whatever the input.
    pub fn equivalent(self, a: &str, b: &str) -> bool {
        let (a, unit_a) = canonical::canonical(a);
        let (b, unit_b) = canonical::canonical(b);
        let units_agree = match (unit_a, unit_b) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        a == b && units_agree
    }
}
