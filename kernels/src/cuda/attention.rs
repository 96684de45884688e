//! Attention over the tree: the work on the device, and the launches of `tree_attention.cu`.
#![allow(unsafe_code)] // Launches: each passes its kernel's parameters, sizes checked before.

use super::device::{Card, Grid, launch};
use super::items::{self, Shape};
use super::memory::{Buffer, Growing};
use super::plan::{Needs, Plan, Pool, Pooled};
use super::rows::{blocks_of, layer_bytes};
use super::tiling::Tiling;
use super::{Activations, Arena, CudaBackend, catalog};
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

    /// Addresses.
    pub(super) fn at(&self) -> [u64; 2] {
        [self.partial.at(), self.lse.at()]
    }
}

/// [`items::Items`] on the device: addresses of its parts.
pub(super) struct Work {
    memory: Memory,
    /// Items, entries, dests, units, lists, merges, merge slots.
    parts: [u64; PARTS],
    /// Merges, those that merge nothing included.
    merge_count: usize,
    partials: usize,
    workers: usize,
}

const PARTS: usize = 7;

enum Memory {
    Pooled(Pooled),
    Region(Rc<Region>),
}

/// A fixed place of the work of one shape, with room for more than it holds: recorded launches have
/// its addresses.
pub(super) struct Region {
    buffer: Buffer,
    /// Words of each part.
    capacities: [usize; PARTS],
    version: u64,
}

impl Work {
    /// Puts the work into pooled memory, or, for a plan with a fixed place, into the region of this
    /// shape there, which is made anew, larger, if it is too small. There are then as many merges as
    /// there can be, with nothing to do for those that are not needed.
    fn upload(
        card: &Rc<Card>,
        pool: &Pool,
        plan: &Plan,
        shape: &Shape,
        work: &items::Items,
    ) -> Result<Work, Error> {
        let parts: [&[u32]; PARTS] = [
            bytemuck::cast_slice(&work.items),
            bytemuck::cast_slice(&work.entries),
            bytemuck::cast_slice(&work.dests),
            bytemuck::cast_slice(&work.units),
            &work.lists,
            bytemuck::cast_slice(&work.merges),
            &work.merge_slots,
        ];
        let (memory, base, capacities, merge_count) = match plan.place() {
            None => {
                // 16 bytes: the kernel reads entries and merges four words at a time.
                let capacities = parts.map(|part| part.len().next_multiple_of(4));
                let pooled = pool.upload(card, &laid_out(&parts, &capacities))?;
                let base = pooled.at();
                (Memory::Pooled(pooled), base, capacities, work.merges.len())
            }
            Some(place) => {
                let most_merges = plan.step.rows.len() * shape.group;
                let mut wanted = parts.map(|part| part.len().next_power_of_two().max(64));
                wanted[5] = 4 * most_merges;
                let mut regions = place.regions.borrow_mut();
                let found = regions.iter().position(|(s, _)| s == shape);
                let fits = |region: &Region| {
                    let mut both = region.capacities.iter().zip(&parts);
                    both.all(|(&capacity, part)| part.len() <= capacity)
                };
                let region = match found.map(|i| &regions[i].1).filter(|r| fits(r)) {
                    Some(region) => Rc::clone(region),
                    None => {
                        let version = found.map_or(0, |i| regions[i].1.version + 1);
                        if let Some(i) = found {
                            let old = &regions[i].1.capacities;
                            let both = wanted.iter().zip(old);
                            let most: Vec<usize> = both.map(|(a, b)| *a.max(b)).collect();
                            wanted.copy_from_slice(&most);
                            regions.swap_remove(i);
                        }
                        let bytes = 4 * wanted.iter().sum::<usize>();
                        let region = Rc::new(Region {
                            buffer: Buffer::new(card, bytes, "attention's work")?,
                            capacities: wanted,
                            version,
                        });
                        regions.push((*shape, Rc::clone(&region)));
                        region
                    }
                };
                region
                    .buffer
                    .upload(&laid_out(&parts, &region.capacities))?;
                let (base, capacities) = (region.buffer.at(), region.capacities);
                (Memory::Region(region), base, capacities, most_merges)
            }
        };
        let mut at = base;
        let parts = capacities.map(|capacity| {
            let here = at;
            at += 4 * capacity as u64;
            here
        });
        Ok(Work {
            memory,
            parts,
            merge_count,
            partials: work.partials,
            workers: work.lists.len() - 1,
        })
    }

    /// Changes whenever the addresses do.
    pub(super) fn version(&self) -> u64 {
        match &self.memory {
            Memory::Pooled(pooled) => pooled.at(),
            Memory::Region(region) => region.version,
        }
    }
}

/// The parts one after the other, each with zeros up to its capacity.
fn laid_out(parts: &[&[u32]; PARTS], capacities: &[usize; PARTS]) -> Vec<u32> {
    let mut words = Vec::with_capacity(capacities.iter().sum());
    for (part, capacity) in parts.iter().zip(capacities) {
        let end = words.len() + capacity;
        words.extend_from_slice(part);
        words.resize(end, 0);
    }
    words
}

/// The work of a plan for one shape, made at its first use.
pub(super) fn work(backend: &CudaBackend, plan: &Plan, shape: &Shape) -> Result<Rc<Work>, Error> {
    if let Some((_, work)) = plan.work.borrow().iter().find(|(s, _)| s == shape) {
        return Ok(Rc::clone(work));
    }
    let items = items::build(&plan.step, shape, backend.sharing);
    let work = Work::upload(&backend.card, &backend.plans, plan, shape, &items)?;
    let work = Rc::new(work);
    plan.work.borrow_mut().push((*shape, Rc::clone(&work)));
    Ok(work)
}

/// Scratch memory for some work: addresses of partial results and of their log-sums.
pub(super) fn scratch(
    backend: &mut CudaBackend,
    work: &Work,
    kv_heads: usize,
    head_dim: usize,
) -> Result<(u64, u64), Error> {
    let (card, slots) = (&backend.card, work.partials * kv_heads);
    let partial = backend.attention.partial.of(card, slots * head_dim * 4)?;
    let lse = backend.attention.lse.of(card, slots * 4)?;
    Ok((partial.at(), lse.at()))
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
    let mut needs = Needs::default();
    needs.blocks.push(blocks_of(arena, layout));
    needs.check(plan);

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
    {
        let relied_on = &mut *plan.needs.borrow_mut();
        Needs::add(&mut relied_on.blocks, needs.blocks[0]);
        Needs::add(&mut relied_on.attention, (shape, layout.head_dim));
    }
    let work = work(backend, plan, &shape)?;
    let (partial, lse) = scratch(backend, &work, layout.kv_heads, layout.head_dim)?;
    let card = &backend.card;
    let [items, entries, dests, units, lists, merges, merge_slots] = work.parts;
    let k_at = layer * layer_bytes(layout);
    let problem = Problem {
        qkv: qkv.buffer.at(),
        out: out.buffer.at(),
        arena: arena.buffer.at(),
        rows: plan.at(),
        items,
        entries,
        dests,
        units,
        lists,
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
        scale: (LOG2_E / (layout.query_scalar as f64).sqrt()) as f32,
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
        merges,
        merge_slots,
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
