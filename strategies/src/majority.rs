//! Majority vote, or self-consistency: N solutions, the most frequent answer (Wang et al., arXiv
//! 2203.11171; TTS.md 2.8). Solution i does not depend on N.

use crate::{Config, Error, Policy, Solution, Trace, sample};
use futures::future::try_join_all;

/// Writes N solutions.
pub(crate) async fn majority<P: Policy>(
    policy: &P,
    root: P::Branch,
    config: &Config,
) -> Result<(Vec<Solution>, Trace), Error> {
    let branches: Vec<P::Branch> = (0..config.n).map(|_| policy.fork(&root)).collect();
    drop(root);
    let writing = branches
        .into_iter()
        .map(|branch| sample::write(policy, branch, config));
    let mut solutions = try_join_all(writing).await?;
    let trace = sample::chains(&mut solutions);
    Ok((solutions, trace))
}
