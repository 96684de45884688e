//! Attention over the tree: the work on the device, and the launches of `tree_attention.cu`.
#![allow(unsafe_code)] // Launches: each passes its kernel's parameters, sizes checked before.

use super::device::{Card, Grid, launch};
use super::items::{self, Shape};
use super::memory::Growing;
use super::rows::layer_bytes;
use super::tiling::Tiling;
use super::{Activations, Arena, CudaBackend, Plan, Pool, Pooled, catalog};
use crate::{Dtype, Error, KvLayout};
use std::f64::consts::LOG2_E;
use std::rc::Rc;

/// The kernel counts places in the arena in 32 bits of 32 bytes.
pub(super) const MOST_ARENA: usize = 128 << 30;
/// Stands for no window; small enough that positions less it do not overflow.
const NO_WINDOW: u32 = 1 << 30;
const THREADS: usize = 128;

/// Partial results and their log-sums, shared by all calls: one call's are merged before the next.
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
}

/// [`items::Items`] on the device: addresses of its parts.
pub(super) struct Work {
    _buffer: Pooled,
    items: u64,
    entries: u64,
    dests: u64,
    units: u64,
    lists: u64,
    merges: u64,
    merge_slots: u64,
    merge_count: usize,
    partials: usize,
    workers: usize,
}

impl Work {
    fn upload(card: &Rc<Card>, pool: &Pool, work: &items::Items) -> Result<Work, Error> {
        let mut words: Vec<u32> = Vec::new();
        let mut place = |part: &[u32]| {
            // 16 bytes: the kernel reads entries and merges four words at a time.
            words.resize(words.len().next_multiple_of(4), 0);
            let at = words.len();
            words.extend_from_slice(part);
            4 * at as u64
        };
        let items = place(bytemuck::cast_slice(&work.items));
        let entries = place(bytemuck::cast_slice(&work.entries));
        let dests = place(bytemuck::cast_slice(&work.dests));
        let units = place(bytemuck::cast_slice(&work.units));
        let lists = place(&work.lists);
        let merges = place(bytemuck::cast_slice(&work.merges));
        let merge_slots = place(&work.merge_slots);
        let buffer = pool.take(card, &words)?;
        let base = buffer.at();
        Ok(Work {
            _buffer: buffer,
            items: base + items,
            entries: base + entries,
            dests: base + dests,
            units: base + units,
            lists: base + lists,
            merges: base + merges,
            merge_slots: base + merge_slots,
            merge_count: work.merges.len(),
            partials: work.partials,
            workers: work.lists.len() - 1,
        })
    }
}

/// `Problem` of `tree_attention.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Problem {
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
    k_at: u64,
    v_at: u64,
    qkv_pitch: u32,
    out_pitch: u32,
    heads: u32,
    kv_heads: u32,
    block_tokens: u32,
    window: u32,
    scale: f32,
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
    let card = &backend.card;
    let rows = plan.step.rows.len();
    assert_eq!(qkv.cols, layout.qkv_cols(), "columns of Q, K and V");
    assert_eq!(
        out.cols,
        layout.heads * layout.head_dim,
        "columns of attention's output"
    );
    assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
    assert_eq!(layout.heads % layout.kv_heads, 0, "heads per kv head");
    qkv.require(rows, "Q, K and V");
    out.require(rows, "attention's output");
    backend_layout(card, layout, qkv, out)?;
    for block in &plan.step.blocks {
        let end = block.0 as usize * layout.unit_bytes + layout.block_bytes();
        assert!(end <= arena.buffer.bytes(), "block {block:?}");
    }

    let limits = card.limits();
    let tiling = Tiling::new(
        layout.head_dim,
        limits.shared_per_sm,
        limits.shared_per_block,
    );
    let shape = Shape {
        head_dim: layout.head_dim,
        group: layout.heads / layout.kv_heads,
        kv_heads: layout.kv_heads,
        block_tokens: layout.block_tokens,
        window,
        sms: limits.sms,
        resident: tiling.resident,
    };
    let made = plan
        .work
        .borrow()
        .iter()
        .find(|(s, _)| *s == shape)
        .map(|(_, work)| Rc::clone(work));
    let work = match made {
        Some(work) => work,
        None => {
            let items = items::build(&plan.step, &shape, backend.sharing);
            let work = Rc::new(Work::upload(card, &backend.plans, &items)?);
            plan.work.borrow_mut().push((shape, Rc::clone(&work)));
            work
        }
    };

    let slots = work.partials * layout.kv_heads;
    let partial = backend
        .attention
        .partial
        .of(card, slots * layout.head_dim * 4)?
        .at();
    let lse = backend.attention.lse.of(card, slots * 4)?.at();
    let k_at = layer * layer_bytes(layout);
    let problem = Problem {
        qkv: qkv.buffer.at(),
        out: out.buffer.at(),
        arena: arena.buffer.at(),
        rows: plan.buffer.at(),
        items: work.items,
        entries: work.entries,
        dests: work.dests,
        units: work.units,
        lists: work.lists,
        partial,
        lse,
        unit_bytes: layout.unit_bytes as u64,
        k_at: k_at as u64,
        v_at: (k_at + layer_bytes(layout) / 2) as u64,
        qkv_pitch: qkv.pitch as u32,
        out_pitch: out.pitch as u32,
        heads: layout.heads as u32,
        kv_heads: layout.kv_heads as u32,
        block_tokens: layout.block_tokens as u32,
        window: window.map_or(NO_WINDOW, |w| w.min(NO_WINDOW)),
        scale: (LOG2_E / (layout.head_dim as f64).sqrt()) as f32,
    };
    let describe = || format!("{rows} rows, layer {layer} of {layout:?}");
    let module = catalog::tree_attention(&tiling);
    let shared = tiling.shared_bytes();
    let attend = card.function(&module, "tree_attention", shared)?;
    let grid = Grid {
        blocks: (work.workers, usize::from(rows > 0)),
        threads: THREADS,
        shared,
    };
    launch!(card, attend, grid, &describe, problem)?;
    if work.merge_count == 0 {
        return Ok(());
    }
    let merge = card.function(&module, "merge", 0)?;
    let grid = Grid {
        blocks: (
            (work.merge_count * layout.kv_heads).div_ceil(THREADS / 32),
            1,
        ),
        threads: THREADS,
        shared: 0,
    };
    launch!(
        card,
        merge,
        grid,
        &describe,
        partial,
        lse,
        work.merges,
        work.merge_slots,
        work.merge_count as u32,
        out.buffer.at(),
        out.pitch as u32,
        layout.heads as u32,
        layout.kv_heads as u32,
    )
}

/// Refuses what there is no kernel for.
fn backend_layout(
    card: &Card,
    layout: &KvLayout,
    qkv: &Activations,
    out: &Activations,
) -> Result<(), Error> {
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
