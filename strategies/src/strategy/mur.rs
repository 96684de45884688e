//! MUR, momentum uncertainty guided reasoning: one path, of which only the steps that the policy is
//! unusually uncertain of are written several times.
//!
//! Yan et al., *MUR: Momentum Uncertainty guided Reasoning for Large Language Models* (arXiv
//! 2507.14958), with candidates that a PRM chooses among ("guided search"), in the order of the authors'
//! code (`guided_search-mur.py`); SEMANTICS.md, "MUR".

use super::Row;
use crate::{Config, Error, Path, Policy, Prm, Search, Solution};
use engine::Setting;

pub(super) const ROW: Row = Row {
    name: "mur",
    needs_prm: true,
    uses_beam_width: false,
    branches: false,
    adapts: false,
    stops: false,
    default_n: 4,
    default_temperature: 0.6,
    default_balance_temperature: 0.2,
    validate,
    candidates_per_solution: |_| None,
};

fn validate(config: &Config) -> Result<(), Setting> {
    let momentum = config.momentum_rate;
    if !(0.0..1.0).contains(&momentum) {
        let expected = "a number from 0, below 1";
        return Err(Setting::new("momentum_rate", momentum, expected));
    }
    let scaling = config.scaling_rate;
    if !(scaling.is_finite() && scaling > 0.0) {
        return Err(Setting::new("scaling_rate", scaling, "a number above 0"));
    }
    Ok(())
}

/// The uncertainty of the steps so far: an exponential average, 0 before the first.
#[derive(Clone, Copy, Default)]
struct Momentum(f64);

impl Momentum {
    /// Whether a step is worth more candidates: its mean log-probability is below that of the steps
    /// before it by more than ln `scaling_rate`.
    fn is_exceeded(self, uncertainty: f64, scaling_rate: f64) -> bool {
        (-uncertainty).exp() < (-self.0).exp() * scaling_rate
    }

    fn add(&mut self, uncertainty: f64, rate: f64) {
        self.0 = rate * self.0 + (1.0 - rate) * uncertainty;
    }
}

/// Writes one path.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let config = search.config;
    let mut momentum = Momentum::default();
    let mut path = search.root().await?;
    while !path.has_ended() {
        let before = search.fork(&path);
        let is_first = before.steps().is_empty();
        let (steps, tokens, logprob) = (path.steps().len(), path.num_tokens(), path.logprob());
        let uncertainty = |path: &Path<P, R>| {
            (logprob - path.logprob()) / (path.num_tokens() - tokens).max(1) as f64
        };
        path = best_of(search, path, 1).await?;
        let has_text = path.steps().len() > steps;
        if has_text && !is_first && momentum.is_exceeded(uncertainty(&path), config.scaling_rate) {
            search.keep(vec![path], |_| false);
            path = best_of(search, before.again(), config.n).await?;
        }
        momentum.add(uncertainty(&path), config.momentum_rate);
    }
    Ok(vec![path.into_solution()])
}

/// The best of `count` children, or the path itself where no valid one follows.
async fn best_of<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    path: Path<P, R>,
    count: usize,
) -> Result<Path<P, R>, Error> {
    let mut expansion = search.expand(vec![path], count).await?;
    let best = search.keep_best(expansion.candidates, 1).pop();
    Ok(best
        .or_else(|| expansion.dead_ends.pop())
        .expect("a path without a valid child is a dead end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_table() {
        // Steps' uncertainties, rates, and which of them are scaled if nothing changes them. ln 0.9 =
        // -0.105, so a step exceeds an average that is lower by more than 0.105.
        type Case = (&'static [f64], f64, f64, &'static [bool]);
        let cases: &[Case] = &[
            // The average is 0, 0.1, 0.19: it begins low, so the first steps are scaled.
            (&[1.0, 1.0, 1.0], 0.9, 0.9, &[true, true, true]),
            (&[0.1, 0.1, 0.2], 0.9, 0.9, &[false, false, true]),
            // Without momentum a step is compared with the one before it.
            (
                &[1.0, 1.1, 1.21, 1.0],
                0.0,
                0.9,
                &[true, false, true, false],
            ),
            // Averages 0, 0.5, 0.75, 0.875.
            (&[1.0, 1.0, 1.0, 1.0], 0.5, 0.8, &[true, true, true, false]),
            // Above 1 steps are scaled that are surer than those before.
            (&[0.0, 0.0], 0.9, 1.1, &[true, true]),
            // exp(-u) = 1 is not below 1.
            (&[0.0, 0.0], 0.9, 1.0, &[false, false]),
        ];
        for &(uncertainties, momentum_rate, scaling_rate, expected) in cases {
            let mut momentum = Momentum::default();
            let scaled = uncertainties.iter().map(|&uncertainty| {
                let is_exceeded = momentum.is_exceeded(uncertainty, scaling_rate);
                momentum.add(uncertainty, momentum_rate);
                is_exceeded
            });
            assert_eq!(scaled.collect::<Vec<_>>(), expected, "{uncertainties:?}");
        }
    }
}
