//! DORA: a step's budget is shared as in REBASE, but among directions instead of paths: a path's share
//! shrinks with the number of paths that say nearly the same.
//!
//! Wang et al., *Every Rollout Counts* (arXiv 2506.15707), section 4; the rounding and the order are
//! those of the authors' code (`dora.py`); SEMANTICS.md, "DORA". Where they embed a path's text by a
//! model of its own (BGE-M3), the policy's final hidden states are averaged over the path's tokens.

use super::Row;
use crate::cluster::cosine;
use crate::{Config, Error, Expansion, Path, Policy, Prm, Search, Solution};
use engine::Setting;

pub(super) const ROW: Row = Row {
    name: "dora",
    needs_prm: true,
    uses_beam_width: false,
    branches: true,
    adapts: false,
    stops: false,
    default_n: 16,
    default_temperature: 0.8,
    default_balance_temperature: 0.1,
    validate,
    candidates_per_solution: |_| None,
};

fn validate(config: &Config) -> Result<(), Setting> {
    super::validate_balance(config)?;
    let temperature = config.similarity_temperature;
    if temperature.is_finite() && temperature > 0.0 {
        return Ok(());
    }
    let expected = "a number above 0";
    Err(Setting::new(
        "similarity_temperature",
        temperature,
        expected,
    ))
}

/// Searches until N paths have ended, or every path has.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let config = search.config;
    let mut ended: Vec<Path<P, R>> = Vec::new();
    let (mut open, mut widths) = (vec![search.root().await?], vec![config.n]);
    while !open.is_empty() {
        let Expansion {
            candidates,
            dead_ends,
        } = search.expand_by(open, &widths).await?;
        ended.extend(dead_ends);
        let (finished, mut others): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(Path::has_ended);
        ended.extend(finished);
        if ended.len() >= config.n {
            search.keep(others, |_| false);
            break;
        }
        widths = allocate(search, &mut others).await?;
        open = search.keep(others, |index| widths[index] > 0);
        widths.retain(|&width| width > 0);
    }
    ended.truncate(config.n);
    Ok(ended.into_iter().map(Path::into_solution).collect())
}

/// The children of each open path, N in all; none for a path that REBASE alone would drop, which is
/// not embedded.
async fn allocate<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    paths: &mut [Path<P, R>],
) -> Result<Vec<usize>, Error> {
    let config = search.config;
    let values: Vec<f64> = paths.iter().map(Path::value).collect();
    let quality = softmax(&values, config.balance_temperature);
    let mut widths = vec![0; paths.len()];
    let promising: Vec<usize> = (0..paths.len())
        .filter(|&index| rounded(quality[index], config.n) > 0)
        .collect();
    let mut rest = paths.iter_mut().enumerate();
    let chosen = promising
        .iter()
        .filter_map(|&index| Some(rest.find(|(i, _)| *i == index)?.1));
    let embeddings = search.embed(chosen.collect()).await?;
    let values: Vec<f64> = promising.iter().map(|&index| values[index]).collect();
    let shares = shares(&values, &embeddings, config);
    for (&index, share) in promising.iter().zip(shares) {
        widths[index] = share;
    }
    Ok(widths)
}

/// The children of each path, N in all: rounded shares of the weights, which are the softmax of the
/// values times the share that a path has of its own direction.
fn shares(values: &[f64], embeddings: &[Vec<f64>], config: &Config) -> Vec<usize> {
    let quality = softmax(values, config.balance_temperature);
    let weights: Vec<f64> = (quality.iter().enumerate())
        .map(|(path, quality)| {
            quality * uniqueness(path, embeddings, config.similarity_temperature)
        })
        .collect();
    let total: f64 = weights.iter().sum();
    let rounded: Vec<usize> = (weights.iter())
        .map(|weight| rounded(weight / total, config.n))
        .collect();
    // The authors' code lists every path as often as its share and takes the first N of the list,
    // repeated where it is too short.
    let list: Vec<usize> = (rounded.iter().enumerate())
        .flat_map(|(path, &count)| std::iter::repeat_n(path, count))
        .collect();
    let mut shares = vec![0; values.len()];
    for &path in list.iter().cycle().take(config.n) {
        shares[path] += 1;
    }
    shares
}

/// `n * share`, to the nearest integer, ties to even, as numpy rounds.
fn rounded(share: f64, n: usize) -> usize {
    (share * n as f64).round_ties_even() as usize
}

/// Softmax at a temperature, relative to the largest: no power overflows.
fn softmax(values: &[f64], temperature: f64) -> Vec<f64> {
    let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = (values.iter())
        .map(|value| ((value - best) / temperature).exp())
        .collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

/// The diagonal entry of the softmax over a row of cosine similarities: 1 for a path unlike all
/// others, 1/k for each of k paths that say the same.
fn uniqueness(path: usize, embeddings: &[Vec<f64>], temperature: f64) -> f64 {
    let similarities: Vec<f64> = (embeddings.iter())
        .map(|other| cosine(&embeddings[path], other))
        .collect();
    softmax(&similarities, temperature)[path]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy;

    const X: &[f64] = &[1.0, 0.0];
    const Y: &[f64] = &[0.0, 2.0];
    const ZERO: &[f64] = &[0.0, 0.0];

    #[test]
    fn shares_table() {
        type Case = (
            &'static [f64],
            &'static [&'static [f64]],
            usize,
            &'static [usize],
        );
        let cases: &[Case] = &[
            (&[0.5], &[X], 4, &[4]),
            // Two directions of equal worth: half each, however many paths a direction has.
            (&[0.5, 0.5], &[X, Y], 4, &[2, 2]),
            (&[0.5, 0.5, 0.5], &[X, X, Y], 8, &[2, 2, 4]),
            // Weights 1/4, 1/4, 1/2 of 4; of 6 the first two round 1.5 to even: 2, 2, 3 is one too
            // many, and the last of the list goes.
            (&[0.5, 0.5, 0.5], &[X, X, Y], 4, &[1, 1, 2]),
            (&[0.5, 0.5, 0.5], &[X, X, Y], 6, &[2, 2, 2]),
            // Of 2 they round 0.5 to even, 0: the list is the third alone, repeated.
            (&[0.5, 0.5, 0.5], &[X, X, Y], 2, &[0, 0, 2]),
            // e^1 against 1 at a temperature of 0.1: 0.731 of 8 is 5.8.
            (&[0.9, 0.8], &[X, Y], 8, &[6, 2]),
            // A vector of zeros is like no other and half like itself: its softmax is uniform.
            (&[0.5, 0.5], &[ZERO, X], 3, &[1, 2]),
        ];
        for &(values, embeddings, n, expected) in cases {
            let config = Config {
                n,
                ..Config::new(Strategy::Dora)
            };
            let embeddings: Vec<Vec<f64>> = embeddings.iter().map(|e| e.to_vec()).collect();
            let found = shares(values, &embeddings, &config);
            assert_eq!(found, expected, "{values:?} {embeddings:?} {n}");
        }
    }

    #[test]
    fn every_path_that_says_the_same_has_its_part_of_one() {
        let same = vec![X.to_vec(); 4];
        assert!((uniqueness(2, &same, 0.01) - 0.25).abs() < 1e-12);
        let apart = vec![X.to_vec(), Y.to_vec()];
        assert!(uniqueness(0, &apart, 0.01) > 1.0 - 1e-12);
        // A temperature far above every similarity counts paths alone.
        assert!((uniqueness(0, &apart, 1e9) - 0.5).abs() < 1e-6);
    }
}
