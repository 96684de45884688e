//! Single operations with inputs made for counting and timing.
//!
//! - Here: one attention call or linear layer on the emulated GPU, the work of `offshoot kernels
//!   profile`. Counts do not depend on the numbers, only on which are zeros; so K and V are one
//!   constant and not computed.
//! - [`time`]: the same operations timed on a card.
//! - [`card`]: what the card itself reaches, and where it places blocks.
//! - [`large`]: results of large shapes against each other, where no f64 reference is affordable.

pub mod card;
pub mod large;
pub mod time;

use super::items::{self, Sharing};
use super::{CudaBackend, Which};
use crate::philox::uniform_u64;
use crate::plan::{BatchPlan, BlockId, SequenceRows};
use crate::{Activation, Backend, Dtype, Error, KvLayout, MatrixView};

/// Blocks of the study hold this many tokens, as the engine's do by default.
const BLOCK_TOKENS: usize = 16;

/// A decode batch of a beam search: `beams` rows, each at the end of `steps` steps of `step_tokens`
/// tokens below one prompt. After every step but the last, `beams / width` survivors, chosen at
/// random, have `width` children each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beam {
    /// Branches held at once, N.
    pub beams: usize,
    /// Children of a survivor, M.
    pub width: usize,
    /// Tokens of the prompt, P.
    pub prompt: usize,
    /// Steps so far.
    pub steps: usize,
    /// Tokens of a step.
    pub step_tokens: usize,
    /// Of the choice of survivors.
    pub seed: u64,
}

impl Beam {
    /// The plan of its last token's decode batch, and the number of blocks.
    pub fn plan(&self) -> (BatchPlan, usize) {
        let mut blocks = 0;
        let mut fresh = |tokens: usize| -> Vec<(BlockId, u32)> {
            (0..tokens)
                .step_by(BLOCK_TOKENS)
                .map(|first| {
                    blocks += 1;
                    let valid = BLOCK_TOKENS.min(tokens - first) as u32;
                    (BlockId(blocks - 1), valid)
                })
                .collect()
        };
        let mut beams = vec![fresh(self.prompt); self.beams];
        let mut draws = 0;
        for step in 0..self.steps {
            if step > 0 {
                let kept: Vec<_> = (0..self.beams.div_ceil(self.width))
                    .map(|_| {
                        draws += 1;
                        let pick = uniform_u64(self.seed, draws) % self.beams as u64;
                        beams[pick as usize].clone()
                    })
                    .collect();
                beams = (0..self.beams)
                    .map(|i| kept[i / self.width].clone())
                    .collect();
            }
            for beam in &mut beams {
                beam.extend(fresh(self.step_tokens));
            }
        }
        let tokens = [0];
        let sequences: Vec<SequenceRows<'_>> = beams
            .iter()
            .map(|table| SequenceRows {
                table,
                token_ids: &tokens,
                write: true,
                outputs: &[],
            })
            .collect();
        (
            BatchPlan::build(&sequences, BLOCK_TOKENS).0,
            blocks as usize,
        )
    }
}

/// The bytes and multiply-adds that an attention call needs, whatever the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Budget {
    /// KV tokens of the tree, each once.
    pub unique_tokens: usize,
    /// KV tokens, each once per largest tile of Q that sees it: the minimum that such tiles read.
    pub tiled_tokens: usize,
    /// The unique tokens' bytes, one layer.
    pub unique_kv_bytes: usize,
    /// KV tokens read by branches on their own.
    pub flat_tokens: usize,
    /// KV tokens that the plan's items read, over all of them.
    pub item_tokens: usize,
    /// Items of the plan.
    pub items: usize,
    /// Packed rows with several partial results.
    pub merged_rows: usize,
    /// The cost model's total and heaviest worker.
    pub cost: u64,
    /// The heaviest worker.
    pub heaviest: u64,
    /// Workers.
    pub workers: usize,
    /// Multiply-adds of both GEMMs over the visible tokens.
    pub useful_products: u64,
}

/// One attention call over a beam's tree, ready to run.
struct Attention {
    plan: BatchPlan,
    layout: KvLayout,
    uploaded: super::Plan,
    qkv: super::Activations,
    arena: super::Arena,
    out: super::Activations,
}

impl Attention {
    /// A call for each of `layers` layers, over K and V of its own.
    fn new(
        backend: &mut CudaBackend,
        beam: &Beam,
        (heads, kv_heads, head_dim): (usize, usize, usize),
        layers: usize,
    ) -> Result<Attention, Error> {
        let (plan, blocks) = beam.plan();
        let mut layout = KvLayout {
            layers,
            heads,
            kv_heads,
            head_dim,
            query_scalar: head_dim,
            block_tokens: BLOCK_TOKENS,
            dtype: Dtype::Bf16.into(),
            unit_bytes: 64,
        };
        layout.unit_bytes = layout.block_bytes();
        backend.check_layout(&layout)?;
        let mut arena = backend.arena(blocks * layout.unit_bytes)?;
        backend.fill(&mut arena, 0x3c)?;
        let rows = plan.rows.len();
        let mut qkv = backend.half_activations(rows, layout.qkv_cols())?;
        backend.write(&mut qkv, &vec![0.5; rows * layout.qkv_cols()])?;
        Ok(Attention {
            uploaded: backend.upload(&plan)?,
            out: backend.half_activations(rows, heads * head_dim)?,
            plan,
            layout,
            qkv,
            arena,
        })
    }

    /// Makes the output NaN: a call that writes nothing is not taken for a right one.
    fn clear(&mut self, backend: &mut CudaBackend) -> Result<(), Error> {
        let count = self.out.rows * self.out.cols;
        backend.write(&mut self.out, &vec![f32::NAN; count])
    }

    fn run(&mut self, backend: &mut CudaBackend, layer: usize) {
        let Attention {
            layout,
            uploaded,
            qkv,
            arena,
            out,
            ..
        } = self;
        backend.tree_attention(qkv, uploaded, layout, layer, None, arena, out);
    }

    /// Attention over equal values is that value.
    fn check(&self, backend: &mut CudaBackend) -> Result<(), Error> {
        let pending = backend.read(&self.out, 0..self.plan.rows.len());
        let out = backend.finish_read(pending)?;
        let value = f32::from_bits(0x3c3c_0000);
        if out.iter().all(|v| (v - value).abs() <= value / 100.0) {
            return Ok(());
        }
        Err(backend
            .card
            .failure("tree attention", "its result is not what it should be"))
    }
}

/// Runs one attention call over a beam's tree on the emulated card.
///
/// # Errors
///
/// The device cannot be opened or failed.
pub fn attention(
    beam: &Beam,
    heads: (usize, usize, usize),
    sharing: Sharing,
) -> Result<Budget, Error> {
    let mut backend = CudaBackend::open(Which::Emulated)?;
    backend.set_sharing(sharing);
    let mut step = Attention::new(&mut backend, beam, heads, 1)?;
    step.run(&mut backend, 0);
    step.check(&mut backend)?;
    let Attention { plan, layout, .. } = step;
    let (heads, _, head_dim) = heads;

    let (shape, _) = super::attention::shape(&backend.card, &layout, None);
    let work = items::build(&plan, &shape, sharing);
    let flat_tokens = plan.rows.iter().map(|r| r.position as usize + 1).sum();
    Ok(Budget {
        unique_tokens: plan.kv_tokens(),
        tiled_tokens: plan
            .runs
            .iter()
            .map(|run| {
                let packed = run.rows.len() * shape.group;
                run.num_tokens as usize * packed.div_ceil(items::max_rows(head_dim))
            })
            .sum(),
        unique_kv_bytes: plan.kv_tokens() * layout.token_bytes(),
        flat_tokens,
        item_tokens: work.items.iter().map(|i| i.slots as usize).sum(),
        items: work.items.len(),
        merged_rows: work.merges.len(),
        cost: work.total,
        heaviest: work.heaviest,
        workers: shape.workers(),
        useful_products: 2 * (flat_tokens * heads * head_dim) as u64,
    })
}

/// A linear layer with inputs made for counting and timing.
struct Linear {
    weight: super::Weight,
    x: super::Activations,
    /// `[rows, n]`, of bf16.
    out: super::Activations,
    rows: usize,
}

impl Linear {
    /// `rows` x `n` x `k`, whose output has `cols` columns.
    fn new(
        backend: &mut CudaBackend,
        (rows, n, k): (usize, usize, usize),
        cols: usize,
    ) -> Result<Linear, Error> {
        let bytes = vec![0x3c; n * k * 2];
        let weight = backend.load_matrix(&[MatrixView {
            rows: n,
            cols: k,
            dtype: Dtype::Bf16,
            bytes: &bytes,
        }])?;
        let mut x = backend.half_activations(rows, k)?;
        backend.write(&mut x, &vec![0.5; rows * k])?;
        Ok(Linear {
            weight,
            x,
            out: backend.half_activations(rows, cols)?,
            rows,
        })
    }
}

/// Runs one linear layer on the emulated card: `rows` x `n` x `k`.
///
/// # Errors
///
/// The device cannot be opened or failed.
pub fn linear(rows: usize, n: usize, k: usize) -> Result<(), Error> {
    let mut backend = CudaBackend::open(Which::Emulated)?;
    let mut p = Linear::new(&mut backend, (rows, n, k), n)?;
    backend.linear(&p.x, &p.weight, None, p.rows, false, &mut p.out);
    backend.synchronize()
}

/// Runs one gated linear layer on the emulated card: `rows` x `n` outputs of `2 n` x `k` weights.
///
/// # Errors
///
/// The device cannot be opened or failed.
pub fn linear_gated(rows: usize, n: usize, k: usize) -> Result<(), Error> {
    let mut backend = CudaBackend::open(Which::Emulated)?;
    let mut p = Linear::new(&mut backend, (rows, 2 * n, k), n)?;
    let mut gate_up = backend.half_activations(rows, 2 * n)?;
    let activation = Activation::Silu;
    backend.linear_gated(
        &p.x,
        &p.weight,
        None,
        activation,
        rows,
        &mut gate_up,
        &mut p.out,
    );
    backend.synchronize()
}
