//! Launchers of `rows.cu`.
#![allow(unsafe_code)] // Launches: each passes its kernel's parameters, sizes checked before.

use super::device::{Card, Grid, launch};
use super::memory::Growing;
use super::plan::Needs;
use super::{Activations, Arena, Plan, Rope, Vector, Weight, catalog};
use crate::plan::BlockId;
use crate::{Activation, Dtype, Error, KvLayout};
use std::rc::Rc;

/// Threads per block of all kernels.
pub(super) const THREADS: usize = 128;
/// Bytes that a thread block of `copy_blocks` copies.
pub(super) const COPY_BLOCK_BYTES: usize = 16 << 10;

/// Launches the kernel `$name`, a block for each of `$rows` rows.
macro_rules! launch_rows {
    ($card:expr, $name:expr, $rows:expr, $what:expr, $($argument:expr),+ $(,)?) => {{
        let function = $card.function(&catalog::rows(), $name, 0)?;
        let grid = Grid {
            blocks: ($rows, 1),
            threads: THREADS,
            shared: 0,
        };
        launch!($card, function, grid, $what, $($argument),+)
    }};
}

pub(super) fn embed(
    card: &Card,
    table: &Weight,
    plan: &Plan,
    scale: f32,
    out: &mut Activations,
) -> Result<(), Error> {
    assert_eq!(out.cols, table.cols, "columns of the embedding");
    let rows = plan.step.rows.len();
    out.require(rows, "the embedding's output");
    let mut needs = Needs::default();
    needs.tokens.push(table.rows);
    needs.check(plan);
    Needs::add(&mut plan.needs.borrow_mut().tokens, table.rows);
    let name = ["embed_f32", "embed_bf16"][out.suffix()];
    launch_rows!(
        card,
        name,
        rows,
        &|| format!("{rows} rows of {}", out.cols),
        table.buffer.at(),
        table.pitch as u32,
        plan.at(),
        scale,
        out.buffer.at(),
        out.pitch as u32,
        out.cols as u32,
    )
}

/// The norm of `x`, added to `out` if `add`: then `out` is f32, as the residual stream is.
pub(super) fn rms_norm(
    card: &Card,
    x: &Activations,
    weight: &Vector,
    eps: f32,
    rows: usize,
    add: bool,
    out: &mut Activations,
) -> Result<(), Error> {
    assert_eq!(x.cols, weight.len, "columns of the norm");
    assert_eq!(x.cols, out.cols, "columns of the norm's output");
    x.require(rows, "the norm's input");
    out.require(rows, "the norm's output");
    let names = [
        ["rms_norm_f32_f32", "rms_norm_f32_bf16"],
        ["rms_norm_bf16_f32", "rms_norm_bf16_bf16"],
    ];
    let name = if add {
        assert_eq!(out.dtype, Dtype::F32, "type of what the norm is added to");
        ["add_rms_norm_f32_f32", "add_rms_norm_bf16_f32"][x.suffix()]
    } else {
        names[x.suffix()][out.suffix()]
    };
    launch_rows!(
        card,
        name,
        rows,
        &|| format!("{rows} rows of {}", x.cols),
        x.buffer.at(),
        x.pitch as u32,
        weight.buffer.at(),
        eps,
        out.buffer.at(),
        out.pitch as u32,
        x.cols as u32,
    )
}

pub(super) fn gated(
    card: &Card,
    gate_up: &Activations,
    activation: Activation,
    rows: usize,
    out: &mut Activations,
) -> Result<(), Error> {
    assert_eq!(gate_up.cols, 2 * out.cols, "columns of gate and up");
    gate_up.require(rows, "gate and up");
    out.require(rows, "the gated output");
    let names = match activation {
        Activation::Silu => [
            ["silu_f32_f32", "silu_f32_bf16"],
            ["silu_bf16_f32", "silu_bf16_bf16"],
        ],
        Activation::GeluTanh => [
            ["gelu_tanh_f32_f32", "gelu_tanh_f32_bf16"],
            ["gelu_tanh_bf16_f32", "gelu_tanh_bf16_bf16"],
        ],
    };
    launch_rows!(
        card,
        names[gate_up.suffix()][out.suffix()],
        rows,
        &|| format!("{rows} rows of {}", out.cols),
        gate_up.buffer.at(),
        gate_up.pitch as u32,
        out.buffer.at(),
        out.pitch as u32,
        out.cols as u32,
    )
}

pub(super) fn gather(
    card: &Card,
    x: &Activations,
    plan: &Plan,
    out: &mut Activations,
) -> Result<(), Error> {
    assert_eq!(x.cols, out.cols, "columns of the outputs");
    let (rows, outputs) = (plan.step.rows.len(), plan.step.outputs.len());
    x.require(rows, "the rows gathered from");
    out.require(outputs, "the outputs");
    let names = [
        ["gather_f32_f32", "gather_f32_bf16"],
        ["gather_bf16_f32", "gather_bf16_bf16"],
    ];
    launch_rows!(
        card,
        names[x.suffix()][out.suffix()],
        outputs,
        &|| format!("{outputs} rows of {}", x.cols),
        x.buffer.at(),
        x.pitch as u32,
        plan.at() + 16 * rows as u64,
        out.buffer.at(),
        out.pitch as u32,
        x.cols as u32,
    )
}

pub(super) fn relu(card: &Card, x: &mut Activations, rows: usize) -> Result<(), Error> {
    x.require(rows, "the rectified buffer");
    let name = ["relu_f32", "relu_bf16"][x.suffix()];
    launch_rows!(
        card,
        name,
        rows,
        &|| format!("{rows} rows of {}", x.cols),
        x.buffer.at(),
        x.pitch as u32,
        x.cols as u32,
    )
}

pub(super) fn qk_norm(
    card: &Card,
    qkv: &mut Activations,
    q_weight: &Vector,
    k_weight: &Vector,
    eps: f32,
    rows: usize,
    layout: &KvLayout,
) -> Result<(), Error> {
    assert_eq!(qkv.cols, layout.qkv_cols(), "columns of Q, K and V");
    assert!(
        q_weight.len == layout.head_dim && k_weight.len == layout.head_dim,
        "length of the norms"
    );
    if !layout.head_dim.is_multiple_of(2) {
        return Err(Error::Unsupported {
            device: card.name().into(),
            what: format!("a QK norm of head dimension {}", layout.head_dim),
        });
    }
    qkv.require(rows, "Q, K and V");
    let name = ["qk_norm_f32", "qk_norm_bf16"][qkv.suffix()];
    launch_rows!(
        card,
        name,
        rows,
        &|| format!("{rows} rows of {layout:?}"),
        qkv.buffer.at(),
        qkv.pitch as u32,
        q_weight.buffer.at(),
        k_weight.buffer.at(),
        eps,
        layout.heads as u32,
        layout.kv_heads as u32,
        layout.head_dim as u32,
    )
}

pub(super) fn rope_and_append(
    card: &Card,
    qkv: &mut Activations,
    rope: &Rope,
    plan: &Plan,
    layout: &KvLayout,
    layer: usize,
    arena: &mut Arena,
) -> Result<(), Error> {
    let rows = plan.step.rows.len();
    assert_eq!(2 * rope.half_dim, layout.head_dim, "the rotary table");
    assert_eq!(qkv.cols, layout.qkv_cols(), "columns of Q, K and V");
    assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
    qkv.require(rows, "Q, K and V");
    let blocks = blocks_of(arena, layout);
    let mut needs = Needs::default();
    needs.positions.push(rope.positions);
    needs.blocks.push(blocks);
    needs.check(plan);
    let relied_on = &mut *plan.needs.borrow_mut();
    Needs::add(&mut relied_on.positions, rope.positions);
    Needs::add(&mut relied_on.blocks, blocks);
    let name = ["rope_and_append_f32", "rope_and_append_bf16"][qkv.suffix()];
    launch_rows!(
        card,
        name,
        rows,
        &|| format!("{rows} rows, layer {layer} of {layout:?}"),
        qkv.buffer.at(),
        qkv.pitch as u32,
        rope.buffer.at(),
        rope.buffer.at() + (rope.positions * rope.half_dim * 4) as u64,
        plan.at(),
        arena.buffer.at(),
        layout.unit_bytes as u64,
        (layer * layer_bytes(layout)) as u64,
        layout.heads as u32,
        layout.kv_heads as u32,
        layout.head_dim as u32,
        layout.block_tokens as u32,
    )
}

/// The first block id that does not lie in the arena.
pub(super) fn blocks_of(arena: &Arena, layout: &KvLayout) -> usize {
    match arena.buffer.bytes().checked_sub(layout.block_bytes()) {
        Some(last) => last / layout.unit_bytes + 1,
        None => 0,
    }
}

/// Bytes of K and V of one layer in a block.
pub(super) fn layer_bytes(layout: &KvLayout) -> usize {
    2 * layout.kv_heads * layout.block_tokens * layout.dtype.vector_bytes(layout.head_dim)
}

pub(super) fn copy_blocks(
    card: &Rc<Card>,
    staging: &mut Growing,
    layout: &KvLayout,
    pairs: &[(BlockId, BlockId)],
    arena: &mut Arena,
) -> Result<(), Error> {
    let bytes = layout.block_bytes();
    let words: Vec<[u32; 2]> = pairs.iter().map(|(from, to)| [from.0, to.0]).collect();
    for &block in words.iter().flatten() {
        let end = block as usize * layout.unit_bytes + bytes;
        assert!(end <= arena.buffer.bytes(), "block {block}");
    }
    let function = card.function(&catalog::rows(), "copy_blocks", 0)?;
    let staged = staging.of(card, words.len() * 8)?;
    staged.upload(&words)?;
    let grid = Grid {
        blocks: (bytes.div_ceil(COPY_BLOCK_BYTES), pairs.len()),
        threads: THREADS,
        shared: 0,
    };
    launch!(
        card,
        function,
        grid,
        &|| format!("{} blocks of {bytes} bytes", pairs.len()),
        arena.buffer.at(),
        staged.at(),
        layout.unit_bytes as u64,
        bytes as u32,
    )
}
