//! Sampling on the device: `sample.cu`.
#![allow(unsafe_code)] // Launches: each passes its kernel's parameters, sizes checked before.

use super::device::{Card, Grid, launch};
use super::memory::{Copying, Growing, Pinned};
use super::plan::{Plan, Pool, Pooled};
use super::{Activations, catalog};
use crate::plan::Substitution;
use crate::sampling::{Confidence, Draw, Sample};
use crate::{Dtype, Error};
use std::f32::consts::LOG2_E;
use std::rc::Rc;

/// Threads per block of `sample`.
pub(super) const THREADS: usize = 512;
/// Threads per block of `substitute_tokens`.
pub(super) const SUBSTITUTE_THREADS: usize = 128;
/// The weight of the most likely token.
pub(super) const MAX_WEIGHT: usize = 1 << 30;

/// `Draw` of `sample.cu`, which describes the fields.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct DeviceDraw {
    key: u64,
    position: u64,
    top_p: f64,
    row: u32,
    top_k: u32,
    history: u32,
    history_len: u32,
    scale: f32,
    penalty: f32,
    min_weight: u32,
    scratch: u32,
    confidence: u32,
    unused: u32,
}

/// `Drawn` of `sample.cu`, which describes the fields.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Drawn {
    sum: f64,
    below_sum: f64,
    top_below_sum: f64,
    total: u64,
    weight: u32,
    below: f32,
    token: u32,
    bad: u32,
    value: f32,
    unused: u32,
}

/// Memory of the calls; each call overwrites that of the last, in stream order. The drawn tokens of
/// each call have memory of their own, because the next batch may read them from there.
pub(super) struct Scratch {
    draws: Growing,
    history: Growing,
    penalised: Growing,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch {
            draws: Growing::new("draws"),
            history: Growing::new("the repetition penalty's history"),
            penalised: Growing::new("penalised logits"),
        }
    }
}

/// Sampled tokens that are being computed and copied.
pub struct Pending {
    drawn: Result<(Copying, Pooled), Error>,
    /// The row of each draw, for messages.
    rows: Vec<usize>,
    /// Whether each draw asks for its confidence.
    confidences: Vec<bool>,
    vocabulary: usize,
}

impl Pending {
    pub(super) fn new(
        drawn: Result<(Copying, Pooled), Error>,
        draws: &[Draw<'_>],
        vocabulary: usize,
    ) -> Pending {
        Pending {
            drawn,
            vocabulary,
            rows: draws.iter().map(|draw| draw.row).collect(),
            confidences: draws.iter().map(|draw| draw.confidence).collect(),
        }
    }

    pub(super) fn finish(self) -> Result<Vec<Sample>, Error> {
        let drawn: Vec<Drawn> = self.drawn?.0.finish()?;
        drawn
            .iter()
            .zip(self.rows.into_iter().zip(self.confidences))
            .map(|(drawn, (row, confidence))| match drawn.bad {
                0 => {
                    let logprob = f64::from(drawn.below) - drawn.sum.ln();
                    let (below, top) = (drawn.below_sum, drawn.top_below_sum);
                    let vocabulary = self.vocabulary;
                    let confidence =
                        confidence.then(|| Confidence::new(drawn.sum, below, top, vocabulary));
                    let sample = Sample::new(drawn.token, logprob, drawn.weight, drawn.total);
                    Ok(Sample {
                        confidence,
                        ..sample
                    })
                }
                _ => Err(Error::BadLogits {
                    row,
                    token: drawn.token as usize,
                    value: drawn.value,
                }),
            })
            .collect()
    }
}

pub(super) fn sample(
    card: &Rc<Card>,
    scratch: &mut Scratch,
    pool: &Pool,
    logits: &Activations,
    draws: &[Draw<'_>],
) -> Result<(Copying, Pooled), Error> {
    let vocabulary = logits.cols;
    if logits.dtype != Dtype::F32 {
        return Err(Error::Unsupported {
            device: card.name().into(),
            what: "drawing from bfloat16 logits".into(),
        });
    }
    let Described {
        draws: device_draws,
        history,
        penalised,
    } = describe(logits, draws);

    let count = draws.len();
    let staged = scratch
        .draws
        .of(card, std::mem::size_of_val(&device_draws[..]))?;
    staged.upload(&device_draws)?;
    let ids = scratch.history.of(card, 4 * history.len())?;
    ids.upload(&history)?;
    let rows = scratch
        .penalised
        .of(card, 4 * penalised as usize * vocabulary)?;
    let bytes = count * size_of::<Drawn>();
    let drawn = pool.take(card, bytes)?;
    let function = card.function(&catalog::sample(), "sample", 0)?;
    let grid = Grid {
        blocks: (count, 1),
        threads: THREADS,
        shared: 0,
    };
    launch!(
        card,
        function,
        grid,
        &|| format!("{count} draws of {vocabulary}"),
        logits.buffer.at(),
        logits.pitch as u32,
        vocabulary as u32,
        staged.at(),
        ids.at(),
        rows.at(),
        drawn.at(),
    )?;
    let copying = drawn.get().read(0, Pinned::new(card, bytes)?)?;
    Ok((copying, drawn))
}

/// The draws as the kernel reads them.
struct Described {
    draws: Vec<DeviceDraw>,
    /// The histories of all draws with a repetition penalty, one after the other.
    history: Vec<u32>,
    /// Draws with a row of penalised logits.
    penalised: u32,
}

/// Panics where a draw's row, temperature or history is out of range.
fn describe(logits: &Activations, draws: &[Draw<'_>]) -> Described {
    let vocabulary = logits.cols;
    let mut history: Vec<u32> = Vec::new();
    let mut penalised = 0;
    let device_draw = |draw: &Draw<'_>| {
        let sampling = draw.sampling;
        logits.require(draw.row + 1, "the logits");
        assert!(
            sampling.temperature >= 0.0,
            "temperature {} is not a number from 0 up",
            sampling.temperature
        );
        let first = history.len() as u32;
        if sampling.repetition_penalty != 1.0 {
            let known = draw.history.iter().all(|&id| (id as usize) < vocabulary);
            assert!(known, "history beyond a vocabulary of {vocabulary}");
            history.extend(draw.history);
        }
        let history_len = history.len() as u32 - first;
        let scratch = penalised;
        penalised += u32::from(history_len > 0);
        DeviceDraw {
            key: draw.key,
            position: draw.position,
            top_p: f64::from(sampling.top_p.max(0.0)),
            row: draw.row as u32,
            top_k: sampling.top_k,
            history: first,
            history_len,
            scale: match sampling.temperature {
                0.0 => -1.0,
                temperature => (LOG2_E / temperature).min(f32::MAX),
            },
            penalty: sampling.repetition_penalty,
            min_weight: if sampling.min_p > 0.0 {
                (f64::from(sampling.min_p.min(1.0)) * MAX_WEIGHT as f64).ceil() as u32
            } else {
                0
            },
            scratch,
            confidence: u32::from(draw.confidence),
            unused: 0,
        }
    };
    Described {
        draws: draws.iter().map(device_draw).collect(),
        history,
        penalised,
    }
}

/// Puts drawn tokens into the rows of a plan, on the device.
pub(super) fn substitute_tokens(
    card: &Rc<Card>,
    pool: &Pool,
    plan: &mut Plan,
    substitutions: &[Substitution],
    samples: &Pending,
) -> Result<(), Error> {
    // Sampling failed: `finish_samples` returns the error.
    let Ok((_, drawn)) = &samples.drawn else {
        return Ok(());
    };
    for substitution in substitutions {
        assert!(
            (substitution.row as usize) < plan.step.rows.len(),
            "{substitution:?}"
        );
        assert!(
            (substitution.draw as usize) < samples.rows.len(),
            "{substitution:?}"
        );
    }
    plan.fed_below = samples.vocabulary;
    let staged = pool.upload(card, bytemuck::cast_slice(substitutions))?;
    let function = card.function(&catalog::sample(), "substitute_tokens", 0)?;
    let grid = Grid {
        blocks: (substitutions.len().div_ceil(SUBSTITUTE_THREADS), 1),
        threads: SUBSTITUTE_THREADS,
        shared: 0,
    };
    launch!(
        card,
        function,
        grid,
        &|| format!("{} rows", substitutions.len()),
        staged.at(),
        substitutions.len() as u32,
        drawn.at(),
        plan.at(),
    )
}
