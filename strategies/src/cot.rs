//! Chain of thought: one solution, greedy by default (TTS.md 2.1; Wei et al., arXiv 2201.11903).

use crate::{Config, Error, Policy, Solution, Trace, sample};

/// Writes one solution: the first one that a majority vote with these settings would write.
pub(crate) async fn cot<P: Policy>(
    policy: &P,
    root: P::Branch,
    config: &Config,
) -> Result<(Vec<Solution>, Trace), Error> {
    let mut solution = [sample::write(policy, policy.fork(&root), config).await?];
    let trace = sample::chains(&mut solution);
    Ok((solution.into(), trace))
}
