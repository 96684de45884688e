//! What CoT, majority vote and best-of-N share: whole solutions, written in one go.

use crate::trace::{Node, NodeState, Trace};
use crate::{Config, Ending, Error, Policy, Solution, StepEnd, StepParams};

/// Writes a solution to its end and splits it into steps; empty pieces are dropped. A solution
/// cut by the token limit is kept (TTS.md 2.2).
pub(crate) async fn write<P: Policy>(
    policy: &P,
    mut branch: P::Branch,
    config: &Config,
) -> Result<Solution, Error> {
    let how = StepParams {
        delimiter: None,
        max_tokens: config.total_tokens,
        sampling: config.sampling,
    };
    let whole = policy.step(&mut branch, &how).await?;
    let pieces = whole.text.split(&config.delimiter).map(str::trim);
    Ok(Solution {
        steps: pieces.filter(|s| !s.is_empty()).map(String::from).collect(),
        scores: Vec::new(),
        answer: None,
        correct: None,
        ending: match whole.end {
            StepEnd::Eos | StepEnd::Delimiter => Ending::Finished,
            StepEnd::Length => Ending::LengthCut,
        },
        tokens: whole.tokens,
        logprob: whole.logprob,
        node: 0,
    })
}

/// The solutions as a tree: one chain each. Sets where each one ends.
pub(crate) fn chains(solutions: &mut [Solution]) -> Trace {
    let mut trace = Trace::new();
    for solution in solutions {
        let last = solution.steps.len().max(1) - 1;
        let nothing = [String::new()]; // a solution without steps still has its tokens
        let texts = if solution.steps.is_empty() {
            &nothing
        } else {
            solution.steps.as_slice()
        };
        for (i, text) in texts.iter().enumerate() {
            let state = match solution.ending {
                _ if i < last => NodeState::Kept,
                Ending::Finished => NodeState::Finished,
                _ => NodeState::LengthCut,
            };
            let tokens = if i == last { solution.tokens } else { 0 };
            let reward = solution.scores.get(i).copied();
            let node = Node {
                reward,
                value: reward,
                ..Node::new(text.clone(), tokens, state)
            };
            solution.node = trace.add(solution.node, node);
        }
    }
    trace
}
