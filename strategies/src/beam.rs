//! Beam search over steps, guided by a process reward model.
//!
//! *Can 1B LLM Surpass 405B LLM?* (arXiv 2502.06703), section 2.2, after Snell et al. (arXiv
//! 2408.03314), section 5.1; exact semantics in TTS.md 2.4. N candidates are written in a round,
//! kept = N/M survive, each has M children.
//!
//! - [`BeamMode::Paper`]: kept candidates that finished hold their slot, so fewer go on. Up to
//!   N/M solutions.
//! - [`BeamMode::SearchAndLearn`]: finished candidates leave; the N/M best of the others are
//!   duplicated round-robin to N. Up to N solutions, the best first. Unlike search-and-learn a
//!   list that is too short is not padded with copies, which would distort a vote, and the step
//!   limit ends a path instead of letting the last step run to its end.
//!
//! In both a path that finds no valid next step in all tries ends there. The order among
//! candidates is total: value, then the parent's value, then the branch index.

use crate::search::{Path, Search, keep_best, record};
use crate::{BeamMode, Error, Policy, Prm, Solution, Trace};
use futures::future::try_join_all;

/// Searches below `root` until every path has ended.
pub(crate) async fn beam<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
    root: Path<P, R>,
) -> Result<(Vec<Solution>, Trace), Error> {
    let (n, mode) = (search.config.n, search.config.beam_mode);
    let kept = n / search.config.beam_width;
    let mut trace = Trace::new();
    let mut ended: Vec<Path<P, R>> = Vec::new();
    let mut beams = vec![root];
    let mut budget = n; // the children of the next round
    while !beams.is_empty() {
        let families = beams.iter().enumerate().map(|(i, beam)| {
            let width = budget / beams.len() + usize::from(i < budget % beams.len());
            search.expand(beam, width)
        });
        let families = try_join_all(families).await?;

        let mut candidates = Vec::new();
        for (beam, family) in beams.into_iter().zip(families) {
            let children = record(&mut trace, beam.node, family);
            if children.is_empty() {
                ended.push(beam.give_up(&mut trace));
            }
            candidates.extend(children);
        }
        let done = |path: &Path<P, R>| path.ending.is_some();
        beams = match mode {
            BeamMode::Paper => {
                let slots = kept.saturating_sub(ended.len());
                let best = keep_best(candidates, slots, &mut trace);
                let (finished, going_on): (Vec<_>, Vec<_>) = best.into_iter().partition(done);
                ended.extend(finished);
                going_on
            }
            BeamMode::SearchAndLearn => {
                let (finished, active): (Vec<_>, Vec<_>) = candidates.into_iter().partition(done);
                ended.extend(finished);
                keep_best(active, kept, &mut trace)
            }
        };
        budget = match mode {
            BeamMode::Paper => beams.len() * search.config.beam_width,
            BeamMode::SearchAndLearn => n,
        };
    }
    if mode == BeamMode::SearchAndLearn {
        ended.sort_by(|a, b| b.value.total_cmp(&a.value));
        ended.truncate(n);
    }
    Ok((ended.into_iter().map(Path::solution).collect(), trace))
}
