//! Beam search over steps, guided by a process reward model.
//!
//! *Can 1B LLM Surpass 405B LLM?* (arXiv 2502.06703), section 2.2, after Snell et al. (arXiv
//! 2408.03314), section 5.1; SEMANTICS.md, "Beam search". A round writes N candidates, kept = N/M
//! survive, each survivor has M children.
//!
//! - [`BeamMode::Paper`]: a kept candidate that has finished holds its slot, so fewer go on. At
//!   most N/M solutions.
//! - [`BeamMode::SearchAndLearn`]: finished candidates leave; the N/M best of the others share N
//!   children round-robin. At most N solutions, the best first. Two differences from
//!   search-and-learn: a list that is too short is not padded with copies, which would distort a
//!   vote, and the step limit ends a path instead of letting the last step run to its end.
//!
//! With a calibration (instance-adaptive scaling, arXiv 2506.09338) a round keeps fewer paths with fewer
//! children where their probabilities of success suffice; SEMANTICS.md, "Instance-adaptive scaling".
//!
//! In both a path without a valid next step ends there. The order among candidates is total:
//! value, then the parent's value, then the branch index.

use super::{Row, validate_step_search};
use crate::adaptive::beam_shape;
use crate::{BeamMode, Config, Error, Expansion, Path, Policy, Prm, Search, Solution};

pub(super) const ROW: Row = Row {
    name: "beam",
    needs_prm: true,
    uses_beam_width: true,
    branches: true,
    adapts: true,
    stops: false,
    default_n: 16,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate: validate_step_search,
    candidates_per_solution: |_| None,
};

/// Searches until every path has ended.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let (n, m) = (search.config.n, search.config.beam_width);
    let (kept, mode) = (n / m, search.config.beam_mode);
    let mut ended: Vec<Path<P, R>> = Vec::new();
    let mut beams = vec![search.root().await?];
    let mut budget = n; // the children of the next round
    while !beams.is_empty() {
        let Expansion {
            candidates,
            dead_ends,
        } = search.expand(beams, budget).await?;
        ended.extend(dead_ends);

        let (finished, going_on, width): (Vec<_>, Vec<_>, usize) = match mode {
            BeamMode::Paper => {
                let slots = kept.saturating_sub(ended.len());
                let (slots, width) = shape(search.config, &candidates, slots);
                let best = search.keep_best(candidates, slots).into_iter();
                let (finished, going_on) = best.partition(Path::has_ended);
                (finished, going_on, width)
            }
            BeamMode::SearchAndLearn => {
                let (finished, others): (Vec<_>, Vec<_>) =
                    candidates.into_iter().partition(Path::has_ended);
                let (slots, width) = shape(search.config, &others, kept);
                (finished, search.keep_best(others, slots), width)
            }
        };
        ended.extend(finished);
        beams = going_on;
        budget = match mode {
            BeamMode::SearchAndLearn if search.config.calibration.is_none() => n,
            _ => beams.len() * width,
        };
    }
    if mode == BeamMode::SearchAndLearn {
        ended.sort_by(|a, b| b.value().total_cmp(&a.value()));
        ended.truncate(n);
    }
    Ok(ended.into_iter().map(Path::into_solution).collect())
}

/// How many of a round's candidates are kept, at most `slots`, and how many children each has: M, or what
/// a calibration says that the round needs.
fn shape<P: Policy, R: Prm>(
    config: &Config,
    candidates: &[Path<P, R>],
    slots: usize,
) -> (usize, usize) {
    let Some(map) = &config.calibration else {
        return (slots, config.beam_width);
    };
    let values = candidates.iter().map(Path::value);
    let probabilities: Vec<f64> = values.map(|value| map.probability(value)).collect();
    beam_shape(&probabilities, slots, config.beam_width, config.confidence)
}
