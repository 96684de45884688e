//! Attention over the tree: its work on the device, and the launches of `tree_attention.cu`.
#![allow(unsafe_code)] // Launches: each passes its kernel's parameters, sizes checked before.

use super::attention_work::DeviceWork;
use super::device::{Card, Grid, launch};
use super::items::{AttentionShape, address_unit};
use super::memory::Growing;
use super::plan::{Needs, Plan};
use super::rows::{blocks_of, layer_bytes};
use super::tiling::Tiling;
use super::{Activations, Arena, CudaBackend, attention_work, catalog};
use crate::{Dtype, Error, KvLayout};
use std::f64::consts::LOG2_E;

/// Bytes of the largest arena for heads of `head_dim`: the kernel stores offsets in 32 bits, in units
/// of [`address_unit`]. 256 GiB, or 128 GiB where a head's token has 32 bytes more than a multiple of
/// 64.
pub(super) fn max_arena(head_dim: usize) -> usize {
    address_unit(head_dim) << 32
}
/// Stands for no window; small enough that subtracting it from a position does not overflow.
const NO_WINDOW: u32 = 1 << 30;
/// Threads per block of both kernels.
pub(super) const THREADS: usize = 128;

/// Partial results and their log-sums. All calls share them: each is merged before the next.
pub(super) struct Scratch {
    partial: Growing,
    lse: Growing,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch {
            partial: Growing::new("attention's partial results"),
            lse: Growing::new("attention's partial sums"),
        }
    }

    /// The addresses of both.
    pub(super) fn at(&self) -> [u64; 2] {
        [self.partial.at(), self.lse.at()]
    }
}

/// Scratch memory for some work: addresses of the partial results and of their log-sums.
pub(super) fn scratch(
    backend: &mut CudaBackend,
    work: &DeviceWork,
    shape: &AttentionShape,
) -> Result<(u64, u64), Error> {
    let (card, slots) = (&backend.card, work.partials * shape.kv_heads);
    let bytes = slots * shape.head_dim * 4;
    let partial = backend.attention.partial.of(card, bytes)?;
    let lse = backend.attention.lse.of(card, slots * 4)?;
    Ok((partial.at(), lse.at()))
}

/// `AttentionParams` of `tree_attention.cu`, which describes the fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct AttentionParams {
    qkv: u64,
    out: u64,
    arena: u64,
    rows: u64,
    items: u64,
    entries: u64,
    dests: u64,
    units: u64,
    lists: u64,
    partial: u64,
    lse: u64,
    unit_bytes: u64,
    k_offset: u64,
    v_offset: u64,
    qkv_pitch: u32,
    out_pitch: u32,
    heads: u32,
    kv_heads: u32,
    block_tokens: u32,
    window: u32,
    scale: f32,
}

/// The shape of a layer's attention on a card, and its kernel's tiling.
pub(super) fn shape(
    card: &Card,
    layout: &KvLayout,
    window: Option<u32>,
) -> (AttentionShape, Tiling) {
    let limits = card.limits();
    let tiling = Tiling::new(
        layout.head_dim,
        limits.shared_per_sm,
        limits.shared_per_block,
    );
    let shape = AttentionShape {
        head_dim: layout.head_dim,
        group: layout.heads / layout.kv_heads,
        kv_heads: layout.kv_heads,
        block_tokens: layout.block_tokens,
        window,
        sms: limits.sms,
        resident: tiling.resident,
    };
    (shape, tiling)
}

#[allow(clippy::too_many_arguments)] // The operation's own.
pub(super) fn tree_attention(
    backend: &mut CudaBackend,
    qkv: &Activations,
    plan: &Plan,
    layout: &KvLayout,
    layer: usize,
    window: Option<u32>,
    arena: &Arena,
    out: &mut Activations,
) -> Result<(), Error> {
    check(&backend.card, qkv, plan, layout, layer, out)?;
    let (shape, tiling) = shape(&backend.card, layout, window);
    assert!(
        arena.buffer.bytes() <= max_arena(layout.head_dim),
        "blocks beyond the offsets of the kernel"
    );
    rely_on(plan, blocks_of(arena, layout), shape);
    let work = attention_work::of_plan(backend, plan, &shape)?;
    let (partial, lse) = scratch(backend, &work, &shape)?;
    let k_offset = layer * layer_bytes(layout);
    let params = AttentionParams {
        qkv: qkv.buffer.at(),
        out: out.buffer.at(),
        arena: arena.buffer.at(),
        rows: plan.at(),
        items: work.items(),
        entries: work.entries(),
        dests: work.dests(),
        units: work.units(),
        lists: work.lists(),
        partial,
        lse,
        unit_bytes: layout.unit_bytes as u64,
        k_offset: k_offset as u64,
        v_offset: (k_offset + layer_bytes(layout) / 2) as u64,
        qkv_pitch: qkv.pitch as u32,
        out_pitch: out.pitch as u32,
        heads: layout.heads as u32,
        kv_heads: layout.kv_heads as u32,
        block_tokens: layout.block_tokens as u32,
        window: window.map_or(NO_WINDOW, |w| w.min(NO_WINDOW)),
        scale: (LOG2_E / (layout.query_scalar as f64).sqrt()) as f32,
    };
    let rows = plan.step.rows.len();
    let describe = || format!("{rows} rows, layer {layer} of {layout:?}");
    launch_attend(&backend.card, &tiling, params, &work, rows, &describe)?;
    launch_merge(&backend.card, &tiling, params, &work, &describe)
}

/// Notes in the plan that the kernels read these blocks and this work, after checking the blocks.
fn rely_on(plan: &Plan, blocks: usize, shape: AttentionShape) {
    let mut needs = Needs::default();
    needs.blocks.push(blocks);
    needs.check(plan);
    let relied_on = &mut *plan.needs.borrow_mut();
    Needs::add(&mut relied_on.blocks, blocks);
    Needs::add(&mut relied_on.attention, shape);
}

fn launch_attend(
    card: &Card,
    tiling: &Tiling,
    params: AttentionParams,
    work: &DeviceWork,
    rows: usize,
    describe: &dyn Fn() -> String,
) -> Result<(), Error> {
    let shared = tiling.shared_bytes();
    let module = catalog::tree_attention(tiling);
    let function = card.function(&module, "tree_attention", shared)?;
    let grid = Grid {
        blocks: (work.workers, usize::from(rows > 0)),
        threads: THREADS,
        shared,
    };
    launch!(card, function, grid, describe, params)
}

fn launch_merge(
    card: &Card,
    tiling: &Tiling,
    params: AttentionParams,
    work: &DeviceWork,
    describe: &dyn Fn() -> String,
) -> Result<(), Error> {
    if work.merge_count == 0 {
        return Ok(());
    }
    let function = card.function(&catalog::tree_attention(tiling), "merge", 0)?;
    let warps = work.merge_count * params.kv_heads as usize;
    let grid = Grid {
        blocks: (warps.div_ceil(THREADS / 32), 1),
        threads: THREADS,
        shared: 0,
    };
    launch!(
        card,
        function,
        grid,
        describe,
        params.partial,
        params.lse,
        work.merges(),
        work.merge_slots(),
        work.merge_count as u32,
        params.out,
        params.out_pitch,
        params.heads,
        params.kv_heads,
    )
}

/// Panics where shapes do not fit; refuses types and head dimensions without a kernel.
fn check(
    card: &Card,
    qkv: &Activations,
    plan: &Plan,
    layout: &KvLayout,
    layer: usize,
    out: &Activations,
) -> Result<(), Error> {
    let rows = plan.step.rows.len();
    assert_eq!(qkv.cols, layout.qkv_cols(), "columns of Q, K and V");
    assert_eq!(
        out.cols,
        layout.heads * layout.head_dim,
        "columns of attention's output"
    );
    assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
    assert_eq!(layout.heads % layout.kv_heads, 0, "heads per kv head");
    let unit = address_unit(layout.head_dim);
    assert_eq!(layout.unit_bytes % unit, 0, "the stride of KV blocks");
    qkv.require(rows, "Q, K and V");
    out.require(rows, "attention's output");
    let types = [layout.dtype, qkv.dtype.into(), out.dtype.into()];
    let fits = layout.head_dim.is_multiple_of(16) && layout.head_dim <= 256;
    if types.iter().all(|&t| t == Dtype::Bf16.into()) && fits {
        return Ok(());
    }
    Err(Error::Unsupported {
        device: card.name().into(),
        what: format!(
            "attention of head dimension {} over {} (Q {}, output {})",
            layout.head_dim,
            layout.dtype.name(),
            qkv.dtype.name(),
            out.dtype.name()
        ),
    })
}
