//! Particle filtering: N particles write a step each, then N of them are drawn anew by weight.
//!
//! Puri et al., *A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
//! Particle-Based Monte Carlo Methods* (arXiv 2502.01618), algorithm 1, with the weights of the
//! authors' code (its_hub, `particle_gibbs.py`): a particle's weight is the odds p / (1 - p) of its
//! value p, held to 1e-7 from 0 and 1; SEMANTICS.md, "Particle filtering". A particle that has
//! ended keeps its last weight and is drawn like the others. When all have ended they are drawn one
//! last time, so there are N solutions, and a path that was drawn twice is among them twice.

use super::Row;
use crate::{Error, Expansion, Path, Policy, Prm, Search, Solution};

pub(super) const ROW: Row = Row {
    name: "particle-filtering",
    needs_prm: true,
    uses_beam_width: false,
    branches: false,
    adapts: false,
    stops: false,
    default_n: 16,
    default_temperature: 0.8,
    default_balance_temperature: 0.2,
    validate: |_| Ok(()),
    candidates_per_solution: |_| None,
};

/// How far a value is held from 0 and 1.
const CLIP: f64 = 1e-7;

/// Searches until every particle has ended.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let n = search.config.n;
    let root = search.root().await?;
    let mut particles: Vec<Path<P, R>> = (0..n).map(|_| search.fork(&root)).collect();
    drop(root);
    for round in 0.. {
        particles = propagate(search, particles).await?;
        let values: Vec<f64> = particles.iter().map(Path::value).collect();
        let draws: Vec<f64> = (0..n).map(|i| search.uniform(round, i)).collect();
        particles = search.copy(particles, &resample(&values, &draws));
        if particles.iter().all(Path::has_ended) {
            break;
        }
    }
    Ok(particles.into_iter().map(Path::into_solution).collect())
}

/// One more step on every particle that has not ended, in their order.
async fn propagate<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    particles: Vec<Path<P, R>>,
) -> Result<Vec<Path<P, R>>, Error> {
    let (ended, open): (Vec<_>, Vec<_>) = particles.into_iter().partition(Path::has_ended);
    let widths = vec![1; open.len()];
    let Expansion {
        candidates,
        dead_ends,
    } = search.expand_by(open, &widths).await?;
    Ok(ended
        .into_iter()
        .chain(dead_ends)
        .chain(candidates)
        .collect())
}

/// How often each particle is drawn, by `draws` from 0 to 1 (exclusive).
fn resample(values: &[f64], draws: &[f64]) -> Vec<usize> {
    let odds = |value: &f64| {
        let p = value.clamp(CLIP, 1.0 - CLIP);
        p / (1.0 - p)
    };
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (values.iter())
        .map(|value| {
            sum += odds(value);
            sum
        })
        .collect();
    let mut counts = vec![0; values.len()];
    for draw in draws {
        let at = cumulative.partition_point(|&until| until <= draw * sum);
        // Rounding may leave the last draw beyond the sum.
        if let Some(count) = counts.get_mut(at.min(values.len().saturating_sub(1))) {
            *count += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resample_table() {
        type Case = (&'static [f64], &'static [f64], &'static [usize]);
        let cases: &[Case] = &[
            (&[], &[], &[]),
            (&[0.5], &[0.0, 0.999], &[2]),
            // Odds 1 and 3: a quarter and three quarters.
            (&[0.5, 0.75], &[0.0, 0.24, 0.25, 0.26, 0.99], &[2, 3]),
            // Odds 1, 1, 8.
            (&[0.5, 0.5, 8.0 / 9.0], &[0.05, 0.15, 0.5, 0.9], &[1, 1, 2]),
            // A value of 0 or 1 (or beyond: rewards need not be probabilities) has finite odds.
            (&[0.0, 1.0], &[0.0, 0.5, 0.999], &[1, 2]),
            (&[-3.0, 7.0], &[0.5], &[0, 1]),
        ];
        for &(values, draws, expected) in cases {
            assert_eq!(resample(values, draws), expected, "{values:?}, {draws:?}");
        }
    }
}
