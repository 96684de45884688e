//! Best-of-N: N whole solutions, every step scored by the PRM.
//!
//! *Can 1B LLM Surpass 405B LLM?* (arXiv 2502.06703), section 2.2; SEMANTICS.md, "Best-of-N".
//! A solution is scored as soon as it is written. Duplicates and cut solutions are kept. Solution i
//! does not depend on N: the first N' solutions are the run with budget N'. With a [`StopRule`] there
//! are fewer where they settle the vote, and with a calibration where their scores promise success.

use super::{Row, validate_whole_solutions};
use crate::{Config, Error, Policy, Prm, Search, Solution, StopRule};

pub(super) const ROW: Row = Row {
    name: "best-of-n",
    needs_prm: true,
    uses_beam_width: false,
    branches: false,
    adapts: true,
    stops: true,
    default_n: 16,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate: validate_whole_solutions,
    candidates_per_solution,
};

/// With a rule or a calibration the number of solutions depends on what they say.
fn candidates_per_solution(config: &Config) -> Option<usize> {
    let independent = config.stop_rule == StopRule::None && config.calibration.is_none();
    independent.then_some(1)
}

/// Writes and scores up to N solutions.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    search.write_solutions(search.config.n).await
}
