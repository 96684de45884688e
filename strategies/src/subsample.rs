//! Smaller budgets out of one run.
//!
//! In best-of-N, majority vote and DVTS the i-th solution does not depend on how many there
//! are: its branch path, and so its random numbers, stay the same. The first N' candidates of
//! a run are therefore *the* run with budget N' and the same seed, not an estimate of it
//! (SEMANTICS.md, "Smaller budgets"). Beam search is not like that: its candidates compete.

use crate::Config;

/// The smaller budgets N' that a run with this configuration also answers, each with the number
/// of its first solutions that make it up: N' = 1, 2, 4, … (M, 2M, 4M, … for DVTS) below N.
pub fn smaller_budgets(config: &Config) -> Vec<(usize, usize)> {
    let Some(candidates_per_solution) = (config.strategy.row().candidates_per_solution)(config)
    else {
        return Vec::new();
    };
    std::iter::successors(Some(1usize), |count| count.checked_mul(2))
        .map(|count| (count.saturating_mul(candidates_per_solution), count))
        .take_while(|&(n, _)| n < config.n)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy;

    #[test]
    fn smaller_budgets_table() {
        type Case = (Strategy, usize, &'static [(usize, usize)]);
        let cases: &[Case] = &[
            (Strategy::Cot, 1, &[]),
            (Strategy::Beam, 16, &[]),
            (Strategy::BestOfN, 1, &[]),
            (Strategy::BestOfN, 2, &[(1, 1)]),
            (Strategy::BestOfN, 6, &[(1, 1), (2, 2), (4, 4)]),
            (Strategy::Majority, 8, &[(1, 1), (2, 2), (4, 4)]),
            (Strategy::Dvts, 4, &[]),
            (Strategy::Dvts, 16, &[(4, 1), (8, 2)]),
            (Strategy::Dvts, 20, &[(4, 1), (8, 2), (16, 4)]),
        ];
        for &(strategy, n, want) in cases {
            let config = Config {
                n,
                ..Config::new(strategy)
            };
            assert_eq!(
                smaller_budgets(&config),
                want,
                "{} with n = {n}",
                strategy.name()
            );
        }
    }
}
