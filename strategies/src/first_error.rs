//! How well a PRM finds the first wrong step of a solution: the measure of ProcessBench (Zheng et al.,
//! arXiv 2412.06559, section 3).

use serde::Serialize;

use crate::{Aggregation, Sample};

/// A solution whose steps were scored, and the first of them that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredSolution {
    /// One score for each step.
    pub scores: Vec<f64>,
    /// The index of the first wrong step; `None`: every step is right.
    pub first_error: Option<usize>,
}

/// Solutions whose first wrong step was found, and solutions without one that were passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FirstErrors {
    /// Solutions with a wrong step.
    pub erroneous: usize,
    /// Of these, those whose first wrong step was found, no step earlier and none later.
    pub found: usize,
    /// Solutions without a wrong step.
    pub correct: usize,
    /// Of these, those in which none was found.
    pub passed: usize,
}

impl FirstErrors {
    /// Compares the first step that scores below `threshold` with the labels.
    pub fn of(solutions: &[ScoredSolution], threshold: f64) -> FirstErrors {
        let mut counts = FirstErrors::default();
        for ScoredSolution {
            scores,
            first_error,
        } in solutions
        {
            let found = scores.iter().position(|&score| score < threshold);
            let right = usize::from(found == *first_error);
            match first_error {
                Some(_) => {
                    counts.erroneous += 1;
                    counts.found += right;
                }
                None => {
                    counts.correct += 1;
                    counts.passed += right;
                }
            }
        }
        counts
    }

    /// The share of erroneous solutions whose first wrong step was found; `None` without any.
    pub fn accuracy_erroneous(&self) -> Option<f64> {
        share(self.found, self.erroneous)
    }

    /// The share of correct solutions that were passed; `None` without any.
    pub fn accuracy_correct(&self) -> Option<f64> {
        share(self.passed, self.correct)
    }

    /// ProcessBench's F1: the harmonic mean of the two accuracies, not of a precision and a recall.
    /// `None` unless there are solutions of both kinds.
    pub fn f1(&self) -> Option<f64> {
        let (a, b) = (self.accuracy_erroneous()?, self.accuracy_correct()?);
        Some(if a + b > 0.0 {
            2.0 * a * b / (a + b)
        } else {
            0.0
        })
    }
}

fn share(part: usize, all: usize) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

/// The threshold with the highest F1 on labelled solutions, the lowest of several. It is the
/// lowest score (no step is below it), lies half way between two, or above them all. `None` unless there are solutions of both kinds.
pub fn best_threshold(solutions: &[ScoredSolution]) -> Option<f64> {
    let mut scores: Vec<f64> = solutions.iter().flat_map(|s| s.scores.clone()).collect();
    scores.sort_by(f64::total_cmp);
    scores.dedup();
    let between = scores.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    let (first, last) = (scores.first()?, scores.last()?);
    let mut best = None;
    for threshold in std::iter::once(*first).chain(between).chain([last + 1.0]) {
        let f1 = FirstErrors::of(solutions, threshold).f1()?;
        if best.is_none_or(|(highest, _)| f1 > highest) {
            best = Some((f1, threshold));
        }
    }
    best.map(|(_, threshold)| threshold)
}

/// Every step whose correctness the label tells, with its score: the steps before the first wrong one
/// are right, it is wrong, and those behind it are not labelled.
pub fn labelled_steps(solutions: &[ScoredSolution]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for solution in solutions {
        let wrong = solution.first_error.unwrap_or(usize::MAX);
        let steps = solution.scores.iter().enumerate();
        samples.extend(
            steps
                .take_while(|&(i, _)| i <= wrong)
                .map(|(i, &score)| Sample {
                    score,
                    right: i < wrong,
                }),
        );
    }
    samples
}

/// Of the pairs of a correct and an erroneous solution of one problem, in how many the correct one has
/// the higher value, ties half: what choosing among solutions asks of a PRM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ranking {
    /// Pairs.
    pub pairs: usize,
    /// Of these, those in the right order.
    pub ordered: f64,
}

impl Ranking {
    /// Ranks the solutions of one problem.
    pub fn add(&mut self, of_problem: &[&ScoredSolution], aggregation: Aggregation) {
        for right in of_problem.iter().filter(|s| s.first_error.is_none()) {
            for wrong in of_problem.iter().filter(|s| s.first_error.is_some()) {
                let (right, wrong) = (aggregation.of(&right.scores), aggregation.of(&wrong.scores));
                self.pairs += 1;
                self.ordered += match right.total_cmp(&wrong) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
    }

    /// The share in the right order; `None` without a pair.
    pub fn share(&self) -> Option<f64> {
        (self.pairs > 0).then(|| self.ordered / self.pairs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solution(scores: &[f64], label: i64) -> ScoredSolution {
        ScoredSolution {
            scores: scores.to_vec(),
            first_error: usize::try_from(label).ok(),
        }
    }

    fn solutions() -> Vec<ScoredSolution> {
        vec![
            solution(&[0.9, 0.4, 0.8], 1),
            // Found too early, too late, not at all.
            solution(&[0.4, 0.3], 1),
            solution(&[0.6, 0.9, 0.1], 0),
            solution(&[0.6, 0.7], 0),
            solution(&[0.9, 0.8], -1),
            solution(&[0.9, 0.45], -1),
        ]
    }

    #[test]
    fn f1_is_the_harmonic_mean_of_two_accuracies() {
        let counts = FirstErrors::of(&solutions(), 0.5);
        let expected = FirstErrors {
            erroneous: 4,
            found: 1,
            correct: 2,
            passed: 1,
        };
        assert_eq!(counts, expected);
        assert_eq!(counts.f1(), Some(2.0 * 0.25 * 0.5 / 0.75));
        // A step at the threshold is not below it.
        let at = [solution(&[0.5], -1), solution(&[0.4], 0)];
        assert_eq!(FirstErrors::of(&at, 0.5).f1(), Some(1.0));
        assert_eq!(FirstErrors::of(&at[..1], 0.5).f1(), None);
        assert_eq!(FirstErrors::of(&at, 2.0).f1(), Some(0.0));
    }

    #[test]
    fn the_best_threshold_parts_best() {
        let parted = [solution(&[0.9, 0.3], -1), solution(&[0.9, 0.2], 1)];
        assert_eq!(best_threshold(&parted), Some(0.25));
        // Every erroneous solution can be found only by a threshold above all scores.
        let inverted = [
            solution(&[0.9], 0),
            solution(&[0.1], -1),
            solution(&[0.95], -1),
        ];
        let threshold = best_threshold(&inverted).expect("both kinds");
        let f1 = |t| FirstErrors::of(&inverted, t).f1();
        for other in [0.05, 0.5, 0.92, 2.0] {
            assert!(f1(threshold) >= f1(other), "{threshold} {other}");
        }
        assert_eq!(best_threshold(&parted[..1]), None);
        assert_eq!(best_threshold(&[]), None);
    }

    #[test]
    fn steps_behind_the_first_error_have_no_label() {
        let found = labelled_steps(&solutions()[..2]);
        let found: Vec<(f64, bool)> = found.iter().map(|s| (s.score, s.right)).collect();
        assert_eq!(
            found,
            [(0.9, true), (0.4, false), (0.4, true), (0.3, false)]
        );
    }

    #[test]
    fn pairs_of_one_problem_are_ranked() {
        let all = solutions();
        let mut ranking = Ranking::default();
        // 0.8 of the correct one against the last scores 0.8, 0.3, 0.1, 0.7: a tie and three.
        ranking.add(&all[..5].iter().collect::<Vec<_>>(), Aggregation::Last);
        assert_eq!((ranking.pairs, ranking.ordered), (4, 3.5));
        ranking.add(&all[4..].iter().collect::<Vec<_>>(), Aggregation::Last);
        assert_eq!(ranking.share(), Some(3.5 / 4.0));
        assert_eq!(Ranking::default().share(), None);
    }
}
