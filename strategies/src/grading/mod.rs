//! Reading answers off solutions and comparing them.
//!
//! SEMANTICS.md, "Answers and grading", states the rules: which text of a solution is its answer,
//! how an answer is read, and when two are equal.
//!
//! The choice of a grader moves accuracies by more than many methods do, so its name is part
//! of every result.

mod answer;
mod bases;
mod brackets;
mod choices;
mod commands;
mod compare;
mod conditions;
mod environments;
mod exact;
mod expression;
mod extract;
mod labels;
mod latex;
mod lists;
mod matrix;
mod numbers;
mod numeric;
mod quantity;
mod qwen;
mod relation;
mod sets;
mod symbols;
mod text;
mod tidy;
mod unicode;
mod unit_table;
mod units;
mod words;

pub use extract::{Extraction, ExtractionCounts, ExtractionRule, count_extractions, last_boxed};

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
    /// - a unit, a currency sign or a label before `=` may be left out; units of one kind are
    ///   converted, others are different answers. `50\%` is 50, or one half;
    /// - words are compared without regard to case; what no rule reads is equal to itself alone.
    #[default]
    Strict,
    /// `Strict`, and the leniencies of the grader the paper used, Qwen2.5-Math's: values within a
    /// relative 1e-4 of each other, of a hundred times or of a hundredth are equal; units, labels
    /// and the kind of brackets do not matter; number words are numbers; a letter in a sentence is
    /// a choice. A solution without a box is read by further rules ([`ExtractionRule`]).
    Qwen,
}

/// What comes of comparing two answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Whether they are equal.
    pub equal: bool,
    /// The normal form of each.
    pub forms: [String; 2],
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

    /// The answer of a solution and the rule that found it: the content of its last complete
    /// `\boxed{}` or `\fbox{}`; for `Qwen`, failing that, the next rule of [`ExtractionRule`] that
    /// finds one.
    pub fn extract(self, solution: &str) -> Extraction {
        match self {
            Grader::Strict => Extraction::strict(solution),
            Grader::Qwen => Extraction::lenient(solution),
        }
    }

    /// The answer that [`Grader::extract`] finds.
    pub fn answer(self, solution: &str) -> Option<String> {
        self.extract(solution).text
    }

    /// The normal form of an answer, for votes: equal answers have equal forms. Units and labels
    /// before `=` are left out. The form of an answer that no rule reads begins with a question
    /// mark, so that it is the form of no other.
    pub fn canonical(self, answer: &str) -> String {
        self.read(answer, &Fuel::full()).form()
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
        a == b || self.compare(a, b).equal
    }

    /// The verdict of [`Grader::equivalent`] and both forms of [`Grader::canonical`], each answer
    /// read once.
    pub fn compare(self, a: &str, b: &str) -> Comparison {
        // Each answer has its own fuel, so that its form does not depend on the other.
        let (x, y) = (self.read(a, &Fuel::full()), self.read(b, &Fuel::full()));
        let rules = Rules {
            fuel: &Fuel::full(),
            lenient: self == Grader::Qwen,
        };
        let lenient = || self == Grader::Qwen && qwen::same_text(&x, &y);
        Comparison {
            equal: a == b || rules.same(&x, &y) || lenient(),
            forms: [x.form(), y.form()],
        }
    }

    fn read(self, answer: &str, fuel: &Fuel) -> Answer {
        match self {
            Grader::Strict => Answer::read(answer, fuel),
            Grader::Qwen => Answer::read(&qwen::simplified(answer), fuel),
        }
    }
}
