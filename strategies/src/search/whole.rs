//! Whole solutions, written in one go: what CoT, majority vote and best-of-N share.

use super::{Live, Search, scored};
use crate::adaptive::solutions_needed;
use crate::confidence::bar;
use crate::stop::weighted_vote_is_unbeatable;
use crate::trace::{Node, NodeState, Trace};
use crate::{
    Aggregation, Confidences, Config, Ending, Error, Policy, Prm, Selection, Solution,
    SolutionConfidence, StepEnd, StepParams, StopRule,
};
use futures::future::try_join_all;
use std::collections::HashMap;

impl<P: Policy, R: Prm> Search<'_, P, R> {
    /// Writes `count` solutions, or fewer where [`Config::stop_rule`] says that they settle the vote;
    /// with a PRM each is scored as soon as it is written. Solution i does not depend on `count`. With
    /// [`Config::confidence_bar`] the first ones are the warm-up, and the others end where they fall
    /// below the bar.
    ///
    /// A solution is split into steps at the delimiter; empty pieces are dropped. A solution cut by
    /// the token limit is kept (SEMANTICS.md, "Whole solutions").
    ///
    /// # Errors
    /// A failure of either model.
    pub async fn write_solutions(&self, count: usize) -> Result<Vec<Solution>, Error> {
        self.write_more(Vec::new(), count).await
    }

    /// As [`write_solutions`](Search::write_solutions), of which the first are there.
    ///
    /// # Errors
    /// As [`write_solutions`](Search::write_solutions).
    pub(crate) async fn write_more(
        &self,
        mut solutions: Vec<Solution>,
        count: usize,
    ) -> Result<Vec<Solution>, Error> {
        let start = self.start().await?;
        // Those that are there had the first forks.
        (0..solutions.len()).for_each(|_| drop(self.policy.fork(&start.policy)));
        let mut is_warm = self.is_warm();
        self.opened.inspect(|stem| stem.is_used.set(true));
        let mut root = Some(start);
        let mut confidences = match self.config.records_confidences() {
            true => Confidences::Record,
            false => Confidences::None,
        };
        while let Some(start) = root.take() {
            let enough = self.enough(&solutions).min(count);
            let until = self.next_round(solutions.len()).min(enough);
            let branches = (solutions.len()..until).map(|_| self.policy.fork(&start.policy));
            let branches: Vec<P::Branch> = branches.collect();
            // Computed for the first round once; each later branch computes it again.
            let rows = if is_warm { branches.len() } else { 1 };
            is_warm = true;
            self.count_last_row(&start.policy, rows);
            let Live { policy, prm } = start;
            // The last round frees what its branches do not hold.
            let policy = (until < count).then_some(policy);
            let writing = branches
                .into_iter()
                .map(|branch| self.write_and_score(branch, prm.as_ref(), confidences));
            solutions.extend(try_join_all(writing).await?);
            if let (Confidences::Record, Some(eta)) = (confidences, self.config.confidence_bar) {
                confidences = self.stop_below(&solutions, eta);
            }
            root = policy
                .filter(|_| solutions.len() < self.enough(&solutions))
                .filter(|_| !self.is_settled(&solutions, count))
                .map(|policy| Live { policy, prm });
        }
        let mut trace = self.trace.borrow_mut();
        for solution in &mut solutions {
            if let Confidences::StopBelow { bar, .. } = confidences
                && solution.confidence.is_some_and(|c| c.lowest_window < bar)
            {
                solution.ending = Ending::LowConfidence;
            }
            solution.node = add_chain(&mut trace, solution, fate(solution.ending));
        }
        Ok(solutions)
    }

    /// The solutions that [`Config::calibration`] asks for: by the mean probability of success after the
    /// first step, over the solutions that are there.
    fn enough(&self, solutions: &[Solution]) -> usize {
        let Some(map) = self.config.calibration.as_ref() else {
            return usize::MAX;
        };
        if solutions.is_empty() {
            return usize::MAX;
        }
        let first = solutions
            .iter()
            .filter_map(|solution| solution.scores.first());
        let sum: f64 = first.map(|&score| map.probability(score)).sum();
        solutions_needed(sum / solutions.len() as f64, self.config.confidence)
    }

    /// The solutions that are there when the next look is taken, once `written` are there.
    fn next_round(&self, written: usize) -> usize {
        match (self.config.confidence_bar, written) {
            (None, _) if self.config.calibration.is_some() => StopRule::Beta.next_check(written),
            (None, _) => self.config.stop_rule.next_check(written),
            (Some(_), 0) => self.config.confidence_warmup,
            (Some(_), _) => usize::MAX,
        }
    }

    /// The bar of this warm-up.
    fn stop_below(&self, warmup: &[Solution], eta: f64) -> Confidences {
        let confidences = warmup.iter().filter_map(|solution| solution.confidence);
        let lowest: Vec<f64> = confidences.map(|c| c.lowest_window).collect();
        Confidences::StopBelow {
            bar: bar(&lowest, eta),
            window: self.config.confidence_window,
        }
    }

    /// Whether more solutions, `count` in all, are not needed.
    fn is_settled(&self, solutions: &[Solution], count: usize) -> bool {
        let Config {
            grader,
            delimiter,
            stop_rule,
            ..
        } = self.config;
        let answered: Vec<(String, &Solution)> = (solutions.iter())
            .filter_map(|solution| {
                let answer = grader.answer(&solution.steps.join(delimiter))?;
                Some((grader.canonical(&answer), solution))
            })
            .collect();
        let left = count - solutions.len();
        // Scores beyond [0, 1] have no bound that what is left could be held to.
        let bounded = |a: Aggregation| {
            let scores = answered.iter().map(|(_, solution)| a.of(&solution.scores));
            scores.into_iter().all(|score| (0.0..=1.0).contains(&score))
        };
        match (stop_rule, self.config.selection_or_default()) {
            (StopRule::Unbeatable, Selection::Vote(a)) => {
                let weights = sums(&answered, |solution| a.of(&solution.scores));
                bounded(a) && weighted_vote_is_unbeatable(&weights, left)
            }
            // Of equal scores the earlier solution is chosen.
            (StopRule::Unbeatable, Selection::Max(a)) => {
                let mut best = answered.iter().map(|(_, solution)| a.of(&solution.scores));
                bounded(a) && best.any(|score| score == 1.0)
            }
            _ => {
                let counts = sums(&answered, |_| 1.0);
                let mut votes: Vec<usize> = counts.into_iter().map(|c| c as usize).collect();
                votes.sort_unstable_by(|a, b| b.cmp(a));
                stop_rule.settles(&votes, left)
            }
        }
    }

    async fn write_and_score(
        &self,
        branch: P::Branch,
        prm_root: Option<&R::Branch>,
        confidences: Confidences,
    ) -> Result<Solution, Error> {
        let mut solution = self.write_solution(branch, confidences).await?;
        if let (Some(prm), Some(prm_root)) = (self.prm, prm_root) {
            let steps: Vec<&str> = solution.steps.iter().map(String::as_str).collect();
            let mut branch = prm.fork(prm_root);
            solution.scores = self.score(&mut branch, &steps).await?;
            let rows = prm.num_tokens(prm_root)..prm.num_tokens(&branch);
            solution.cost.prm = scored(rows, steps.len());
        }
        self.report_solution(&solution);
        Ok(solution)
    }

    async fn write_solution(
        &self,
        mut branch: P::Branch,
        confidences: Confidences,
    ) -> Result<Solution, Error> {
        let params = StepParams {
            delimiter: None,
            include_delimiter: true,
            max_tokens: self.config.max_tokens,
            begun: 0,
            sampling: self.config.sampling,
            confidences,
        };
        let (whole, cost) = self.write(&mut branch, &params).await?;
        Ok(Solution {
            steps: steps_of(&whole.text, &self.config.delimiter),
            scores: Vec::new(),
            answer: None,
            extraction: None,
            correct: None,
            ending: ending(whole.end),
            num_tokens: whole.num_tokens,
            logprob: whole.logprob,
            node: 0,
            cost,
            confidence: SolutionConfidence::of(&whole.confidences, self.config.confidence_window),
        })
    }
}

/// The sum of `weight` over the solutions of each answer, in no order.
fn sums(answered: &[(String, &Solution)], weight: impl Fn(&Solution) -> f64) -> Vec<f64> {
    let mut sums: HashMap<&str, f64> = HashMap::new();
    for (answer, solution) in answered {
        *sums.entry(answer).or_default() += weight(solution);
    }
    sums.into_values().collect()
}

/// The steps of a solution that was written in one go: trimmed, without empty ones.
pub(super) fn steps_of(text: &str, delimiter: &str) -> Vec<String> {
    let pieces = text.split(delimiter).map(str::trim);
    pieces.filter(|s| !s.is_empty()).map(String::from).collect()
}

/// How a solution ended whose last part ended so.
pub(crate) fn ending(end: StepEnd) -> Ending {
    match end {
        StepEnd::Eos | StepEnd::Delimiter => Ending::Finished,
        StepEnd::Length => Ending::LengthCut,
        StepEnd::LowConfidence => Ending::LowConfidence,
    }
}

/// The fate of the last step of a solution that ended so.
pub(super) fn fate(ending: Ending) -> NodeState {
    match ending {
        Ending::Finished => NodeState::Finished,
        Ending::LowConfidence => NodeState::Dropped,
        _ => NodeState::LengthCut,
    }
}

/// Adds a solution to the trace as a chain of steps below the stem; returns its last node, which has the
/// fate `state`.
pub(super) fn add_chain(trace: &mut Trace, solution: &Solution, state: NodeState) -> usize {
    let nothing = [String::new()]; // a solution without steps still has its tokens
    let texts = if solution.steps.is_empty() {
        &nothing
    } else {
        solution.steps.as_slice()
    };
    let last = texts.len() - 1;
    let mut end = 0;
    for (i, text) in texts.iter().enumerate() {
        let state = if i < last { NodeState::Kept } else { state };
        let tokens = if i == last { solution.num_tokens } else { 0 };
        let reward = solution.scores.get(i).copied();
        let node = Node {
            reward,
            value: reward,
            ..Node::new(text.clone(), tokens, state)
        };
        end = trace.add(end, node);
    }
    end
}
