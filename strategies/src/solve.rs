//! One problem, from its text to a verdict.

use crate::search::Search;
use crate::{
    Config, Error, Grader, Policy, Prm, Problem, Rule, Strategy, Trace, beam, best_of_n, cot, dvts,
    majority, select, smaller_budgets,
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
    /// The rule that counts.
    pub rule: Rule,
    /// Its answer; `None` when no solution has one.
    pub prediction: Option<String>,
    /// Whether it is right; `None` when the problem has no known answer.
    pub correct: Option<bool>,
    /// The verdicts of smaller budgets, from the first solutions of this run.
    pub by_n: Vec<Subsample>,
    /// Who compared answers.
    pub grader: Grader,
    /// Tokens the policy wrote: kept, dropped, duplicate and looked ahead.
    pub policy_tokens: usize,
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
    /// The content of its last `\boxed{}`.
    pub answer: Option<String>,
    /// Whether that is right; `None` when the problem has no known answer.
    pub correct: Option<bool>,
    /// Why it ended.
    pub ending: Ending,
    /// Policy tokens along the path.
    pub tokens: usize,
    /// Sum of their log-probabilities, in nats.
    pub logprob: f64,
    /// Its last node in the trace.
    pub node: usize,
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
    /// No valid next step in all tries.
    DeadEnd,
}

/// What one rule makes of the solutions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rule.
    pub rule: Rule,
    /// The solution it points at.
    pub solution: Option<usize>,
    /// That solution's answer.
    pub prediction: Option<String>,
    /// Whether it is right; `None` when the problem has no known answer.
    pub correct: Option<bool>,
}

/// What the run would have been with a smaller budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subsample {
    /// N'.
    pub n: usize,
    /// Every aggregation and selection over its solutions.
    pub verdicts: Vec<Verdict>,
}

/// Searches for the answer of `problem` with `config.strategy`. Without a reward model say
/// `None::<&NoPrm>`.
///
/// Dropping the future drops every branch.
pub async fn solve<P: Policy, R: Prm>(
    policy: &P,
    prm: Option<&R>,
    problem: &Problem,
    config: &Config,
) -> Result<Outcome, Error> {
    config.validate()?;
    let (text, stream) = (&problem.problem, stream(config.seed, &problem.problem));
    let strategy = config.strategy.name();
    let prm = prm.ok_or(Error::NoPrm { strategy });
    let (mut solutions, mut trace) = match config.strategy {
        Strategy::Cot => cot::cot(policy, policy.start(text, stream).await?, config).await?,
        Strategy::Majority => {
            majority::majority(policy, policy.start(text, stream).await?, config).await?
        }
        Strategy::BestOfN => {
            let prm = prm?;
            let roots = futures::try_join!(policy.start(text, stream), prm.start(text))?;
            best_of_n::best_of_n(policy, prm, roots, config).await?
        }
        Strategy::Beam => {
            let search = Search {
                policy,
                prm: prm?,
                config,
            };
            beam::beam(&search, search.root(text, stream).await?).await?
        }
        Strategy::Dvts => {
            let search = Search {
                policy,
                prm: prm?,
                config,
            };
            dvts::dvts(&search, search.root(text, stream).await?).await?
        }
    };

    for solution in &mut solutions {
        solution.answer = config
            .grader
            .answer(&solution.steps.join(&config.delimiter));
        solution.correct = problem.answer.as_ref().map(|truth| {
            (solution.answer.as_ref()).is_some_and(|a| config.grader.equivalent(a, truth))
        });
    }
    let verdicts = judge(&solutions, config, problem);
    let chosen = verdicts
        .iter()
        .find(|verdict| verdict.rule == config.rule());
    if let Some(index) = chosen.and_then(|verdict| verdict.solution) {
        trace.choose(solutions[index].node);
    }
    let by_n = smaller_budgets(config)
        .into_iter()
        .map(|(n, count)| Subsample {
            n,
            verdicts: judge(&solutions[..count.min(solutions.len())], config, problem),
        });
    Ok(Outcome {
        rule: config.rule(),
        prediction: chosen.and_then(|verdict| verdict.prediction.clone()),
        correct: chosen.and_then(|verdict| verdict.correct),
        by_n: by_n.collect(),
        grader: config.grader,
        policy_tokens: trace.tokens(),
        verdicts,
        solutions,
        trace,
    })
}

/// Every rule that the strategy's scores allow.
fn judge(solutions: &[Solution], config: &Config, problem: &Problem) -> Vec<Verdict> {
    let rules = Rule::all().filter(|rule| config.strategy.needs_prm() || !rule.needs_scores());
    let verdicts = rules.map(|rule| {
        let solution = select(rule, solutions, config.grader);
        Verdict {
            rule,
            solution,
            prediction: solution.and_then(|i| solutions[i].answer.clone()),
            correct: (problem.answer.as_ref())
                .map(|_| solution.is_some_and(|i| solutions[i].correct == Some(true))),
        }
    });
    verdicts.collect()
}

/// The key of a problem's random numbers: the same text and seed give the same tree, wherever
/// the problem stands in its file. FNV-1a over the seed and the text.
pub fn stream(seed: u64, text: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
