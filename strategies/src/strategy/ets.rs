//! ETS, efficient tree search: REBASE among a part of its paths, chosen so that they share their
//! tree's nodes, and with them the KV cache, without losing a direction.
//!
//! Hooper et al., *ETS: Efficient Tree Search for Inference-Time Scaling* (arXiv 2502.13575), section
//! 4; the terms and their scales are those of the authors' code (`rebase.py`,
//! `select_softmax_costmodel`); SEMANTICS.md, "ETS". Where they embed a step's text by a BERT, the
//! policy's final hidden states are averaged over the path's tokens.

use super::{Row, rebase};
use crate::cluster::clusters;
use crate::leaf_selection::{LeafSelection, Weights};
use crate::{Config, Error, Path, Policy, Prm, Search, Solution};
use engine::Setting;

pub(super) const ROW: Row = Row {
    name: "ets",
    needs_prm: true,
    uses_beam_width: false,
    branches: true,
    adapts: false,
    stops: false,
    default_n: 16,
    default_temperature: 1.0,
    default_balance_temperature: 0.2,
    validate,
    candidates_per_solution: |_| None,
};

fn validate(config: &Config) -> Result<(), Setting> {
    super::validate_balance(config)?;
    for (name, weight) in [
        ("kv_weight", config.kv_weight),
        ("coverage_weight", config.coverage_weight),
    ] {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Setting::new(name, weight, "a number from 0 up"));
        }
    }
    config.validate_cluster_distance()
}

/// Searches until every path has ended.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    rebase::run_by(search, async |open, budget| {
        allocate(search, open, budget).await
    })
    .await
}

/// The children of each open path: REBASE's among the paths that are selected, none for the others.
async fn allocate<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    paths: &mut [Path<P, R>],
    budget: usize,
) -> Result<Vec<usize>, Error> {
    let config = search.config;
    if budget == 0 || paths.is_empty() {
        return Ok(vec![0; paths.len()]);
    }
    let embeddings = if config.coverage_weight > 0.0 && paths.len() > 1 {
        search.embed(paths.iter_mut().collect()).await?
    } else {
        Vec::new()
    };
    let values: Vec<f64> = paths.iter().map(Path::value).collect();
    let lineages: Vec<Vec<usize>> = paths.iter().map(|path| search.lineage(path)).collect();
    Ok(shares(&values, &lineages, &embeddings, budget, config))
}

/// The children of each path, by its value, the nodes above it and its embedding (none where clusters
/// do not count).
fn shares(
    values: &[f64],
    lineages: &[Vec<usize>],
    embeddings: &[Vec<f64>],
    budget: usize,
    config: &Config,
) -> Vec<usize> {
    let temperature = config.balance_temperature;
    let widths = rebase::shares(values, budget, temperature);
    let total = widths.iter().sum::<usize>() as f64;
    let rewards: Vec<f64> = widths.iter().map(|&width| width as f64 / total).collect();
    let (labels, coverage) = if embeddings.is_empty() {
        (vec![0; values.len()], 0.0)
    } else {
        let labels = clusters(embeddings, config.cluster_distance);
        (labels, config.coverage_weight)
    };
    let weights = Weights {
        kv: config.kv_weight,
        coverage,
    };
    let kept = LeafSelection::new(&rewards, lineages, &labels, weights)
        .solve()
        .leaves;
    let selected: Vec<f64> = (values.iter().zip(&kept))
        .filter_map(|(&value, &is_kept)| is_kept.then_some(value))
        .collect();
    let mut widths = rebase::shares(&selected, budget, temperature).into_iter();
    let width = |&is_kept: &bool| is_kept.then(|| widths.next()).flatten().unwrap_or(0);
    kept.iter().map(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy;

    #[test]
    fn shares_table() {
        const X: &[f64] = &[1.0, 0.0];
        const Y: &[f64] = &[0.0, 2.0];
        type Case = (
            &'static str,
            &'static [f64],
            &'static [&'static [usize]],
            &'static [&'static [f64]],
            usize,
            &'static [usize],
        );
        let siblings: &[&[usize]] = &[&[0], &[0], &[0]];
        let cases: &[Case] = &[
            ("one path has all", &[0.5], &[&[0, 3]], &[], 4, &[4]),
            // REBASE: 3, 1, 0 of 4; shares 3/4, 1/4, 0; a node costs 1/4, so the second is worth no
            // more than it costs and stays, and the third goes.
            (
                "no share, no cluster: gone",
                &[0.9, 0.7, 0.3],
                siblings,
                &[X, X, X],
                4,
                &[3, 1, 0],
            ),
            // A cluster of its own gives 0.75: it stays, but has no width in the end either.
            (
                "a direction, but no width",
                &[0.9, 0.7, 0.3],
                siblings,
                &[X, X, Y],
                4,
                &[3, 1, 0],
            ),
            // REBASE: 2, 1 of 3. Two parents, five nodes of 1/5: the second path costs 2/5 and has 1/3,
            // so it goes; in a cluster of its own, which gives 3/4, it stays.
            (
                "nodes of its own",
                &[0.8, 0.8],
                &[&[0, 1], &[0, 2]],
                &[X, X],
                3,
                &[3, 0],
            ),
            (
                "a direction of its own",
                &[0.8, 0.8],
                &[&[0, 1], &[0, 2]],
                &[X, Y],
                3,
                &[2, 1],
            ),
        ];
        for &(name, values, lineages, embeddings, budget, expected) in cases {
            let config = Config::new(Strategy::Ets);
            let lineages: Vec<Vec<usize>> = lineages.iter().map(|l| l.to_vec()).collect();
            let embeddings: Vec<Vec<f64>> = embeddings.iter().map(|e| e.to_vec()).collect();
            let found = shares(values, &lineages, &embeddings, budget, &config);
            assert_eq!(found, expected, "{name}");
        }
    }
}
