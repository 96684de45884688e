//! Majority vote, or self-consistency: N solutions, the most frequent answer (Wang et al., arXiv
//! 2203.11171; SEMANTICS.md, "Majority vote"). Solution i does not depend on N. With a
//! [`StopRule`] there are fewer where they settle the vote; with a bar of confidence
//! ([`Config::confidence_bar`]) those that fall below it end early and do not vote.

use super::{Row, validate_whole_solutions};
use crate::{Config, Error, Policy, Prm, Search, Solution, StopRule};

pub(super) const ROW: Row = Row {
    name: "majority",
    needs_prm: false,
    uses_beam_width: false,
    branches: false,
    adapts: false,
    stops: true,
    default_n: 16,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate: validate_whole_solutions,
    candidates_per_solution,
};

/// With a rule the number of solutions depends on what they say; with a bar a solution depends on the
/// warm-up.
fn candidates_per_solution(config: &Config) -> Option<usize> {
    let independent = config.stop_rule == StopRule::None && config.confidence_bar.is_none();
    independent.then_some(1)
}

/// Writes up to N solutions.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    search.write_solutions(search.config.n).await
}
