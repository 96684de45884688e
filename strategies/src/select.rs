//! From the solutions of one search to the answer (SEMANTICS.md, "Selections").
//!
//! Solutions without an answer are left out. Answers are grouped by the grader's canonical
//! form. Every tie is broken by a stated total order, so that a result never depends on timing:
//!
//! - *max*: score, then the earlier solution.
//! - *vote*: sum of the scores of the group, then its size, then its earliest solution.
//! - *majority*: size of the group, then its earliest solution.
//!
//! A score is a PRM's, aggregated over the steps, or the policy's own confidence.

use crate::{Aggregation, Ending, Grader, Solution};
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
    /// The answer of the solution with the highest confidence.
    ConfidenceMax(ConfidenceKind),
    /// The answer whose solutions have the highest sum of weights by their confidence.
    ConfidenceVote(ConfidenceKind),
}

/// The confidence of a solution that a selection goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfidenceKind {
    /// [`SolutionConfidence::self_certainty`](crate::SolutionConfidence::self_certainty). A vote is a
    /// Borda vote: the solution of rank r (from 1, the surest first) of N weighs (N − r + 1)^p.
    SelfCertainty,
    /// [`SolutionConfidence::tail`](crate::SolutionConfidence::tail), which is the weight of a vote.
    Tail,
}

/// p of the Borda vote: the default of the authors' code (backprop07/Self-Certainty,
/// `src/voting_from_list.py`). With 0 it is the majority, and the larger it is the more like the maximum.
const BORDA_POWER: f64 = 0.5;

impl ConfidenceKind {
    const ALL: [ConfidenceKind; 2] = [ConfidenceKind::SelfCertainty, ConfidenceKind::Tail];

    fn name(self) -> &'static str {
        match self {
            ConfidenceKind::SelfCertainty => "self-certainty",
            ConfidenceKind::Tail => "tail-confidence",
        }
    }

    /// 0, as of a uniform distribution, for a solution without confidences.
    fn of(self, solution: &Solution) -> f64 {
        solution.confidence.map_or(0.0, |confidence| match self {
            ConfidenceKind::SelfCertainty => confidence.self_certainty,
            ConfidenceKind::Tail => confidence.tail,
        })
    }
}

impl Selection {
    /// Every selection in the order in which results are reported.
    pub fn all() -> impl Iterator<Item = Selection> {
        Aggregation::ALL
            .into_iter()
            .flat_map(|a| [Selection::Max(a), Selection::Vote(a)])
            .chain([Selection::Majority])
            .chain(
                (ConfidenceKind::ALL.into_iter())
                    .flat_map(|k| [Selection::ConfidenceMax(k), Selection::ConfidenceVote(k)]),
            )
    }

    /// Whether it reads scores, so that it needs a reward model.
    pub fn needs_scores(self) -> bool {
        matches!(self, Selection::Max(_) | Selection::Vote(_))
    }

    /// Whether it reads the confidences of solutions.
    pub fn needs_confidences(self) -> bool {
        matches!(
            self,
            Selection::ConfidenceMax(_) | Selection::ConfidenceVote(_)
        )
    }

    /// Whether it counts or weighs answers; else it chooses one solution.
    pub(crate) fn is_vote(self) -> bool {
        !matches!(self, Selection::Max(_) | Selection::ConfidenceMax(_))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selection::Max(a) => write!(f, "{}-max", a.name()),
            Selection::Vote(a) => write!(f, "{}-vote", a.name()),
            Selection::Majority => f.write_str("majority"),
            Selection::ConfidenceMax(k) => write!(f, "{}-max", k.name()),
            Selection::ConfidenceVote(k) => write!(f, "{}-vote", k.name()),
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

/// The solution whose answer a selection chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selected {
    /// Its index: under *vote* and *majority* the first solution of the winning group.
    pub index: usize,
    /// How much of what the solutions could say is for the answer, from 0 to 1 with a PRM's probabilities:
    /// its score under *max*, the sum of the group's scores by the number of solutions under *vote*, the
    /// group's share of the solutions under *majority*; `None` by confidences, which have no bound.
    pub support: Option<f64>,
}

/// What `selection` chooses; `None` when no solution has an answer.
///
/// Solutions of low confidence ([`Ending::LowConfidence`]) are left out.
pub fn select(selection: Selection, solutions: &[Solution], grader: Grader) -> Option<Selected> {
    let scores = scores(selection, solutions);
    let mut groups: Vec<Group> = Vec::new();
    let mut by_key: HashMap<String, usize> = HashMap::new();
    for (index, solution) in solutions.iter().enumerate() {
        let Some(answer) = &solution.answer else {
            continue;
        };
        if solution.ending == Ending::LowConfidence {
            continue;
        }
        let key = match selection.is_vote() {
            true => grader.canonical(answer),
            false => index.to_string(), // every path stands for itself
        };
        let at = *by_key.entry(key).or_insert_with(|| {
            groups.push(Group {
                first: index,
                score: 0.0,
                size: 0,
            });
            groups.len() - 1
        });
        groups[at].score += scores[index];
        groups[at].size += 1;
    }
    let best = groups.iter().min_by(|a, b| {
        (b.score.total_cmp(&a.score))
            .then(b.size.cmp(&a.size))
            .then(a.first.cmp(&b.first))
    });
    let count = solutions.len() as f64;
    best.map(|group| Selected {
        index: group.first,
        support: match selection {
            Selection::Max(_) => Some(group.score),
            Selection::Vote(_) => Some(group.score / count),
            Selection::Majority => Some(group.size as f64 / count),
            Selection::ConfidenceMax(_) | Selection::ConfidenceVote(_) => None,
        },
    })
}

/// What each solution adds to its group.
fn scores(selection: Selection, solutions: &[Solution]) -> Vec<f64> {
    let of = |score: &dyn Fn(&Solution) -> f64| solutions.iter().map(score).collect();
    match selection {
        Selection::Max(a) | Selection::Vote(a) => of(&|solution| a.of(&solution.scores)),
        Selection::Majority => of(&|_| 0.0),
        Selection::ConfidenceVote(ConfidenceKind::SelfCertainty) => borda(
            &of(&|solution| ConfidenceKind::SelfCertainty.of(solution)),
            BORDA_POWER,
        ),
        Selection::ConfidenceMax(k) | Selection::ConfidenceVote(k) => {
            of(&|solution| k.of(solution))
        }
    }
}

/// The weights of a Borda vote: (N − r + 1)^p for the r-th largest of N values. Of equal values the earlier
/// is the larger. Solutions without an answer have their rank as well, as in the authors' code.
fn borda(values: &[f64], power: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut weights = vec![0.0; values.len()];
    for (rank, index) in order.into_iter().enumerate() {
        weights[index] = ((values.len() - rank) as f64).powf(power);
    }
    weights
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
    use crate::{Cost, SolutionConfidence};

    /// "-" is a solution without an answer.
    fn solution(answer: &str, scores: Vec<f64>) -> Solution {
        Solution {
            steps: vec![],
            scores,
            answer: (answer != "-").then(|| answer.to_string()),
            extraction: None,
            correct: None,
            ending: Ending::Finished,
            num_tokens: 0,
            logprob: 0.0,
            node: 0,
            cost: Cost::default(),
            confidence: None,
        }
    }

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
                .map(|(answer, scores)| solution(answer, scores.to_vec()))
                .collect();
            let got = select(
                selection.parse().expect("a selection"),
                &solutions,
                Grader::Strict,
            )
            .map(|selected| selected.index);
            if got != *want {
                failures.push(format!("{selection} of {rows:?}: {got:?}, not {want:?}"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn support_table() {
        // (selection, [(answer, score)], support)
        type Case = (&'static str, &'static [(&'static str, f64)], Option<f64>);
        let rows = &[("7", 0.9), ("2", 0.5), ("2", 0.5), ("-", 1.0)][..];
        let cases: &[Case] = &[
            ("majority", &[], None),
            ("last-vote", &[("-", 0.9)], None),
            // The group of 2 has 1.0 of 4 solutions, and half of them.
            ("last-vote", rows, Some(0.25)),
            ("last-max", rows, Some(0.9)),
            ("majority", rows, Some(0.5)),
            ("last-vote", &[("1", 0.0)], Some(0.0)),
            ("tail-confidence-vote", rows, None),
        ];
        for &(selection, rows, expected) in cases {
            let solutions: Vec<Solution> = (rows.iter())
                .map(|&(answer, score)| solution(answer, vec![score]))
                .collect();
            let selection = selection.parse().expect("a selection");
            let found = select(selection, &solutions, Grader::Strict);
            let support = found.and_then(|selected| selected.support);
            assert_eq!(support, expected, "{selection} of {rows:?}");
        }
    }

    #[test]
    fn confidence_table() {
        // (selection, [(answer, self-certainty, tail)], index chosen); "-" has no answer, "~" before an
        // answer is a solution of low confidence.
        type Row = (&'static str, f64, f64);
        let cases: &[(&str, &[Row], Option<usize>)] = &[
            ("self-certainty-max", &[], None),
            ("self-certainty-max", &[("-", 9.0, 9.0)], None),
            (
                "self-certainty-max",
                &[("-", 9.0, 1.0), ("1", 2.0, 9.0), ("2", 3.0, 1.0)],
                Some(2),
            ),
            (
                "tail-confidence-max",
                &[("1", 2.0, 9.0), ("2", 3.0, 1.0), ("3", 1.0, 9.0)],
                Some(0),
            ),
            // Weights of ranks 1 to 4: 2, 1.73, 1.41, 1. The surest against two others: 2 < 2.73.
            (
                "self-certainty-vote",
                &[
                    ("1", 8.0, 0.0),
                    ("2", 7.0, 0.0),
                    ("-", 6.0, 0.0),
                    ("2", 5.0, 0.0),
                ],
                Some(1),
            ),
            // 2 + 1 against 1.73 + 1.41 = 3.15.
            (
                "self-certainty-vote",
                &[
                    ("1", 8.0, 0.0),
                    ("2", 7.0, 0.0),
                    ("2", 6.0, 0.0),
                    ("1", 5.0, 0.0),
                ],
                Some(1),
            ),
            // By the sums of the tails themselves: 4 against 3.5.
            (
                "tail-confidence-vote",
                &[("1", 0.0, 4.0), ("2", 0.0, 2.0), ("2", 0.0, 1.5)],
                Some(0),
            ),
            // Equal sums: the larger group.
            (
                "tail-confidence-vote",
                &[("1", 0.0, 3.5), ("2", 0.0, 2.0), ("2", 0.0, 1.5)],
                Some(1),
            ),
            // Low confidence does not vote, in no selection.
            (
                "tail-confidence-vote",
                &[("~1", 0.0, 9.0), ("2", 0.0, 2.0)],
                Some(1),
            ),
            (
                "self-certainty-max",
                &[("~1", 9.0, 9.0), ("2", 0.0, 2.0)],
                Some(1),
            ),
            (
                "majority",
                &[("~1", 9.0, 9.0), ("~1", 9.0, 9.0), ("2", 0.0, 2.0)],
                Some(2),
            ),
            ("majority", &[("~1", 9.0, 9.0)], None),
        ];
        for (selection, rows, expected) in cases {
            let solutions: Vec<Solution> = (rows.iter())
                .map(|&(answer, self_certainty, tail)| Solution {
                    steps: vec![],
                    scores: vec![],
                    answer: (answer != "-").then(|| answer.trim_start_matches('~').to_string()),
                    extraction: None,
                    correct: None,
                    ending: match answer.starts_with('~') {
                        true => Ending::LowConfidence,
                        false => Ending::Finished,
                    },
                    num_tokens: 0,
                    logprob: 0.0,
                    node: 0,
                    cost: Cost::default(),
                    confidence: Some(SolutionConfidence {
                        self_certainty,
                        tail,
                        lowest_window: 0.0,
                    }),
                })
                .collect();
            let selection = selection.parse().expect("a selection");
            let found = select(selection, &solutions, Grader::Strict).map(|s| s.index);
            assert_eq!(found, *expected, "{selection} of {rows:?}");
        }
    }

    #[test]
    fn borda_table() {
        let weights = |values: &[f64]| borda(values, 2.0);
        assert_eq!(weights(&[]), [] as [f64; 0]);
        assert_eq!(weights(&[0.5]), [1.0]);
        assert_eq!(weights(&[0.1, 0.3, 0.2]), [1.0, 9.0, 4.0]);
        // Of equal values the earlier has the better rank.
        assert_eq!(weights(&[0.2, 0.3, 0.2]), [4.0, 9.0, 1.0]);
        assert_eq!(borda(&[0.2, 0.3], 0.0), [1.0, 1.0]);
    }

    #[test]
    fn selections_round_trip_through_their_names() {
        let names: Vec<String> = Selection::all().map(|s| s.to_string()).collect();
        assert_eq!(
            names.join(" "),
            "min-max min-vote last-max last-vote mean-max mean-vote product-max product-vote majority \
             self-certainty-max self-certainty-vote tail-confidence-max tail-confidence-vote"
        );
        for selection in Selection::all() {
            assert_eq!(selection.to_string().parse(), Ok(selection));
        }
        assert!("median-vote".parse::<Selection>().is_err());
    }
}
