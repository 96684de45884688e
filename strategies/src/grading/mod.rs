//! Reading answers off solutions and comparing them.
//!
//! The choice of a grader moves accuracies by more than many methods do (SEMANTICS.md, "Answers
//! and grading"), so its name is part of every result.

mod answer;
mod bases;
mod brackets;
mod choices;
mod commands;
mod compare;
mod conditions;
mod exact;
mod expression;
mod extract;
mod labels;
mod latex;
mod matrix;
mod numbers;
mod numeric;
mod quantity;
mod qwen;
mod relation;
mod sets;
mod text;
mod unicode;
mod unit_table;
mod units;
mod words;

pub use extract::last_boxed;

use answer::Answer;
use compare::Rules;
use exact::Fuel;
use serde::{Deserialize, Serialize};

/// Which grader compares answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grader {
    /// Exact: two answers are equal if they have the same value or shape, whatever their LaTeX.
    /// No tolerance, no factor of 100, no guess at the intended answer:
    ///
    /// - expressions are compared by an exact normal form over the rationals, radicals, i, π, e
    ///   and variables; only where functions such as sin or nested radicals are left are they
    ///   evaluated, at fixed points;
    /// - tuples, intervals and matrices are compared part by part; lists, sets and unions in any
    ///   order; `\pm` is two answers; inequalities in one variable are intervals; equations are
    ///   equal up to a factor;
    /// - a unit, a currency sign or a label before `=` may be left out; two different ones are
    ///   different answers. `50\%` is 50, or one half;
    /// - everything else is compared as text, words without regard to case.
    #[default]
    Strict,
    /// `Strict`, and the leniencies of the grader the paper used, Qwen2.5-Math's: values within a
    /// relative 1e-4 of each other, of a hundred times or of a hundredth are equal; units, labels
    /// and the kind of brackets do not matter; number words are numbers; a letter in a sentence is
    /// a choice. A solution without `\boxed{}` is read after "the answer is", else its last
    /// number is the answer.
    Qwen,
}

impl Grader {
    /// Every grader.
    pub const ALL: [Grader; 2] = [Grader::Strict, Grader::Qwen];

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        match self {
            Grader::Strict => "strict",
            Grader::Qwen => "qwen",
        }
    }

    /// The answer of a solution: the content of its last complete `\boxed{}`; for `Qwen`, failing
    /// that, the text after "the answer is", or its last number.
    pub fn answer(self, solution: &str) -> Option<String> {
        match self {
            Grader::Strict => last_boxed(solution).map(String::from),
            Grader::Qwen => qwen::answer(solution),
        }
    }

    /// The normal form of an answer, for votes: equal answers have equal forms. Units and labels
    /// before `=` are left out. The form of an answer that no rule reads begins with a question
    /// mark, so that it is the form of no other.
    pub fn canonical(self, answer: &str) -> String {
        let answer = self.read(answer, &Fuel::full());
        match answer.is_unread() {
            true => format!("? {}", answer.key),
            false => answer.key,
        }
    }

    /// Whether a rule reads the answer. One that is not read is equal to itself alone, differences
    /// of spelling aside.
    pub fn reads(self, answer: &str) -> bool {
        !self.read(answer, &Fuel::full()).is_unread()
    }

    /// Whether the two answers are equal. Symmetric; never panics; and always ends after a bounded
    /// number of operations, not by a clock, so a verdict is the same on every machine: an answer
    /// that needs more is compared as text.
    pub fn equivalent(self, a: &str, b: &str) -> bool {
        // Each answer has its own fuel, so that its form does not depend on the other.
        let (a, b) = (self.read(a, &Fuel::full()), self.read(b, &Fuel::full()));
        let rules = Rules {
            fuel: &Fuel::full(),
            lenient: self == Grader::Qwen,
        };
        rules.same(&a, &b) || (self == Grader::Qwen && qwen::same_text(&a, &b))
    }

    fn read(self, answer: &str, fuel: &Fuel) -> Answer {
        match self {
            Grader::Strict => Answer::read(answer, fuel),
            Grader::Qwen => Answer::read(&qwen::simplified(answer), fuel),
        }
    }
}
