//! Sampling: draws are divided among threads.
//!
//! What: the exact arithmetic of [`crate::sampling`], draw by draw.
//! Tiling: one draw at a time; each thread has its own [`Sampler`].
//! Layout: logits row-major `[rows, vocabulary]`.
//! Numerics: integer weights; a draw's bits depend on its own logits, key and position alone.
//! Budget, per draw: three reads of the logits (`4 * vocabulary` bytes each), about
//! `50 * vocabulary` operations; with its confidence two more reads and `4 * vocabulary` operations.

use super::buffers::Activations;
use super::workers::Workers;
use crate::Error;
use crate::sampling::{Draw, Sample, Sampler};
use std::cell::RefCell;

thread_local! {
    static SAMPLER: RefCell<Sampler> = RefCell::new(Sampler::new());
}

/// [`Backend::sample`](crate::Backend::sample); returns the error of the first draw that fails.
pub(crate) fn sample(
    workers: &Workers,
    logits: &Activations,
    draws: &[Draw<'_>],
) -> Result<Vec<Sample>, Error> {
    let mut samples: Vec<Option<Result<Sample, Error>>> = Vec::new();
    samples.resize_with(draws.len(), || None);
    let operations = 50 * draws.len() * logits.cols();
    workers.rows(&mut samples, 1, operations, |i, sample| {
        let draw = &draws[i];
        let drawn = SAMPLER.with_borrow_mut(|sampler| sampler.draw(logits.row(draw.row), draw));
        sample[0] = Some(drawn);
    });
    samples
        .into_iter()
        .map(|sample| sample.expect("every draw was drawn"))
        .collect()
}
