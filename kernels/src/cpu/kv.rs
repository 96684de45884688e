//! The layout of K and V in a block of the arena.
//!
//! A block is `[layer][K, V][kv head][block_tokens * head_dim]`. Within a head:
//!
//! - K is stored in panels of 16 *tokens*, `[token / 16][head_dim][16]`, so that the micro-kernel
//!   computes 16 scores at once; plain `[token][head_dim]` if 16 does not divide the block's
//!   tokens.
//! - V is stored in panels of 16 *dimensions*, `[dimension / 16][token][16]`; plain
//!   `[token][head_dim]` if 16 does not divide the head dimension.
//!
//! bf16 panels hold pairs ([`pair_offset`]), `[head_dim / 2][16][2]` and `[token / 2][16][2]`; a
//! head is plain if the number to pair is odd. Attention re-lays plain heads into panels as it
//! reads them, which does not change their bits.
//!
//! int8 has the same layout, followed by the scales of the head's tokens, f32. Attention widens it
//! to f32 panels as it reads them, once for all rows that see them.

use super::buffers::Arena;
use super::tile::{COLS, pair_offset};
use crate::plan::{BlockId, Slot};
use crate::quant::{inverse, largest, round};
use crate::widest::widest;
use crate::{Dtype, KvDtype, KvLayout};
use half::{bf16, f16};

/// K or V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvKind {
    Keys = 0,
    Values = 1,
}

/// Whether K is stored in panels of tokens.
pub(crate) fn keys_in_panels(layout: &KvLayout) -> bool {
    layout.block_tokens.is_multiple_of(COLS) && !(in_pairs(layout) && layout.head_dim % 2 == 1)
}

/// Whether V is stored in panels of dimensions.
pub(crate) fn values_in_panels(layout: &KvLayout) -> bool {
    layout.head_dim.is_multiple_of(COLS) && !(in_pairs(layout) && layout.block_tokens % 2 == 1)
}

/// Whether panels hold pairs.
fn in_pairs(layout: &KvLayout) -> bool {
    layout.dtype == KvDtype::Float(Dtype::Bf16)
}

/// Byte range of one head of one layer of a block.
pub(crate) fn head_range(
    layout: &KvLayout,
    block: BlockId,
    layer: usize,
    kind: KvKind,
    kv_head: usize,
) -> std::ops::Range<usize> {
    let head = layout.block_tokens * layout.dtype.vector_bytes(layout.head_dim);
    let index = (2 * layer + kind as usize) * layout.kv_heads + kv_head;
    let start = block.0 as usize * layout.unit_bytes + index * head;
    start..start + head
}

/// Converts one vector of a token (`[head_dim]`) and writes it into a head.
fn scatter<T>(
    layout: &KvLayout,
    kind: KvKind,
    token: usize,
    values: &[f32],
    head: &mut [T],
    convert: impl Fn(f32) -> T,
) {
    let head_dim = layout.head_dim;
    match kind {
        KvKind::Keys if keys_in_panels(layout) => {
            let panel = &mut head[token / COLS * head_dim * COLS..][..head_dim * COLS];
            let column = token % COLS;
            if in_pairs(layout) {
                let words = panel.chunks_exact_mut(2 * COLS);
                for (word, values) in words.zip(values.chunks_exact(2)) {
                    word[2 * column] = convert(values[0]);
                    word[2 * column + 1] = convert(values[1]);
                }
            } else {
                for (to, &value) in panel[column..].iter_mut().step_by(COLS).zip(values) {
                    *to = convert(value);
                }
            }
        }
        KvKind::Values if values_in_panels(layout) => {
            let panels = head.chunks_exact_mut(layout.block_tokens * COLS);
            for (panel, values) in panels.zip(values.chunks_exact(COLS)) {
                if in_pairs(layout) {
                    let row = &mut panel[pair_offset(token, 0)..];
                    for (to, &value) in row.iter_mut().step_by(2).zip(values) {
                        *to = convert(value);
                    }
                } else {
                    for (to, &value) in panel[token * COLS..].iter_mut().zip(values) {
                        *to = convert(value);
                    }
                }
            }
        }
        KvKind::Keys | KvKind::Values => {
            let row = &mut head[token * head_dim..][..head_dim];
            for (to, &value) in row.iter_mut().zip(values) {
                *to = convert(value);
            }
        }
    }
}

/// Writes K and V of one token (`[kv_heads * head_dim]` each) into one layer.
pub(crate) fn append(
    layout: &KvLayout,
    layer: usize,
    slot: Slot,
    k: &[f32],
    v: &[f32],
    arena: &mut Arena,
) {
    let token = slot.offset as usize;
    assert!(
        token < layout.block_tokens,
        "offset {token} in a block of {}",
        layout.block_tokens
    );
    for (kind, values) in [(KvKind::Keys, k), (KvKind::Values, v)] {
        for (kv_head, values) in values.chunks_exact(layout.head_dim).enumerate() {
            let range = head_range(layout, slot.block, layer, kind, kv_head);
            let head = &mut arena.bytes_mut()[range];
            match layout.dtype {
                KvDtype::Float(Dtype::F32) => {
                    let head: &mut [f32] = bytemuck::cast_slice_mut(head);
                    scatter(layout, kind, token, values, head, |value| value);
                }
                KvDtype::Float(Dtype::Bf16) => {
                    let head: &mut [bf16] = bytemuck::cast_slice_mut(head);
                    scatter(layout, kind, token, values, head, bf16::from_f32);
                }
                KvDtype::Float(Dtype::F16) => {
                    let head: &mut [f16] = bytemuck::cast_slice_mut(head);
                    scatter(layout, kind, token, values, head, f16::from_f32);
                }
                KvDtype::Int8 => {
                    let (head, scales) = int8_mut(layout, head);
                    // A NaN scale makes the whole vector NaN, whatever its integers are.
                    let scale = largest(values) / 127.0;
                    let inverse = inverse(scale);
                    scales[token] = scale;
                    let convert = |value| round(value * inverse) as i8;
                    scatter(layout, kind, token, values, head, convert);
                }
            }
        }
    }
}

/// Calls `put(d, value)` for every dimension `d` of one token of a plain head.
pub(crate) fn read_plain(
    layout: &KvLayout,
    head: &[u8],
    token: usize,
    mut put: impl FnMut(usize, f32),
) {
    let range = token * layout.head_dim..(token + 1) * layout.head_dim;
    match layout.dtype {
        KvDtype::Float(Dtype::F32) => {
            let head: &[f32] = bytemuck::cast_slice(head);
            for (d, &value) in head[range].iter().enumerate() {
                put(d, value);
            }
        }
        KvDtype::Float(Dtype::Bf16) => {
            let head: &[bf16] = bytemuck::cast_slice(head);
            for (d, &value) in head[range].iter().enumerate() {
                put(d, value.to_f32());
            }
        }
        KvDtype::Float(Dtype::F16) => {
            let head: &[f16] = bytemuck::cast_slice(head);
            for (d, &value) in head[range].iter().enumerate() {
                put(d, value.to_f32());
            }
        }
        KvDtype::Int8 => {
            let (head, scales) = int8(layout, head);
            for (d, &value) in head[range].iter().enumerate() {
                put(d, f32::from(value) * scales[token]);
            }
        }
    }
}

/// An int8 head's elements and its tokens' scales.
fn int8<'a>(layout: &KvLayout, head: &'a [u8]) -> (&'a [i8], &'a [f32]) {
    let (elements, scales) = head.split_at(head.len() - layout.block_tokens * size_of::<f32>());
    (bytemuck::cast_slice(elements), bytemuck::cast_slice(scales))
}

fn int8_mut<'a>(layout: &KvLayout, head: &'a mut [u8]) -> (&'a mut [i8], &'a mut [f32]) {
    let elements = head.len() - layout.block_tokens * size_of::<f32>();
    let (elements, scales) = head.split_at_mut(elements);
    (
        bytemuck::cast_slice_mut(elements),
        bytemuck::cast_slice_mut(scales),
    )
}

widest! {
    /// Writes panel `panel` of an int8 head of K, `[head_dim][16]`, as f32.
    pub(crate) fn widen_keys(layout: &KvLayout, head: &[u8], panel: usize, out: &mut [f32]) {
        let (elements, scales) = int8(layout, head);
        let len = layout.head_dim * COLS;
        let scales = &scales[panel * COLS..][..COLS];
        let rows = elements[panel * len..][..len].chunks_exact(COLS);
        for (out, row) in out.chunks_exact_mut(COLS).zip(rows) {
            for ((out, &value), &scale) in out.iter_mut().zip(row).zip(scales) {
                *out = f32::from(value) * scale;
            }
        }
    }
}

widest! {
    /// Widens the first `tokens` tokens of every panel of an int8 head of V to f32. `out` has
    /// panels of `panel_tokens` tokens, `[dimension / 16][panel_tokens][16]`; the first goes to
    /// token `to`.
    pub(crate) fn widen_values(
        layout: &KvLayout,
        head: &[u8],
        tokens: usize,
        to: usize,
        panel_tokens: usize,
        out: &mut [f32],
    ) {
        let (elements, scales) = int8(layout, head);
        let panels = elements.chunks_exact(layout.block_tokens * COLS);
        // Padding after the elements may form one more panel; `out` ends before it.
        for (out, panel) in out.chunks_exact_mut(panel_tokens * COLS).zip(panels) {
            let rows = (out[to * COLS..].chunks_exact_mut(COLS)).zip(panel.chunks_exact(COLS));
            for ((out, row), &scale) in rows.zip(scales).take(tokens) {
                for (out, &value) in out.iter_mut().zip(row) {
                    *out = f32::from(value) * scale;
                }
            }
        }
    }
}

widest! {
    /// Copies V of `tokens` tokens of a bf16 head, from token `from` on, into panels of pairs of
    /// `panel_tokens` tokens, from token `to` on.
    pub(crate) fn copy_values(
        layout: &KvLayout,
        head: &[u8],
        from: usize,
        tokens: usize,
        to: usize,
        panel_tokens: usize,
        out: &mut [bf16],
    ) {
        if !values_in_panels(layout) {
            for token in 0..tokens {
                let panel = |d: usize| d / COLS * panel_tokens * COLS;
                read_plain(layout, head, from + token, |d, value| {
                    out[panel(d) + pair_offset(to + token, d % COLS)] = bf16::from_f32(value);
                });
            }
            return;
        }
        let head: &[bf16] = bytemuck::cast_slice(head);
        let panels = head.chunks_exact(layout.block_tokens * COLS);
        for (out, panel) in out.chunks_exact_mut(panel_tokens * COLS).zip(panels) {
            let mut token = 0;
            if from.is_multiple_of(2) && to.is_multiple_of(2) {
                token = tokens / 2 * 2;
                let panel = &panel[from * COLS..][..token * COLS];
                out[to * COLS..][..token * COLS].copy_from_slice(panel);
            }
            for token in token..tokens {
                let (from, to) = (from + token, to + token);
                let (pairs, _) = panel[from / 2 * 2 * COLS..][..2 * COLS].as_chunks::<2>();
                let (out, _) = out[to / 2 * 2 * COLS..][..2 * COLS].as_chunks_mut::<2>();
                for (out, pair) in out.iter_mut().zip(pairs) {
                    out[to % 2] = pair[from % 2];
                }
            }
        }
    }
}

/// [`Backend::copy_blocks`](crate::Backend::copy_blocks), one pair after the other.
pub(crate) fn copy_blocks(layout: &KvLayout, pairs: &[(BlockId, BlockId)], arena: &mut Arena) {
    let len = layout.block_bytes();
    for &(from, to) in pairs {
        let [from, to] = [from, to].map(|block| block.0 as usize * layout.unit_bytes);
        arena.bytes_mut().copy_within(from..from + len, to);
    }
}
