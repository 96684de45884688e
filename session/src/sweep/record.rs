//! The lines of a sweep's files: what one search on one problem came to, without texts and times.

use std::collections::BTreeMap;

use engine::FlopRates;
use serde::{Deserialize, Serialize};
use strategies::{Config, Cost, Level, Outcome, Problem, Selection, Solution, Verdict};

/// The version of the lines written here.
pub const SCHEMA: u32 = 1;

/// One problem at one budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The problem's id.
    pub id: String,
    /// Its difficulty, if known.
    pub level: Option<Level>,
    /// N: that of the search, or a smaller one whose solutions are the search's first.
    pub n: usize,
    /// Whether the answer by the search's own selection is right; `None` if the problem has no known
    /// answer, and so below.
    pub correct: Option<bool>,
    /// By selection.
    pub verdicts: BTreeMap<String, Judged>,
    /// Solutions found.
    pub solutions: usize,
    /// Those that are right.
    pub right: Option<usize>,
    /// Tokens that the policy drew.
    pub policy_tokens: u64,
    /// Tokens that the PRM computed.
    pub prm_tokens: u64,
    /// Floating-point operations of the policy, prompts and attention included.
    pub policy_flops: u64,
    /// Those of the PRM.
    pub prm_flops: u64,
    /// The part of `policy_flops` that reading the problem was.
    pub policy_stem_flops: u64,
    /// The same of `prm_flops`.
    pub prm_stem_flops: u64,
}

/// The answer by one selection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Whether it is right.
    pub correct: Option<bool>,
    /// How much of what the solutions could say is for it ([`strategies::Selected::support`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub support: Option<f32>,
}

/// What the rows of the two models cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// The policy's.
    pub policy: FlopRates,
    /// The PRM's.
    pub prm: FlopRates,
}

impl Record {
    /// A record for each of `budgets`, the search's own last.
    pub fn of(
        problem: &Problem,
        outcome: &Outcome,
        config: &Config,
        budgets: &[usize],
        rates: &Rates,
    ) -> Vec<Record> {
        let graded = problem.answer.is_some();
        let record = |n: usize, verdicts: &[Verdict], solutions: &[Solution], cost: &Cost| {
            let by_name = |v: &Verdict| {
                let judged = Judged {
                    correct: v.correct,
                    support: v.support.map(|support| support as f32),
                };
                (v.selection.to_string(), judged)
            };
            let chosen = verdicts.iter().find(|v| v.selection == outcome.selection);
            let right = solutions.iter().filter(|s| s.correct == Some(true)).count();
            Record {
                schema: SCHEMA,
                id: problem.id.clone(),
                level: problem.level.clone(),
                n,
                correct: chosen.and_then(|v| v.correct),
                verdicts: verdicts.iter().map(by_name).collect(),
                solutions: solutions.len(),
                right: graded.then_some(right),
                policy_tokens: cost.drawn,
                prm_tokens: cost.prm.tokens,
                policy_flops: rates.policy.of(&cost.policy),
                prm_flops: rates.prm.of(&cost.prm),
                policy_stem_flops: rates.policy.of(&outcome.stem.policy),
                prm_stem_flops: rates.prm.of(&outcome.stem.prm),
            }
        };
        let all = &outcome.solutions;
        let smaller = outcome.by_n.iter().filter(|row| budgets.contains(&row.n));
        let mut records: Vec<Record> = smaller
            .map(|row| {
                let count = count_at(config, row.n).min(all.len());
                record(row.n, &row.verdicts, &all[..count], &row.cost)
            })
            .collect();
        records.push(record(config.n, &outcome.verdicts, all, &outcome.cost));
        records
    }

    /// Whether the answer of a selection is right.
    pub fn is_right(&self, selection: Selection) -> Option<bool> {
        self.verdicts.get(&selection.to_string())?.correct
    }

    /// Floating-point operations of both models.
    pub fn flops(&self) -> u64 {
        self.policy_flops + self.prm_flops
    }
}

/// How many solutions a smaller budget has.
fn count_at(config: &Config, n: usize) -> usize {
    let budgets = strategies::smaller_budgets(config);
    let found = budgets.into_iter().find(|&(budget, _)| budget == n);
    found.map_or(0, |(_, count)| count)
}
