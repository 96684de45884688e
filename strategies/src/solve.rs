//! One problem, from its text to its answer.

use crate::{
    Choice, Config, Cost, Error, ExtractionCounts, ExtractionRule, Grader, News, Policy, Prm,
    Problem, Search, Selection, SolutionConfidence, Trace, count_extractions, select,
    smaller_budgets,
};
use serde::{Deserialize, Serialize};

/// Everything one search gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The solutions found, in a fixed order: branches for best-of-N and majority, trees for
    /// DVTS, the order of finishing (then branches) for beam search.
    pub solutions: Vec<Solution>,
    /// Every aggregation and selection.
    pub verdicts: Vec<Verdict>,
    /// The selection that counts.
    #[serde(alias = "rule")]
    pub selection: Selection,
    /// Its answer; `None` when no solution has one.
    pub prediction: Option<String>,
    /// The rule that found it in its solution; `None` when no solution has an answer, and in
    /// results of earlier releases.
    #[serde(default)]
    pub extraction: Option<ExtractionRule>,
    /// Whether it is right; `None` when the problem has no known answer.
    pub correct: Option<bool>,
    /// The verdicts of smaller budgets N', from the first solutions of this run.
    pub by_n: Vec<Subsample>,
    /// Which grader compared answers.
    pub grader: Grader,
    /// Tokens the policy wrote: kept, dropped, duplicate and looked ahead.
    pub policy_tokens: usize,
    /// Tokens given to the PRM, each once per read: the problem and the steps; 0 without a PRM.
    #[serde(default)]
    pub prm_tokens: usize,
    /// What it cost, alone; nothing in results of earlier releases.
    #[serde(default)]
    pub cost: Cost,
    /// Its part that opening the problem cost: both models' prompts, without the last row. Another search
    /// of the problem that runs beside this one does not compute it again.
    #[serde(default)]
    pub stem: Cost,
    /// What the strategy auto chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// The tree.
    pub trace: Trace,
}

/// One path from the stem to an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Solution {
    /// Its steps, trimmed.
    pub steps: Vec<String>,
    /// The PRM's score of each step; empty without a PRM.
    pub scores: Vec<f64>,
    /// Its answer, as the grader reads it off the steps.
    pub answer: Option<String>,
    /// The rule that found it; `None` in results of earlier releases.
    #[serde(default)]
    pub extraction: Option<ExtractionRule>,
    /// Whether that is right; `None` when the problem has no known answer.
    pub correct: Option<bool>,
    /// Why it ended.
    pub ending: Ending,
    /// Policy tokens along the path.
    #[serde(alias = "tokens")]
    pub num_tokens: usize,
    /// Sum of their log-probabilities under the policy's own distribution (temperature 1), in nats.
    pub logprob: f64,
    /// Its last node in the trace.
    pub node: usize,
    /// Its own part of the search's cost, where it does not depend on N (best-of-N, majority, DVTS); else
    /// nothing.
    #[serde(default, skip_serializing_if = "Cost::is_nothing")]
    pub cost: Cost,
    /// How sure the policy was of it; `None` where nothing asked for it, and in results of earlier
    /// releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<SolutionConfidence>,
}

impl Outcome {
    /// How many solutions' answers each rule found, those without an answer included.
    pub fn extractions(&self) -> ExtractionCounts {
        count_extractions(self.solutions.iter().filter_map(|s| s.extraction))
    }
}

/// Why a path ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// End of sequence, or a step with an answer.
    Finished,
    /// The token limit.
    LengthCut,
    /// The step limit.
    StepLimit,
    /// No try gave a valid next step.
    DeadEnd,
    /// Its confidence fell below the bar of [`Config::confidence_bar`]: it ended there or, in the warm-up,
    /// was written to its end, and it does not vote.
    LowConfidence,
}

/// The answer that one selection gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The selection.
    #[serde(alias = "rule")]
    pub selection: Selection,
    /// The solution it points at.
    pub solution: Option<usize>,
    /// How much of what the solutions could say is for its answer ([`Selected::support`](crate::Selected::support)); `None` without
    /// an answer, and in results of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub support: Option<f64>,
    /// That solution's answer.
    pub prediction: Option<String>,
    /// Whether it is right; `None` when the problem has no known answer.
    pub correct: Option<bool>,
}

/// The verdicts of the run with a smaller budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subsample {
    /// N'.
    pub n: usize,
    /// What the run with N' costs; nothing in results of earlier releases.
    #[serde(default)]
    pub cost: Cost,
    /// Every aggregation and selection over its solutions.
    pub verdicts: Vec<Verdict>,
}

/// Searches for the answer of `problem` with `config.strategy`. Without a reward model say
/// `None::<&NoPrm>`.
///
/// Dropping the future drops every branch.
///
/// # Errors
/// Options that cannot be honoured, a missing PRM, and failures of the two models.
pub async fn solve<P: Policy, R: Prm>(
    policy: &P,
    prm: Option<&R>,
    problem: &Problem,
    config: &Config,
) -> Result<Outcome, Error> {
    solve_watched(policy, prm, problem, config, &|_| ()).await
}

/// As [`solve`]; `watch` sees the news of the search.
///
/// # Errors
/// As [`solve`].
pub async fn solve_watched<P: Policy, R: Prm>(
    policy: &P,
    prm: Option<&R>,
    problem: &Problem,
    config: &Config,
    watch: &dyn Fn(News<'_>),
) -> Result<Outcome, Error> {
    let search = Search::new(policy, prm, problem, config)?.watched(watch);
    let solutions = config.strategy.run(&search).await?;
    Ok(search.outcome(solutions))
}

impl<P: Policy, R: Prm> Search<'_, P, R> {
    /// The end of a search: reads the solutions' answers, grades them and makes every selection.
    pub fn outcome(self, mut solutions: Vec<Solution>) -> Outcome {
        if !self.solutions_reported.get() {
            solutions
                .iter()
                .for_each(|solution| self.report_solution(solution));
        }
        self.read_answers(&mut solutions);
        let Search {
            config, problem, ..
        } = self;
        let choice = self.choice.get();
        // What auto chose may have no scores.
        let strategy = choice.map_or(config.strategy, |choice| choice.strategy);
        let scored = strategy.needs_prm();
        let verdicts = verdicts(&solutions, config, problem, scored);
        let selection = choice.map_or(config.selection_or_default(), |choice| choice.selection);
        let chosen = verdicts.iter().find(|v| v.selection == selection);
        let total = self.cost.get();
        let mut trace = self.trace.into_inner();
        if let Some(index) = chosen.and_then(|verdict| verdict.solution) {
            trace.choose(solutions[index].node);
        }
        let by_n = smaller_budgets(config).into_iter().map(|(n, count)| {
            let first = &solutions[..count.min(solutions.len())];
            let verdicts = self::verdicts(first, config, problem, scored);
            let mut cost = total;
            solutions[first.len()..].iter().for_each(|s| cost -= s.cost);
            Subsample { n, cost, verdicts }
        });
        Outcome {
            selection,
            prediction: chosen.and_then(|verdict| verdict.prediction.clone()),
            extraction: chosen
                .and_then(|verdict| verdict.solution)
                .and_then(|index| solutions[index].extraction),
            correct: chosen.and_then(|verdict| verdict.correct),
            by_n: by_n.collect(),
            grader: config.grader,
            policy_tokens: trace.num_tokens(),
            prm_tokens: total.prm.tokens as usize,
            cost: total,
            stem: self.stem.get(),
            choice,
            verdicts,
            solutions,
            trace,
        }
    }
}

impl<P: Policy, R: Prm> Search<'_, P, R> {
    /// Reads the answers off solutions and grades them.
    pub(crate) fn read_answers(&self, solutions: &mut [Solution]) {
        let Search {
            config, problem, ..
        } = self;
        for solution in solutions {
            let text = solution.steps.join(&config.delimiter);
            let extraction = config.grader.extract(&text);
            solution.answer = extraction.text;
            solution.extraction = Some(extraction.rule);
            solution.correct = problem.answer.as_ref().map(|truth| {
                (solution.answer.as_ref()).is_some_and(|a| config.grader.equivalent(a, truth))
            });
        }
    }
}

/// The verdict of every selection that the scores and confidences allow.
fn verdicts(
    solutions: &[Solution],
    config: &Config,
    problem: &Problem,
    scored: bool,
) -> Vec<Verdict> {
    let selections = Selection::all()
        .filter(|selection| scored || !selection.needs_scores())
        .filter(|selection| config.records_confidences() || !selection.needs_confidences());
    let verdicts = selections.map(|selection| {
        let selected = select(selection, solutions, config.grader);
        let solution = selected.map(|selected| selected.index);
        Verdict {
            selection,
            solution,
            support: selected.and_then(|selected| selected.support),
            prediction: solution.and_then(|i| solutions[i].answer.clone()),
            correct: (problem.answer.as_ref())
                .map(|_| solution.is_some_and(|i| solutions[i].correct == Some(true))),
        }
    });
    verdicts.collect()
}
