//! Majority vote, or self-consistency: N solutions, the most frequent answer (Wang et al., arXiv
//! 2203.11171; SEMANTICS.md, "Majority vote"). Solution i does not depend on N.

use super::{Row, validate_whole_solutions};
use crate::{Error, Policy, Prm, Search, Solution};

pub(super) const ROW: Row = Row {
    name: "majority",
    needs_prm: false,
    searches_steps: false,
    default_n: 16,
    default_temperature: 0.7,
    validate: validate_whole_solutions,
    candidates_per_solution: |_| Some(1),
};

/// Writes N solutions.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    search.write_solutions(search.config.n).await
}
