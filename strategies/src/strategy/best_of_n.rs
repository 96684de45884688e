//! Best-of-N: N whole solutions, every step scored by the PRM.
//!
//! *Can 1B LLM Surpass 405B LLM?* (arXiv 2502.06703), section 2.2; SEMANTICS.md, "Best-of-N".
//! A solution is scored as soon as it is written. Duplicates and cut solutions are kept. Solution i
//! does not depend on N: the first N' solutions are the run with budget N'.

use super::{Row, validate_whole_solutions};
use crate::{Error, Policy, Prm, Search, Solution};

pub(super) const ROW: Row = Row {
    name: "best-of-n",
    needs_prm: true,
    uses_beam_width: false,
    stops: false,
    default_n: 16,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate: validate_whole_solutions,
    candidates_per_solution: |_| Some(1),
};

/// Writes and scores N solutions.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    search.write_solutions(search.config.n).await
}
