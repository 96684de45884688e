//! From the solutions of one search to the answer (SEMANTICS.md, "Selections").
//!
//! Solutions without an answer are left out. Answers are grouped by the grader's canonical
//! form. Every tie is broken by a stated total order, so that a result never depends on timing:
//!
//! - *max*: score, then the earlier solution.
//! - *vote*: sum of the scores of the group, then its size, then its earliest solution.
//! - *majority*: size of the group, then its earliest solution.

use crate::{Aggregation, Grader, Solution};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// One way to read an answer off the solutions, written `last-vote`, `min-max`, `majority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Selection {
    /// The answer of the best-scored path (the paper's PRM-Max).
    Max(Aggregation),
    /// The answer whose paths have the highest sum of scores (the paper's PRM-Vote).
    Vote(Aggregation),
    /// The most frequent answer, scores unused.
    Majority,
}

impl Selection {
    /// Every selection in the order in which results are reported.
    pub fn all() -> impl Iterator<Item = Selection> {
        Aggregation::ALL
            .into_iter()
            .flat_map(|a| [Selection::Max(a), Selection::Vote(a)])
            .chain([Selection::Majority])
    }

    /// Whether it reads scores, so that it needs a reward model.
    pub fn needs_scores(self) -> bool {
        self != Selection::Majority
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selection::Max(a) => write!(f, "{}-max", a.name()),
            Selection::Vote(a) => write!(f, "{}-vote", a.name()),
            Selection::Majority => f.write_str("majority"),
        }
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Selection, String> {
        Selection::all()
            .find(|s| s.to_string() == text)
            .ok_or_else(|| {
                let names: Vec<String> = Selection::all().map(|s| s.to_string()).collect();
                format!(
                    "{text:?} is not a selection: expected one of {}",
                    names.join(", ")
                )
            })
    }
}

impl From<Selection> for String {
    fn from(selection: Selection) -> String {
        selection.to_string()
    }
}

impl TryFrom<String> for Selection {
    type Error = String;

    fn try_from(text: String) -> Result<Selection, String> {
        text.parse()
    }
}

/// The index of the solution whose answer `selection` chooses; `None` when no solution has one.
///
/// Under *vote* and *majority* it is the first solution of the winning group.
pub fn select(selection: Selection, solutions: &[Solution], grader: Grader) -> Option<usize> {
    let score = |s: &Solution| match selection {
        Selection::Max(a) | Selection::Vote(a) => a.of(&s.scores),
        Selection::Majority => 0.0,
    };
    let mut groups: Vec<Group> = Vec::new();
    let mut by_key: HashMap<String, usize> = HashMap::new();
    for (index, solution) in solutions.iter().enumerate() {
        let Some(answer) = &solution.answer else {
            continue;
        };
        let key = match selection {
            Selection::Max(_) => index.to_string(), // every path stands for itself
            Selection::Vote(_) | Selection::Majority => grader.canonical(answer),
        };
        let at = *by_key.entry(key).or_insert_with(|| {
            groups.push(Group {
                first: index,
                score: 0.0,
                size: 0,
            });
            groups.len() - 1
        });
        groups[at].score += score(solution);
        groups[at].size += 1;
    }
    let best = groups.iter().min_by(|a, b| {
        (b.score.total_cmp(&a.score))
            .then(b.size.cmp(&a.size))
            .then(a.first.cmp(&b.first))
    });
    best.map(|group| group.first)
}

/// The solutions that share an answer.
struct Group {
    first: usize,
    score: f64,
    size: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cost, Ending};

    #[test]
    fn selection_table() {
        // (selection, [(answer, scores)], index chosen); "-" is a solution without an answer
        type Case = (
            &'static str,
            &'static [(&'static str, &'static [f64])],
            Option<usize>,
        );
        let cases: &[Case] = &[
            ("majority", &[], None),
            ("majority", &[("-", &[0.9])], None),
            ("last-max", &[("-", &[0.9])], None),
            ("last-max", &[("-", &[0.9]), ("1", &[0.1])], Some(1)),
            (
                "last-max",
                &[("1", &[0.9, 0.2]), ("2", &[0.1, 0.3])],
                Some(1),
            ),
            (
                "min-max",
                &[("1", &[0.9, 0.2]), ("2", &[0.1, 0.3])],
                Some(0),
            ),
            (
                "mean-max",
                &[("1", &[0.9, 0.2]), ("2", &[0.1, 0.3])],
                Some(0),
            ),
            (
                "product-max",
                &[("1", &[0.9, 0.2]), ("2", &[0.5, 0.5])],
                Some(1),
            ),
            // ties: the earlier solution
            ("last-max", &[("1", &[0.5]), ("2", &[0.5])], Some(0)),
            // a group outweighs the best path, and max ignores groups
            (
                "last-vote",
                &[("7", &[0.9]), ("2", &[0.5]), ("2", &[0.5])],
                Some(1),
            ),
            (
                "last-max",
                &[("2", &[0.5]), ("2", &[0.5]), ("7", &[0.9])],
                Some(2),
            ),
            // spellings of one answer vote together
            (
                "last-vote",
                &[("7", &[0.9]), ("0.5", &[0.5]), ("\\frac12", &[0.5])],
                Some(1),
            ),
            (
                "majority",
                &[("7", &[]), ("1/2", &[]), ("0.5", &[])],
                Some(1),
            ),
            // vote ties: the larger group, then the earlier one
            (
                "last-vote",
                &[("1", &[0.5]), ("2", &[0.25]), ("2", &[0.25])],
                Some(1),
            ),
            ("last-vote", &[("1", &[0.5]), ("2", &[0.5])], Some(0)),
            // majority ties: first seen, scores unused
            ("majority", &[("1", &[0.1]), ("2", &[0.9])], Some(0)),
            (
                "majority",
                &[("1", &[0.1]), ("2", &[0.9]), ("2", &[0.0])],
                Some(1),
            ),
            // a path without steps counts -1
            ("last-max", &[("1", &[]), ("2", &[0.0])], Some(1)),
        ];
        let mut failures = Vec::new();
        for (selection, rows, want) in cases {
            let solutions: Vec<Solution> = rows
                .iter()
                .map(|(answer, scores)| Solution {
                    steps: vec![],
                    scores: scores.to_vec(),
                    answer: (*answer != "-").then(|| answer.to_string()),
                    extraction: None,
                    correct: None,
                    ending: Ending::Finished,
                    num_tokens: 0,
                    logprob: 0.0,
                    node: 0,
                    cost: Cost::default(),
                })
                .collect();
            let got = select(
                selection.parse().expect("a selection"),
                &solutions,
                Grader::Strict,
            );
            if got != *want {
                failures.push(format!("{selection} of {rows:?}: {got:?}, not {want:?}"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn selections_round_trip_through_their_names() {
        let names: Vec<String> = Selection::all().map(|s| s.to_string()).collect();
        assert_eq!(
            names.join(" "),
            "min-max min-vote last-max last-vote mean-max mean-vote product-max product-vote majority"
        );
        for selection in Selection::all() {
            assert_eq!(selection.to_string().parse(), Ok(selection));
        }
        assert!("median-vote".parse::<Selection>().is_err());
    }
}
