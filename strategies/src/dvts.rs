//! Diverse verifier tree search: N/M independent searches, each greedy by the PRM.
//!
//! *Can 1B LLM Surpass 405B LLM?* (arXiv 2502.06703), section 2.2, after Beeching et al.,
//! *Scaling test-time compute with open models* (search-and-learn); exact semantics in TTS.md
//! 2.5. Each tree writes M children of its one path and keeps the best; it ends with one
//! solution, so there are N/M (search-and-learn returns all M siblings of the last step).
//!
//! The trees never wait for each other, and tree i does not depend on how many there are: the
//! first N'/M of them are a search with the smaller budget N'.

use crate::search::{Path, Search, keep_best, record};
use crate::{Error, Policy, Prm, Solution, Trace};
use futures::future::try_join_all;

/// Searches N/M trees below `root`.
pub(crate) async fn dvts<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    root: Path<P, R>,
) -> Result<(Vec<Solution>, Trace), Error> {
    let trees = search.config.n / search.config.beam_width;
    let roots: Vec<Path<P, R>> = (0..trees).map(|_| search.fork(&root)).collect();
    drop(root);
    let found = try_join_all(roots.into_iter().map(|root| tree(search, root))).await?;

    let mut trace = Trace::new();
    let solutions = found.into_iter().map(|(mut solution, tree)| {
        let shift = trace.graft(tree);
        solution.node += if solution.node == 0 { 0 } else { shift };
        solution
    });
    let solutions = solutions.collect();
    Ok((solutions, trace))
}

/// One tree: the best child, step by step.
async fn tree<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    root: Path<P, R>,
) -> Result<(Solution, Trace), Error> {
    let mut trace = Trace::new();
    let mut path = root;
    while path.ending.is_none() {
        let family = search.expand(&path, search.config.beam_width).await?;
        let children = record(&mut trace, path.node, family);
        path = match keep_best(children, 1, &mut trace).pop() {
            Some(best) => best,
            None => path.give_up(&mut trace),
        };
    }
    Ok((path.solution(), trace))
}
