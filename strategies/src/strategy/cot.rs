//! Chain of thought: one solution, greedy by default (Wei et al., arXiv 2201.11903; SEMANTICS.md,
//! "Chain of thought").

use super::{Row, validate_whole_solutions};
use crate::{Config, Error, Policy, Prm, Search, Solution};
use engine::Setting;

pub(super) const ROW: Row = Row {
    name: "cot",
    needs_prm: false,
    uses_beam_width: false,
    branches: false,
    adapts: false,
    stops: false,
    default_n: 1,
    default_temperature: 0.0,
    default_balance_temperature: 0.2,
    validate,
    candidates_per_solution: |_| None,
};

/// Writes one solution: the first one that a majority vote with the same options would write.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    search.write_solutions(1).await
}

fn validate(config: &Config) -> Result<(), Setting> {
    if config.n != 1 {
        let expected = "1: the strategy cot writes one solution";
        return Err(Setting::new("n", config.n, expected));
    }
    validate_whole_solutions(config)
}
