//! The lines of a sweep's files: what one search on one problem came to, without texts and times.

use std::collections::BTreeMap;

use engine::FlopRates;
use serde::{Deserialize, Serialize};
use strategies::{
    Aggregation, Config, Cost, Grader, Level, Outcome, Problem, Selection, Solution, Verdict,
};

/// The version of the lines written here.
pub const SCHEMA: u32 = 1;

/// Solutions whose scores are kept, of a strategy that writes whole solutions: what can be known of a
/// problem before much is spent on it.
pub const FIRST_SOLUTIONS: usize = 8;

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
    pub verdicts: BTreeMap<String, Option<bool>>,
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
    /// The first solutions, if the strategy writes whole ones and this is its own N.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<Candidate>,
}

/// One solution in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which of the answers it has, counted in the order in which they came; `None` without an answer.
    pub answer: Option<usize>,
    /// Whether it is right.
    pub right: Option<bool>,
    /// Tokens.
    pub tokens: usize,
    /// The scores of its steps by aggregation; empty without a PRM.
    pub scores: BTreeMap<String, f64>,
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
            let by_name = |v: &Verdict| (v.selection.to_string(), v.correct);
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
                first: Vec::new(),
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
        let mut own = record(config.n, &outcome.verdicts, all, &outcome.cost);
        if !all.is_empty() && config.strategy.writes_whole_solutions() {
            own.first = candidates(&all[..all.len().min(FIRST_SOLUTIONS)], config.grader);
        }
        records.push(own);
        records
    }

    /// Whether the answer of a selection is right.
    pub fn is_right(&self, selection: Selection) -> Option<bool> {
        *self.verdicts.get(&selection.to_string())?
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

fn candidates(solutions: &[Solution], grader: Grader) -> Vec<Candidate> {
    let mut answers: Vec<String> = Vec::new();
    let candidate = |solution: &Solution| {
        let answer = solution.answer.as_ref().map(|answer| {
            let answer = grader.canonical(answer);
            let known = answers.iter().position(|known| *known == answer);
            known.unwrap_or_else(|| {
                answers.push(answer);
                answers.len() - 1
            })
        });
        let by_name = |a: Aggregation| (a.name().to_string(), a.of(&solution.scores));
        let scored = !solution.scores.is_empty();
        Candidate {
            answer,
            right: solution.correct,
            tokens: solution.num_tokens,
            scores: (Aggregation::ALL.into_iter())
                .filter(|_| scored)
                .map(by_name)
                .collect(),
        }
    };
    solutions.iter().map(candidate).collect()
}
