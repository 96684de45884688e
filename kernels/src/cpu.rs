//! The CPU backend.
//!
//! One file per operation. Below them: `tile` (the GEMM micro-kernel that linear layers and both
//! passes of attention share), `quantized` (the one for quantised weights), `amx` (those of Intel's
//! matrix unit), `buffers` (memory) and `workers` (threads).
//!
//! # Reproducible bits
//!
//! An output row depends on its own inputs only. The terms of every output element are added in one
//! fixed order by the same instructions. The number of rows, threads and tiles, the block size, and
//! the cut of a sequence into blocks and runs do not matter. So a branch's numbers are the same
//! bits alone or among a hundred others.
//!
//! The bits may differ between instruction sets. The portable path rounds before it adds on a
//! machine without fused multiply-add. With bf16 weights, AMX keeps 16 bits of each input and sums
//! in its own order. AVX2, AVX-512 and, with quantised weights, AMX give the same bits.

mod amx;
mod attention;
mod buffers;
mod embed;
mod gated;
mod kv;
pub mod limits;
mod linear;
mod norm;
mod quantized;
mod rope;
mod sample;
mod tile;
mod workers;

#[cfg(test)]
mod tests;

pub use buffers::{Activations, Arena, Stored, Weight};
pub use tile::Isa;

use crate::plan::{BatchPlan, BlockId, Substitution};
use crate::quant::QuantizedMatrix;
use crate::sampling::{Draw, Sample};
use crate::{Activation, Backend, Error, KvLayout, MatrixView, RopeTable};
use workers::Workers;

/// The CPU backend: selects its SIMD instruction set at run time and owns its threads.
pub struct CpuBackend {
    workers: Workers,
    isa: Isa,
    /// Scratch memory of linear layers.
    inputs: linear::Inputs,
}

/// An uploaded plan: a copy, with attention's row groups.
#[derive(Clone, Debug)]
pub struct Plan {
    batch: BatchPlan,
    groups: Vec<attention::RowGroup>,
}

impl CpuBackend {
    /// A backend that uses `threads` threads, the calling one included; 0 means all cores.
    ///
    /// # Panics
    ///
    /// If the operating system cannot start the threads.
    pub fn new(threads: usize) -> CpuBackend {
        CpuBackend::with_isa(threads, Isa::best())
    }

    /// A backend limited to an instruction set, for tests and measurements.
    ///
    /// # Panics
    ///
    /// If this machine lacks the instruction set, or the operating system cannot start the threads.
    pub fn with_isa(threads: usize, isa: Isa) -> CpuBackend {
        assert!(isa.available(), "this CPU has no {}", isa.name());
        CpuBackend {
            workers: Workers::new(threads),
            isa,
            inputs: linear::Inputs::default(),
        }
    }
}

/// Rows from which a decode batch is bound by arithmetic with vector instructions. Measured on a
/// Xeon with AVX-512, 2 threads, Qwen2.5-0.5B in bf16: 32 rows give 0.92 of the tokens a second
/// that 64 give, 96 to 256 give 0.96 to 0.99 (`offshoot bench throughput --shape qwen2.5-0.5b
/// --prompt 256 --branches 16,32,64,96,128,256 --generate 8`).
const VECTOR_SEQS: usize = 64;

/// The same with tiles, whose arithmetic is some eight times as fast. Not measured.
const AMX_SEQS: usize = 256;

/// Operations of a decode batch beside which its fixed costs are small: scheduling, the threads'
/// barriers. Measured on the same machine: nano-small, whose 5,000 rows this allows, takes 1.07 times
/// as long with 64 (`offshoot solve --max-num-seqs 64`).
const MIN_DECODE_FLOPS: u64 = 500_000_000;

impl Backend for CpuBackend {
    type Weight = Weight;
    type Vector = Vec<f32>;
    type Rope = RopeTable;
    type Activations = Activations;
    type Arena = Arena;
    type Plan = Plan;
    type Recordings = ();
    type PendingSamples = Result<Vec<Sample>, Error>;
    type PendingRead = Vec<f32>;

    fn name(&self) -> String {
        format!(
            "CPU ({}, {} thread{})",
            self.isa.name(),
            self.workers.threads(),
            if self.workers.threads() == 1 { "" } else { "s" }
        )
    }

    fn max_num_seqs(&self, flops_per_row: u64) -> usize {
        let rows = match self.isa {
            Isa::Amx => AMX_SEQS,
            _ => VECTOR_SEQS,
        };
        rows.max((MIN_DECODE_FLOPS / flops_per_row.max(1)) as usize)
    }

    fn load_matrix(&mut self, parts: &[MatrixView<'_>]) -> Result<Weight, Error> {
        Weight::pack(parts, &self.workers)
    }

    fn load_quantized(&mut self, parts: &[QuantizedMatrix<'_>]) -> Result<Weight, Error> {
        Weight::pack_quantized(parts, &self.workers, self.isa)
    }

    fn weight_bytes(&self, weight: &Weight) -> usize {
        weight.bytes()
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<Vec<f32>, Error> {
        Ok(values.to_vec())
    }

    fn load_rope(&mut self, table: RopeTable) -> Result<RopeTable, Error> {
        Ok(table)
    }

    fn activations(&mut self, rows: usize, cols: usize) -> Result<Activations, Error> {
        Activations::zeroed(rows, cols)
    }

    fn arena(&mut self, bytes: usize) -> Result<Arena, Error> {
        Arena::zeroed(bytes)
    }

    fn upload(&mut self, plan: &BatchPlan) -> Result<Plan, Error> {
        Ok(Plan {
            batch: plan.clone(),
            groups: attention::row_groups(plan, self.isa),
        })
    }

    fn substitute_tokens(
        &mut self,
        plan: &mut Plan,
        substitutions: &[Substitution],
        samples: &Self::PendingSamples,
    ) {
        // An error is returned by `finish_samples`.
        let Ok(samples) = samples else { return };
        for substitution in substitutions {
            plan.batch.rows[substitution.row as usize].token_id =
                samples[substitution.draw as usize].token_id;
        }
    }

    fn embed(&mut self, table: &Weight, plan: &Plan, scale: f32, out: &mut Activations) {
        embed::embed(table, &plan.batch, scale, out);
    }

    fn rms_norm(
        &mut self,
        x: &Activations,
        weight: &Vec<f32>,
        eps: f32,
        rows: usize,
        out: &mut Activations,
    ) {
        norm::rms_norm(&self.workers, x, weight, eps, rows, out);
    }

    fn add_rms_norm(
        &mut self,
        x: &Activations,
        weight: &Vec<f32>,
        eps: f32,
        rows: usize,
        out: &mut Activations,
    ) {
        norm::add_rms_norm(&self.workers, x, weight, eps, rows, out);
    }

    fn linear(
        &mut self,
        x: &Activations,
        w: &Weight,
        bias: Option<&Vec<f32>>,
        rows: usize,
        accumulate: bool,
        out: &mut Activations,
    ) {
        linear::linear(
            &self.workers,
            self.isa,
            x,
            w,
            bias.map(Vec::as_slice),
            rows,
            accumulate,
            &mut self.inputs,
            out,
        );
    }

    fn qk_norm(
        &mut self,
        qkv: &mut Activations,
        q_weight: &Vec<f32>,
        k_weight: &Vec<f32>,
        eps: f32,
        rows: usize,
        layout: &KvLayout,
    ) {
        norm::qk_norm(&self.workers, qkv, [q_weight, k_weight], eps, rows, layout);
    }

    fn rope_and_append(
        &mut self,
        qkv: &mut Activations,
        rope: &RopeTable,
        plan: &Plan,
        layout: &KvLayout,
        layer: usize,
        arena: &mut Arena,
    ) {
        rope::rope_and_append(&self.workers, qkv, rope, &plan.batch, layout, layer, arena);
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
        attention::tree_attention(
            &self.workers,
            self.isa,
            qkv,
            &plan.batch,
            &plan.groups,
            layout,
            layer,
            window,
            arena,
            out,
        );
    }

    fn gated(
        &mut self,
        gate_up: &Activations,
        activation: Activation,
        rows: usize,
        out: &mut Activations,
    ) {
        gated::gated(&self.workers, gate_up, activation, rows, out);
    }

    fn relu(&mut self, x: &mut Activations, rows: usize) {
        gated::relu(x, rows);
    }

    fn gather_outputs(&mut self, x: &Activations, plan: &Plan, out: &mut Activations) {
        embed::gather_outputs(x, &plan.batch, out);
    }

    fn copy_blocks(&mut self, layout: &KvLayout, pairs: &[(BlockId, BlockId)], arena: &mut Arena) {
        kv::copy_blocks(layout, pairs, arena);
    }

    fn sample(&mut self, logits: &Activations, draws: &[Draw<'_>]) -> Self::PendingSamples {
        sample::sample(&self.workers, logits, draws)
    }

    fn finish_samples(&mut self, pending: Self::PendingSamples) -> Result<Vec<Sample>, Error> {
        pending
    }

    fn read(&mut self, x: &Activations, rows: std::ops::Range<usize>) -> Vec<f32> {
        x.data()[rows.start * x.cols()..rows.end * x.cols()].to_vec()
    }

    fn finish_read(&mut self, pending: Vec<f32>) -> Result<Vec<f32>, Error> {
        Ok(pending)
    }
}
