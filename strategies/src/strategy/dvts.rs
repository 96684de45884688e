//! Diverse verifier tree search: N/M independent searches, each greedy by the PRM.
//!
//! *Can 1B LLM Surpass 405B LLM?* (arXiv 2502.06703), section 2.2, after Beeching et al.,
//! *Scaling test-time compute with open models* (search-and-learn); SEMANTICS.md, "DVTS". Each tree
//! writes M children of its one path and keeps the best; it ends with one solution, so there are
//! N/M (search-and-learn returns all M siblings of the last step).
//!
//! The trees never wait for each other, and tree i does not depend on how many there are: the
//! first N'/M trees are the search with budget N'.

use super::{Row, validate_step_search};
use crate::{Error, Path, Policy, Prm, Search, Solution};
use futures::future::try_join_all;

pub(super) const ROW: Row = Row {
    name: "dvts",
    needs_prm: true,
    uses_beam_width: true,
    branches: true,
    adapts: false,
    stops: false,
    default_n: 16,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate: validate_step_search,
    candidates_per_solution: |config| Some(config.beam_width),
};

/// Searches N/M trees.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let count = search.config.n / search.config.beam_width;
    let root = search.root().await?;
    let roots: Vec<Path<P, R>> = (0..count).map(|_| search.fork(&root)).collect();
    drop(root);
    let trees = roots.into_iter().map(|root| async {
        let tree = search.separate();
        let solution = grow(&tree, root).await?;
        Ok::<_, Error>((tree, solution))
    });
    let grown = try_join_all(trees).await?;
    let solutions = grown
        .into_iter()
        .map(|(tree, solution)| search.merge(tree, solution));
    Ok(solutions.collect())
}

/// One tree: the best child, step by step.
async fn grow<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    root: Path<P, R>,
) -> Result<Solution, Error> {
    let mut path = root;
    while !path.has_ended() {
        let mut expansion = search.expand(vec![path], search.config.beam_width).await?;
        let best = search.keep_best(expansion.candidates, 1).pop();
        path = best
            .or_else(|| expansion.dead_ends.pop())
            .expect("a path without a valid child is a dead end");
    }
    Ok(path.into_solution())
}
