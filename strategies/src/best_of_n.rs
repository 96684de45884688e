//! Best-of-N: N whole solutions, every step scored by the PRM.
//!
//! *Can 1B LLM Surpass 405B LLM?* (arXiv 2502.06703), section 2.2; exact semantics in TTS.md
//! 2.3. A solution is scored as soon as it is written. No duplicates are removed and cut
//! solutions stay. Solution i does not depend on N: the first N' are a run with the smaller N'.

use crate::search::score;
use crate::{Config, Error, Policy, Prm, Solution, Trace, sample};
use futures::future::try_join_all;

/// Writes and scores N solutions.
pub(crate) async fn best_of_n<P: Policy, R: Prm>(
    policy: &P,
    prm: &R,
    (policy_root, prm_root): (P::Branch, R::Branch),
    config: &Config,
) -> Result<(Vec<Solution>, Trace), Error> {
    let branches: Vec<P::Branch> = (0..config.n).map(|_| policy.fork(&policy_root)).collect();
    drop(policy_root);
    let prm_root = &prm_root;
    let writing = branches.into_iter().map(|branch| async move {
        let mut solution = sample::write(policy, branch, config).await?;
        let steps: Vec<&str> = solution.steps.iter().map(String::as_str).collect();
        solution.scores = score(prm, &mut prm.fork(prm_root), &steps).await?;
        Ok::<Solution, Error>(solution)
    });
    let mut solutions = try_join_all(writing).await?;
    let trace = sample::chains(&mut solutions);
    Ok((solutions, trace))
}
