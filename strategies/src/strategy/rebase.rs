//! REBASE, reward-balanced search: a step's budget is shared among the open paths by a softmax of
//! their values.
//!
//! Wu et al., *Inference Scaling Laws* (arXiv 2408.00724), section 3.2; the rounding is that of the
//! authors' code (`rebase.py`, `select_softmax`); SEMANTICS.md, "REBASE". The stem has N children.
//! Of the candidates of a round those that have ended are solutions and lower the budget by one
//! each; the others share what is left of it, best first. A path that gets no child is dropped, so
//! there are at most N solutions.

use super::Row;
use crate::{Error, Expansion, Path, Policy, Prm, Search, Solution};

pub(super) const ROW: Row = Row {
    name: "rebase",
    needs_prm: true,
    uses_beam_width: false,
    branches: true,
    adapts: false,
    stops: false,
    default_n: 16,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate: super::validate_balance,
    candidates_per_solution: |_| None,
};

/// Searches until every path has ended.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let temperature = search.config.balance_temperature;
    run_by(search, async |open, budget| {
        let values: Vec<f64> = open.iter().map(Path::value).collect();
        Ok(shares(&values, budget, temperature))
    })
    .await
}

/// As [`run`]; `allocate` gives the children of each open path, of a budget.
pub(super) async fn run_by<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    allocate: impl AsyncFn(&mut [Path<P, R>], usize) -> Result<Vec<usize>, Error>,
) -> Result<Vec<Solution>, Error> {
    let n = search.config.n;
    let mut ended: Vec<Path<P, R>> = Vec::new();
    let (mut open, mut widths) = (vec![search.root().await?], vec![n]);
    while !open.is_empty() {
        let Expansion {
            candidates,
            dead_ends,
        } = search.expand_by(open, &widths).await?;
        ended.extend(dead_ends);
        let (finished, mut others): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(Path::has_ended);
        ended.extend(finished);
        widths = allocate(&mut others, n.saturating_sub(ended.len())).await?;
        open = search.keep(others, |index| widths[index] > 0);
        widths.retain(|&width| width > 0);
    }
    Ok(ended.into_iter().map(Path::into_solution).collect())
}

/// The children of each path: best first, each gets its softmax share of what is left, rounded up.
/// Of equal values the earlier is first.
pub(super) fn shares(values: &[f64], budget: usize, temperature: f64) -> Vec<usize> {
    let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Relative to the best: no power overflows.
    let weights: Vec<f64> = (values.iter())
        .map(|value| ((value - best) / temperature).exp())
        .collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut shares = vec![0; values.len()];
    let (mut left, mut weight_left) = (budget, weights.iter().sum::<f64>());
    for index in order {
        if left == 0 || weight_left <= 0.0 {
            break;
        }
        let share = (left as f64 * weights[index] / weight_left).ceil();
        shares[index] = (share as usize).min(left);
        left -= shares[index];
        weight_left -= weights[index];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_table() {
        type Case = (&'static [f64], usize, f64, &'static [usize]);
        let cases: &[Case] = &[
            (&[], 4, 0.2, &[]),
            (&[0.5], 4, 0.2, &[4]),
            (&[0.5, 0.9], 0, 0.2, &[0, 0]),
            // Equal values: each rounds up what is left, the earlier first.
            (&[0.5, 0.5], 4, 0.2, &[2, 2]),
            (&[0.5, 0.5, 0.5], 4, 0.2, &[2, 1, 1]),
            (&[0.5, 0.5, 0.5], 2, 0.2, &[1, 1, 0]),
            // e^(0.9/0.2) / (e^(0.9/0.2) + e^(0.5/0.2)) = 0.881: ceil(8 * 0.881) = 8.
            (&[0.5, 0.9], 8, 0.2, &[0, 8]),
            // 0.881 * 16 = 14.09, rounded up.
            (&[0.5, 0.9], 16, 0.2, &[1, 15]),
            // Weights e^0, e^-1, e^-2: 0.665 of 10, then 0.731 of 3.
            (&[0.8, 0.6, 0.4], 10, 0.2, &[7, 3, 0]),
            // A low temperature is greedy, a high one is uniform.
            (&[0.8, 0.6, 0.4], 6, 1e-9, &[6, 0, 0]),
            (&[0.8, 0.6, 0.4], 6, 1e300, &[2, 2, 2]),
        ];
        for &(values, budget, temperature, expected) in cases {
            let found = shares(values, budget, temperature);
            assert_eq!(found, expected, "{values:?}, {budget} at {temperature}");
        }
    }
}
