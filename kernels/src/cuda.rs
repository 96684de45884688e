//! The CUDA backend: hand-written kernels, compiled at run time for the card in use.
//!
//! Weights and the KV cache are bf16; so are activations that are only inputs of linear layers. The
//! residual stream and the head's output are f32, as are all sums. The sources lie in
//! `kernels/cuda`, each with its tiling, layout, numerics and budget on top. Here are their table
//! (`catalog`) and their launchers, one file per source, above `items` (the attention's work, a pure
//! function), `device` (driver, compiler, launches), `memory` and `cache`.
//!
//! Driver and compiler are loaded when a card is opened: one program serves machines with and
//! without CUDA. The same code drives the emulator (`kernels/emulator`).
//!
//! An operation that cannot be enqueued makes the backend refuse everything after it; the next call
//! that can fail returns the error, which names kernel and shape.
//!
//! # What bits depend on
//!
//! A row's numbers do not depend on what other rows hold. They may depend on how many there are:
//! linear layers of up to 64 rows and of more sum in different orders, and the cut of the
//! attention's work decides where its sums are merged. Two runs of the same batches give the same
//! bits.

mod attention;
mod attention_work;
mod cache;
pub mod catalog;
pub mod cubin;
mod cublaslt;
mod device;
mod graph;
pub mod items;
mod libraries;
mod linear;
mod memory;
mod nvrtc;
mod plan;
mod rows;
mod sample;
pub mod study;
pub mod tiling;

pub use cublaslt::{Library as CublasLtLibrary, VARIABLE as CUBLASLT_VARIABLE};
pub use device::{
    EMULATOR_VARIABLE, Found, Which, cards, compile_for, driver_version, emulator, emulator_calls,
    emulator_count, emulator_counters,
};
pub use graph::Recordings;
pub use linear::{LinearLaunch, taken_by_cublaslt};
pub use memory::Buffer;
pub use nvrtc::{Compiler, INSTALL as NVRTC_INSTALL, Job, Output};
pub use plan::{Plan, decodes, padded_rows};

/// The folder of compiled kernels; `None` if no variable names one and there is no home folder.
pub fn cache_folder() -> Option<std::path::PathBuf> {
    cache::folder()
}

use crate::backend::DEFAULT_KV_BYTES;
use crate::plan::{BatchPlan, BlockId, Substitution};
use crate::sampling::{Draw, Sample};
use crate::{
    Activation, Allocation, Backend, Dtype, Error, KvDtype, KvLayout, MatrixView, RopeTable,
};
use device::Card;
use half::bf16;
use memory::{Copying, Growing, Lasting, Pinned};
use plan::{Places, Pool};
use std::ops::Range;
use std::rc::Rc;

/// One card, its kernels and the scratch memory they share.
pub struct CudaBackend {
    card: Rc<Card>,
    /// The error of the first operation that failed.
    failed: Option<Error>,
    memory: Lasting,
    /// The fraction of the free memory that may be allocated; `None`: no limit.
    fraction: Option<f64>,
    /// Buffers of finished plans, for reuse.
    plans: Pool,
    places: Places,
    /// Whether decode batches are recorded.
    graphs: bool,
    attention: attention::Scratch,
    sampling: sample::Scratch,
    pairs: Growing,
    sharing: items::Sharing,
    /// Computes linear layers of many rows, where it is installed.
    cublaslt: Option<cublaslt::CublasLt>,
}

/// A weight matrix, bf16, `[rows][pitch]`; the surplus columns are zeros.
pub struct Weight {
    buffer: Buffer,
    rows: usize,
    cols: usize,
    pitch: usize,
}

/// An f32 vector, padded with zeros to a multiple of 8.
pub struct Vector {
    buffer: Buffer,
    /// The same numbers in bf16 where that loses nothing (a bias of a bf16 checkpoint): cuBLASLt
    /// takes a bias in the output's type.
    half: Option<Buffer>,
    len: usize,
}

impl Vector {
    /// Its address in a type; `None` if the numbers are not all of that type.
    fn at(&self, dtype: Dtype) -> Option<u64> {
        match dtype {
            Dtype::F32 => Some(self.buffer.at()),
            _ => self.half.as_ref().map(Buffer::at),
        }
    }
}

/// Cosines, then sines.
pub struct Rope {
    buffer: Buffer,
    half_dim: usize,
    positions: usize,
}

/// A buffer of activations, `[rows][pitch]`, f32 or bf16.
pub struct Activations {
    buffer: Buffer,
    rows: usize,
    cols: usize,
    pitch: usize,
    dtype: Dtype,
}

/// The KV arena.
pub struct Arena {
    buffer: Buffer,
}

/// Values that are being copied to the host.
pub struct PendingRead {
    copying: Result<Copying, Error>,
    rows: usize,
    cols: usize,
    pitch: usize,
    dtype: Dtype,
}

impl Activations {
    /// The index of the type's suffix in kernels' names: f32, bf16.
    fn suffix(&self) -> usize {
        match self.dtype {
            Dtype::F32 => 0,
            Dtype::Bf16 => 1,
            Dtype::F16 => unreachable!("activations are f32 or bf16"),
        }
    }

    fn require(&self, rows: usize, what: &str) {
        assert!(
            rows <= self.rows,
            "{rows} rows of {what}, which has {}",
            self.rows
        );
    }
}

/// The bytes of head output that a card of `memory` bytes has room for: 1/64 of it, at most 512 rows
/// of the largest vocabularies in use (262,144 tokens).
pub fn max_head_bytes(memory: usize) -> usize {
    (memory / 64).clamp(64 << 20, 512 << 20)
}

/// [`CudaBackend::default_memory_fraction`].
fn default_memory_fraction(integrated: bool) -> f64 {
    if integrated { 0.5 } else { 0.9 }
}

/// Rows of one batch: chunks of a prefill that keep a card's tensor cores busy. Not measured.
pub const MAX_BATCH_ROWS: usize = 2048;

impl CudaBackend {
    /// Opens a card, or the emulated one.
    ///
    /// # Errors
    ///
    /// No driver, no compiler (with the command that installs it), a card that is too old.
    pub fn open(which: Which) -> Result<CudaBackend, Error> {
        let card = Card::open(which)?;
        // The real library does not run on the emulator, nor the emulator's on a card.
        let library = CublasLtLibrary::find(card.limits().emulated, device::driver_version());
        let library = library.map_err(|why| card.failure("cuBLASLt", &why))?;
        let opened = library.map(|library| cublaslt::CublasLt::open(&card, library));
        let cublaslt = match opened.transpose() {
            Ok(cublaslt) => cublaslt,
            // One that was named must work; one that was found is a help at most.
            Err(why) if std::env::var_os(cublaslt::VARIABLE).is_some() => return Err(why),
            Err(why) => {
                eprintln!("linear layers run without cuBLASLt: {why}");
                None
            }
        };
        Ok(CudaBackend {
            cublaslt,
            failed: None,
            memory: Lasting::new(&card),
            fraction: None,
            plans: Pool::default(),
            places: Places::default(),
            graphs: true,
            attention: attention::Scratch::new(),
            sampling: sample::Scratch::new(),
            pairs: Growing::new("pairs of blocks"),
            sharing: items::Sharing::Tree,
            card,
        })
    }

    /// Limits models and KV cache to this fraction of the memory that is free when they are loaded,
    /// in two arenas allocated once. The rest is for plans, scratch memory and the driver. Without
    /// it every buffer is an allocation of its own, whose bounds the emulator checks.
    pub fn set_memory_fraction(&mut self, fraction: f64) {
        self.fraction = Some(fraction);
    }

    /// The share of its free memory that models and KV cache take unless an option says otherwise: 0.9,
    /// and 0.5 where it is the host's memory (Jetson, GB10), which the driver reports as the card's.
    pub fn default_memory_fraction(&self) -> f64 {
        default_memory_fraction(self.card.limits().integrated)
    }

    /// Turns the recording of decode batches as CUDA graphs on (the default) or off.
    pub fn set_graphs(&mut self, on: bool) {
        self.graphs = on;
    }

    /// Sets how much of the tree attention uses, for studies; the default is every level that pays.
    pub fn set_sharing(&mut self, sharing: items::Sharing) {
        self.sharing = sharing;
    }

    /// Computes linear layers of many rows by a cuBLASLt, or, with `None`, by the kernels here.
    ///
    /// # Errors
    ///
    /// The library cannot be used on this card.
    pub fn set_cublaslt(&mut self, library: Option<CublasLtLibrary>) -> Result<(), Error> {
        self.cublaslt = library
            .map(|library| cublaslt::CublasLt::open(&self.card, library))
            .transpose()?;
        Ok(())
    }

    /// Sets the rows from which cuBLASLt computes linear layers, to time both sides of the threshold.
    pub fn set_cublaslt_min_rows(&mut self, rows: usize) {
        if let Some(library) = &mut self.cublaslt {
            library.set_min_rows(rows);
        }
    }

    /// The number of linear layers that cuBLASLt has computed; `None` where it is not in use.
    pub fn cublaslt_products(&self) -> Option<u64> {
        self.cublaslt.as_ref().map(cublaslt::CublasLt::calls)
    }

    /// The number of shapes that cuBLASLt has chosen a kernel for; `None` where it is not in use.
    pub fn cublaslt_shapes(&self) -> Option<usize> {
        self.cublaslt.as_ref().map(cublaslt::CublasLt::shapes)
    }

    /// Bytes of free memory.
    ///
    /// # Errors
    ///
    /// The driver does not say.
    pub fn free_memory(&self) -> Result<usize, Error> {
        self.card.free_memory()
    }

    /// Whether this is the emulator.
    pub fn emulated(&self) -> bool {
        self.card.limits().emulated
    }

    /// Runs an operation unless one failed before; keeps the first failure.
    fn enqueue(&mut self, operation: impl FnOnce(&mut CudaBackend) -> Result<(), Error>) {
        if self.failed.is_none() {
            self.failed = operation(self).err();
        }
    }

    fn healthy(&mut self) -> Result<(), Error> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn buffer(&mut self, rows: usize, cols: usize, dtype: Dtype) -> Result<Activations, Error> {
        let pitch = memory::padded(cols);
        let bytes = rows * pitch * dtype.bytes();
        Ok(Activations {
            buffer: self.memory.zeroed(bytes, "activations")?,
            rows,
            cols,
            pitch,
            dtype,
        })
    }

    /// Overwrites the first elements of a buffer, in row-major order, rounding to its type.
    ///
    /// # Errors
    ///
    /// The copy failed.
    pub fn write(&mut self, x: &mut Activations, values: &[f32]) -> Result<(), Error> {
        x.require(values.len().div_ceil(x.cols), "a buffer written to");
        let pitch = x.pitch * x.dtype.bytes();
        for (r, row) in values.chunks(x.cols).enumerate() {
            match x.dtype {
                Dtype::F32 => x.buffer.write(r * pitch, row)?,
                _ => {
                    let rounded: Vec<bf16> = row.iter().map(|&v| bf16::from_f32(v)).collect();
                    x.buffer.write(r * pitch, &rounded)?;
                }
            }
        }
        Ok(())
    }

    /// Fills the arena with one byte, for tests.
    ///
    /// # Errors
    ///
    /// The device failed.
    pub fn fill(&mut self, arena: &mut Arena, byte: u8) -> Result<(), Error> {
        arena.buffer.fill(byte)
    }

    /// Waits for all work.
    ///
    /// # Errors
    ///
    /// What failed first.
    pub fn synchronize(&mut self) -> Result<(), Error> {
        self.healthy()?;
        self.card.synchronize()
    }
}

impl Backend for CudaBackend {
    type Weight = Weight;
    type Vector = Vector;
    type Rope = Rope;
    type Activations = Activations;
    type Arena = Arena;
    type Plan = Plan;
    type Recordings = Recordings;
    type PendingSamples = sample::Pending;
    type PendingRead = PendingRead;

    fn name(&self) -> String {
        let (major, minor) = self.card.limits().capability;
        format!("{} (CUDA, sm_{major}{minor})", self.card.name())
    }

    fn async_scheduling(&self) -> bool {
        true
    }

    fn max_batch_rows(&self) -> usize {
        MAX_BATCH_ROWS
    }

    fn max_head_bytes(&self) -> usize {
        max_head_bytes(self.card.limits().memory)
    }

    fn kv_dtype(&self, _weights: Dtype) -> KvDtype {
        Dtype::Bf16.into()
    }

    fn check_layout(&self, layout: &KvLayout) -> Result<(), Error> {
        let refuse = |what: String| {
            Err(Error::Unsupported {
                device: self.card.name().into(),
                what,
            })
        };
        if layout.dtype != Dtype::Bf16.into() {
            return refuse(format!(
                "a KV cache of {} (only bfloat16)",
                layout.dtype.name()
            ));
        }
        if !layout.head_dim.is_multiple_of(16) || layout.head_dim > 256 {
            return refuse(format!(
                "head dimension {} (only multiples of 16 up to 256)",
                layout.head_dim
            ));
        }
        Ok(())
    }

    fn reserve(
        &mut self,
        models: &[Allocation],
        layouts: &[KvLayout],
        kv_bytes: Option<usize>,
    ) -> Result<usize, Error> {
        let dims = layouts.iter().map(|layout| layout.head_dim);
        let reachable = dims.map(attention::max_arena).min().unwrap_or(usize::MAX);
        if let Some(bytes) = kv_bytes.filter(|&bytes| bytes > reachable) {
            return Err(Error::Unsupported {
                device: self.card.name().into(),
                what: format!("a KV cache of {bytes} bytes (at most {reachable})"),
            });
        }
        let Some(fraction) = self.fraction else {
            return Ok(kv_bytes.unwrap_or(DEFAULT_KV_BYTES));
        };
        let weights = memory::reserved_bytes(models);
        let free = self.card.free_memory()?;
        let allowed = (free as f64 * fraction) as usize;
        let fitting = allowed.checked_sub(weights);
        let one_block = || layouts.iter().map(KvLayout::block_bytes).sum();
        let least = kv_bytes.unwrap_or_else(one_block);
        if fitting.is_none_or(|left| left < least) {
            return Err(Error::DoesNotFit {
                device: self.card.name().into(),
                weights,
                kv: least,
                allowed,
                fraction,
                free,
            });
        }
        self.memory.reserve(weights)?;
        let left = fitting.unwrap_or(0).min(reachable);
        // The emulated card's memory is this machine's.
        let left = if self.emulated() {
            left.min(DEFAULT_KV_BYTES)
        } else {
            left
        };
        Ok(kv_bytes.unwrap_or(left))
    }

    fn load_matrix(&mut self, parts: &[MatrixView<'_>]) -> Result<Weight, Error> {
        linear::load(&self.memory, parts)
    }

    fn weight_bytes(&self, weight: &Weight) -> usize {
        weight.buffer.bytes()
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Vector, Error> {
        let mut padded = values.to_vec();
        padded.resize(memory::padded(values.len()), 0.0);
        let half: Vec<bf16> = padded.iter().map(|&v| bf16::from_f32(v)).collect();
        let exact = half.iter().zip(&padded).all(|(h, v)| h.to_f32() == *v);
        let half = exact.then(|| self.memory.of(&half, "a vector"));
        Ok(Vector {
            buffer: self.memory.of(&padded, "a vector")?,
            half: half.transpose()?,
            len: values.len(),
        })
    }

    fn load_rope(&mut self, table: RopeTable) -> Result<Rope, Error> {
        let both = [&table.cos[..], &table.sin].concat();
        Ok(Rope {
            buffer: self.memory.of(&both, "a rotary table")?,
            half_dim: table.half_dim,
            positions: table.cos.len() / table.half_dim,
        })
    }

    fn activations(&mut self, rows: usize, cols: usize) -> Result<Activations, Error> {
        self.buffer(rows, cols, Dtype::F32)
    }

    fn half_activations(&mut self, rows: usize, cols: usize) -> Result<Activations, Error> {
        self.buffer(rows, cols, Dtype::Bf16)
    }

    fn arena(&mut self, bytes: usize) -> Result<Arena, Error> {
        // Zeros, because copies of blocks include slots that were never written.
        Ok(Arena {
            buffer: Buffer::zeroed(&self.card, bytes, "the KV arena")?,
        })
    }

    fn upload(&mut self, plan: &BatchPlan) -> Result<Plan, Error> {
        self.healthy()?;
        Plan::upload(&self.card, &self.plans, &mut self.places, plan)
    }

    fn padded_rows(&self, plan: &BatchPlan) -> usize {
        let rows = plan.rows.len();
        let library = self.cublaslt.as_ref();
        plan::padded_rows(plan, library.is_some_and(|lt| rows >= lt.min_rows()))
    }

    fn record(
        &mut self,
        recordings: &mut Recordings,
        plan: &Plan,
        pass: &mut dyn FnMut(&mut CudaBackend),
    ) {
        graph::run(self, recordings, plan, pass);
    }

    fn substitute_tokens(
        &mut self,
        plan: &mut Plan,
        substitutions: &[Substitution],
        samples: &sample::Pending,
    ) {
        self.enqueue(|b| {
            sample::substitute_tokens(&b.card, &b.plans, plan, substitutions, samples)
        });
    }

    fn embed(&mut self, table: &Weight, plan: &Plan, scale: f32, out: &mut Activations) {
        self.enqueue(|b| rows::embed(&b.card, table, plan, scale, out));
    }

    fn rms_norm(
        &mut self,
        x: &Activations,
        weight: &Vector,
        eps: f32,
        rows: usize,
        out: &mut Activations,
    ) {
        self.enqueue(|b| rows::rms_norm(&b.card, x, weight, eps, rows, false, out));
    }

    fn add_rms_norm(
        &mut self,
        x: &Activations,
        weight: &Vector,
        eps: f32,
        rows: usize,
        out: &mut Activations,
    ) {
        self.enqueue(|b| rows::rms_norm(&b.card, x, weight, eps, rows, true, out));
    }

    fn linear(
        &mut self,
        x: &Activations,
        w: &Weight,
        bias: Option<&Vector>,
        rows: usize,
        accumulate: bool,
        out: &mut Activations,
    ) {
        self.enqueue(|b| {
            let library = b.cublaslt.as_mut();
            linear::linear(&b.card, library, x, w, bias, rows, accumulate, out)
        });
    }

    fn linear_gated(
        &mut self,
        x: &Activations,
        w: &Weight,
        bias: Option<&Vector>,
        activation: Activation,
        rows: usize,
        gate_up: &mut Activations,
        out: &mut Activations,
    ) {
        if linear::by_library(self.cublaslt.as_mut(), bias, rows, gate_up.dtype).is_some() {
            self.linear(x, w, bias, rows, false, gate_up);
            self.gated(gate_up, activation, rows, out);
        } else {
            self.enqueue(|b| linear::linear_gated(&b.card, x, w, bias, activation, rows, out));
        }
    }

    fn rope_and_append(
        &mut self,
        qkv: &mut Activations,
        rope: &Rope,
        plan: &Plan,
        layout: &KvLayout,
        layer: usize,
        arena: &mut Arena,
    ) {
        self.enqueue(|b| rows::rope_and_append(&b.card, qkv, rope, plan, layout, layer, arena));
    }

    fn tree_attention(
        &mut self,
        qkv: &Activations,
        plan: &Plan,
        layout: &KvLayout,
        layer: usize,
        window: Option<u32>,
        arena: &Arena,
        out: &mut Activations,
    ) {
        self.enqueue(|b| {
            attention::tree_attention(b, qkv, plan, layout, layer, window, arena, out)
        });
    }

    fn qk_norm(
        &mut self,
        qkv: &mut Activations,
        q_weight: &Vector,
        k_weight: &Vector,
        eps: f32,
        rows: usize,
        layout: &KvLayout,
    ) {
        self.enqueue(|b| rows::qk_norm(&b.card, qkv, q_weight, k_weight, eps, rows, layout));
    }

    fn relu(&mut self, x: &mut Activations, rows: usize) {
        self.enqueue(|b| rows::relu(&b.card, x, rows));
    }

    fn gated(
        &mut self,
        gate_up: &Activations,
        activation: Activation,
        rows: usize,
        out: &mut Activations,
    ) {
        self.enqueue(|b| rows::gated(&b.card, gate_up, activation, rows, out));
    }

    fn gather_outputs(&mut self, x: &Activations, plan: &Plan, out: &mut Activations) {
        self.enqueue(|b| rows::gather(&b.card, x, plan, out));
    }

    fn copy_blocks(&mut self, layout: &KvLayout, pairs: &[(BlockId, BlockId)], arena: &mut Arena) {
        self.enqueue(|b| rows::copy_blocks(&b.card, &mut b.pairs, layout, pairs, arena));
    }

    fn sample(&mut self, logits: &Activations, draws: &[Draw<'_>]) -> sample::Pending {
        let pending = match self.healthy() {
            Ok(()) => sample::sample(&self.card, &mut self.sampling, &self.plans, logits, draws),
            Err(error) => Err(error),
        };
        sample::Pending::new(pending, draws, logits.cols)
    }

    fn finish_samples(&mut self, pending: sample::Pending) -> Result<Vec<Sample>, Error> {
        self.healthy()?;
        pending.finish()
    }

    fn read(&mut self, x: &Activations, rows: Range<usize>) -> PendingRead {
        x.require(rows.end, "a buffer read from");
        let pitch = x.pitch * x.dtype.bytes();
        let copying = self.healthy().and_then(|()| {
            let to = Pinned::new(&self.card, rows.len() * pitch)?;
            x.buffer.read(rows.start * pitch, to)
        });
        PendingRead {
            copying,
            rows: rows.len(),
            cols: x.cols,
            pitch: x.pitch,
            dtype: x.dtype,
        }
    }

    fn finish_read(&mut self, pending: PendingRead) -> Result<Vec<f32>, Error> {
        self.healthy()?;
        pending.finish()
    }
}

impl PendingRead {
    fn finish(self) -> Result<Vec<f32>, Error> {
        let copying = self.copying?;
        let mut values = Vec::with_capacity(self.rows * self.cols);
        match self.dtype {
            Dtype::F32 => {
                let all: Vec<f32> = copying.finish()?;
                for row in all.chunks_exact(self.pitch) {
                    values.extend_from_slice(&row[..self.cols]);
                }
            }
            _ => {
                let all: Vec<bf16> = copying.finish()?;
                for row in all.chunks_exact(self.pitch) {
                    values.extend(row[..self.cols].iter().map(|v| v.to_f32()));
                }
            }
        }
        Ok(values)
    }
}

/// For the tables of cases.
#[cfg(any(test, feature = "cases"))]
impl crate::cases::Device for CudaBackend {
    fn write(&mut self, x: &mut Activations, values: &[f32]) {
        let written = CudaBackend::write(self, x, values);
        written.expect("numbers can be copied to the device");
    }

    fn poison(&mut self, arena: &mut Arena) {
        self.fill(arena, 0xff).expect("memory can be filled");
    }

    fn half_dtype(&self) -> Dtype {
        Dtype::Bf16
    }

    fn sum_cutting(&self, k: usize) -> f64 {
        crate::cases::card_cutting(k)
    }

    fn weight_dtype(&self, _dtype: Dtype) -> Dtype {
        Dtype::Bf16
    }
}
