//! Times of single operations on a card.
//!
//! Calls are captured in a graph, so that the host's launches cost nothing, and timed between two
//! events of the device. The card is kept busy for `WARM_UP` first, so that its clocks are up. What
//! a call reads is taken in turn from `TURNS` bytes.
//!
//! The emulator has no time. There the same calls run once, and the figures are the seconds of this
//! machine: they show that everything works and mean nothing else.
#![allow(unsafe_code)] // Events of the driver; each use states what it relies on.

use super::{Attention, Beam, Linear};
use crate::cuda::device::driver_message;
use crate::cuda::graph;
use crate::cuda::items::Sharing;
use crate::cuda::{CublasLtLibrary, CudaBackend, Which, device};
use crate::sampling::{Draw, Sampling};
use crate::{Activation, Backend, Error};
use cudarc::driver::{DriverError, result, sys};
use std::time::{Duration, Instant};

/// Work before the first measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// Bytes that calls read in turn, more than any L2 holds. Of small matrices [`CALLS`] copies have fewer.
const TURNS: usize = 256 << 20;
/// Measured spans; the median is taken.
const SPANS: usize = 9;
/// Calls of one span.
const CALLS: usize = 20;

/// A card opened for timing.
pub struct Stopwatch {
    backend: CudaBackend,
    /// The library of linear layers, where it is installed.
    library: bool,
    warm: bool,
}

impl Stopwatch {
    /// Opens a card.
    ///
    /// # Errors
    ///
    /// The card cannot be opened.
    pub fn open(which: Which) -> Result<Stopwatch, Error> {
        let backend = CudaBackend::open(which)?;
        Ok(Stopwatch {
            library: backend.cublaslt.is_some(),
            backend,
            warm: false,
        })
    }

    /// The card.
    pub fn backend(&mut self) -> &mut CudaBackend {
        &mut self.backend
    }

    /// Whether times are those of the emulator, which mean nothing.
    pub fn emulated(&self) -> bool {
        self.backend.emulated()
    }

    /// Calls of a span: on the emulator one.
    fn calls(&self) -> usize {
        if self.emulated() { 1 } else { CALLS }
    }

    /// Seconds of one of `calls` calls, which must be launches alone and have run once before.
    pub(super) fn graphed(
        &mut self,
        calls: usize,
        mut call: impl FnMut(&mut CudaBackend, usize),
    ) -> Result<f64, Error> {
        let pass = &mut |backend: &mut CudaBackend| (0..calls).for_each(|i| call(backend, i));
        let Some(graph) = graph::capture(&mut self.backend, pass) else {
            let card = &self.backend.card;
            return Err(card.failure("timing", "the calls cannot be captured in a graph"));
        };
        // SAFETY: the caller holds the buffers that its calls use, and nothing replaces them meanwhile.
        self.spans(calls, |_| unsafe { graph.launch() })
    }

    /// Seconds of one of the `calls` calls that `span` makes: the median of the spans.
    pub(super) fn spans(
        &mut self,
        calls: usize,
        mut span: impl FnMut(&mut CudaBackend) -> Result<(), Error>,
    ) -> Result<f64, Error> {
        let backend = &mut self.backend;
        backend.synchronize()?;
        if backend.emulated() {
            let start = Instant::now();
            span(backend)?;
            backend.synchronize()?;
            return Ok(start.elapsed().as_secs_f64() / calls as f64);
        }
        let start = Instant::now();
        while !self.warm && start.elapsed() < WARM_UP {
            span(backend)?;
            backend.synchronize()?;
        }
        self.warm = true;
        let mut seconds = Vec::new();
        for _ in 0..SPANS {
            seconds.push(between_events(backend, &mut span)? / calls as f64);
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[SPANS / 2])
    }

    /// Seconds of one attention call over a beam's tree. The calls take layers in turn, so that L2
    /// holds no K and V from one to the next.
    ///
    /// # Errors
    ///
    /// The device failed, or computed a wrong result.
    pub fn attention(
        &mut self,
        beam: &Beam,
        heads: (usize, usize, usize),
        sharing: Sharing,
    ) -> Result<f64, Error> {
        let (calls, emulated) = (self.calls(), self.emulated());
        let (plan, _) = beam.plan();
        let layer_bytes = plan.kv_tokens() * 4 * heads.1 * heads.2;
        let turns = if emulated { 1 } else { TURNS };
        let layers = turns.div_ceil(layer_bytes).clamp(1, calls);
        self.backend.set_sharing(sharing);
        let mut step = Attention::new(&mut self.backend, beam, heads, layers)?;
        // Compiles, makes the plan's work and checks the answer before anything is timed.
        for layer in 0..layers {
            step.clear(&mut self.backend)?;
            step.run(&mut self.backend, layer);
            step.check(&mut self.backend)?;
        }
        self.graphed(calls, |backend, i| step.run(backend, i % layers))
    }

    /// Seconds of one linear layer of `rows` x `n` x `k` by this project's kernel, and by cuBLASLt
    /// where it is installed and has one.
    ///
    /// # Errors
    ///
    /// The device failed.
    pub fn linear(
        &mut self,
        (rows, n, k): (usize, usize, usize),
    ) -> Result<Vec<(&'static str, f64)>, Error> {
        let calls = self.calls();
        let copies = self.copies(2 * n * k);
        let layers: Result<Vec<_>, _> = (0..copies)
            .map(|_| Linear::new(&mut self.backend, (rows, n, k), n))
            .collect();
        let mut layers = layers?;
        let mut call = |backend: &mut CudaBackend, i: usize| {
            let p = &mut layers[i % copies];
            backend.linear(&p.x, &p.weight, None, rows, false, &mut p.out);
        };
        let mut times = Vec::new();
        for library in [false, true] {
            if library && !self.library {
                continue;
            }
            self.use_library(library)?;
            (0..copies).for_each(|i| call(&mut self.backend, i));
            if library && self.backend.cublaslt_products() == Some(0) {
                continue;
            }
            let name = if library { "cublaslt" } else { "kernel" };
            times.push((name, self.graphed(calls, &mut call)?));
        }
        Ok(times)
    }

    /// Seconds of a gated linear layer of `rows` x `n` outputs (`2 n` rows of weights): in one kernel,
    /// and as a linear layer with SwiGLU behind it, both by this project's kernels.
    ///
    /// # Errors
    ///
    /// The device failed.
    pub fn gated(
        &mut self,
        (rows, n, k): (usize, usize, usize),
    ) -> Result<Vec<(&'static str, f64)>, Error> {
        let calls = self.calls();
        let copies = self.copies(4 * n * k);
        let layers: Result<Vec<_>, _> = (0..copies)
            .map(|_| Linear::new(&mut self.backend, (rows, 2 * n, k), n))
            .collect();
        let mut layers = layers?;
        let mut gate_up = self.backend.half_activations(rows, 2 * n)?;
        self.use_library(false)?;
        let mut times = Vec::new();
        for (name, fused) in [("fused", true), ("apart", false)] {
            let mut call = |backend: &mut CudaBackend, i: usize| {
                let Linear { weight, x, out, .. } = &mut layers[i % copies];
                let activation = Activation::Silu;
                if fused {
                    backend.linear_gated(x, weight, None, activation, rows, &mut gate_up, out);
                } else {
                    backend.linear(x, weight, None, rows, false, &mut gate_up);
                    backend.gated(&gate_up, activation, rows, out);
                }
            };
            (0..copies).for_each(|i| call(&mut self.backend, i));
            times.push((name, self.graphed(calls, call)?));
        }
        Ok(times)
    }

    /// Seconds of drawing a token from each of `draws` rows of `vocab` logits, the upload of the
    /// draws included; `peaked`: one logit in 64 is far above the others, as after a confident step.
    ///
    /// # Errors
    ///
    /// The device failed.
    pub fn sampling(
        &mut self,
        draws: usize,
        vocab: usize,
        sampling: &Sampling,
        peaked: bool,
    ) -> Result<f64, Error> {
        let calls = self.calls();
        let mut logits = self.backend.activations(draws, vocab)?;
        let row: Vec<f32> = (0..vocab)
            .map(|i| {
                ((i * 7919) % 997) as f32 / 500.0 + if peaked && i % 64 == 0 { 20.0 } else { 0.0 }
            })
            .collect();
        self.backend.write(&mut logits, &row.repeat(draws))?;
        let all: Vec<Draw<'_>> = (0..draws)
            .map(|row| Draw {
                row,
                key: row as u64,
                position: 1,
                sampling,
                history: &[],
                confidence: false,
            })
            .collect();
        let pending = self.backend.sample(&logits, &all);
        self.backend.finish_samples(pending)?;
        // Dropping one waits for it: those of a span are dropped when the next begins.
        let mut pending = Vec::new();
        self.spans(calls, |backend| {
            pending.clear();
            pending.extend((0..calls).map(|_| backend.sample(&logits, &all)));
            Ok(())
        })
    }

    /// Copies of a matrix of so many bytes that calls take in turn.
    fn copies(&self, bytes: usize) -> usize {
        if self.emulated() {
            return 1;
        }
        TURNS.div_ceil(bytes).clamp(2, CALLS)
    }

    /// Computes linear layers of any number of rows by cuBLASLt, or by this project's kernels.
    fn use_library(&mut self, on: bool) -> Result<(), Error> {
        let library = match on {
            true => CublasLtLibrary::find(self.emulated(), device::driver_version())
                .map_err(|e| self.backend.card.failure("cuBLASLt", &e))?,
            false => None,
        };
        self.backend.set_cublaslt(library)?;
        self.backend.set_cublaslt_min_rows(1);
        Ok(())
    }
}

/// Seconds between two events of the device around what `span` enqueues.
fn between_events(
    backend: &mut CudaBackend,
    span: &mut impl FnMut(&mut CudaBackend) -> Result<(), Error>,
) -> Result<f64, Error> {
    let card = std::rc::Rc::clone(&backend.card);
    let failed = |e: DriverError| card.failure("timing", &driver_message(&e));
    let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failed);
    card.bind()?;
    let (start, end) = (event()?, event()?);
    // SAFETY: events of this context and the card's stream, all alive.
    unsafe { result::event::record(start, card.stream()) }.map_err(failed)?;
    span(backend)?;
    // SAFETY: as above.
    unsafe { result::event::record(end, card.stream()) }.map_err(failed)?;
    backend.synchronize()?;
    // SAFETY: both are recorded and done; destroyed once, and used by nobody then.
    unsafe {
        let milliseconds = result::event::elapsed(start, end).map_err(failed)?;
        result::event::destroy(start).map_err(failed)?;
        result::event::destroy(end).map_err(failed)?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}
