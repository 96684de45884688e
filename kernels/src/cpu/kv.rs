//! How K and V lie in a block of the arena.
//!
//! A block is `[layer][K, V][kv head][block_tokens * head_dim]`. Within a head:
//!
//! - K as panels of 16 *tokens*, `[token / 16][head_dim][16]`, so that the micro-kernel computes
//!   16 scores at once; plain `[token][head_dim]` if 16 does not divide the block's tokens.
//! - V as panels of 16 *dimensions*, `[dimension / 16][token][16]`; plain `[token][head_dim]` if
//!   16 does not divide the head dimension.
//!
//! bf16 panels are of pairs ([`pair_place`]), `[head_dim / 2][16][2]` and `[token / 2][16][2]`; plain heads if
//! there is an odd number to pair. Plain heads are re-laid into panels by attention as it reads them, which
//! changes no bit.
//!
//! int8 lies in the same order; behind a head's elements come the scales of its tokens, f32. Attention
//! widens it to f32 panels as it reads them, once for all rows that see them.

use super::buffers::Arena;
use super::tile::{COLS, pair_place};
use crate::plan::{BlockId, Slot};
use crate::quant::{inverse, largest, round};
use crate::widest::widest;
use crate::{Dtype, KvDtype, KvLayout};
use half::{bf16, f16};

/// K or V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Keys = 0,
    Values = 1,
}

/// Whether K lies in panels of tokens.
pub(crate) fn keys_in_panels(layout: &KvLayout) -> bool {
    layout.block_tokens.is_multiple_of(COLS) && !(in_pairs(layout) && layout.head_dim % 2 == 1)
}

/// Whether V lies in panels of dimensions.
pub(crate) fn values_in_panels(layout: &KvLayout) -> bool {
    layout.head_dim.is_multiple_of(COLS) && !(in_pairs(layout) && layout.block_tokens % 2 == 1)
}

/// Whether panels are of pairs.
fn in_pairs(layout: &KvLayout) -> bool {
    layout.dtype == KvDtype::Float(Dtype::Bf16)
}

/// Byte range of one head of one layer of a block.
pub(crate) fn head_range(
    layout: &KvLayout,
    block: BlockId,
    layer: usize,
    part: Part,
    kv_head: usize,
) -> std::ops::Range<usize> {
    let head = layout.block_tokens * layout.dtype.vector_bytes(layout.head_dim);
    let index = (2 * layer + part as usize) * layout.kv_heads + kv_head;
    let start = block.0 as usize * layout.unit_bytes + index * head;
    start..start + head
}

/// Writes one vector of a token (`[head_dim]`), each number converted, into a head.
fn scatter<T>(
    layout: &KvLayout,
    part: Part,
    token: usize,
    values: &[f32],
    head: &mut [T],
    convert: impl Fn(f32) -> T,
) {
    let head_dim = layout.head_dim;
    match part {
        Part::Keys if keys_in_panels(layout) => {
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
        Part::Values if values_in_panels(layout) => {
            let panels = head.chunks_exact_mut(layout.block_tokens * COLS);
            for (panel, values) in panels.zip(values.chunks_exact(COLS)) {
                if in_pairs(layout) {
                    let row = &mut panel[pair_place(token, 0)..];
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
        Part::Keys | Part::Values => {
            let row = &mut head[token * head_dim..][..head_dim];
            for (to, &value) in row.iter_mut().zip(values) {
                *to = convert(value);
            }
        }
    }
}

/// Writes one token's K and V (`[kv_heads * head_dim]` each) of one layer.
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
    for (part, values) in [(Part::Keys, k), (Part::Values, v)] {
        for (kv_head, values) in values.chunks_exact(layout.head_dim).enumerate() {
            let range = head_range(layout, slot.block, layer, part, kv_head);
            let head = &mut arena.bytes_mut()[range];
            match layout.dtype {
                KvDtype::Float(Dtype::F32) => {
                    let head: &mut [f32] = bytemuck::cast_slice_mut(head);
                    scatter(layout, part, token, values, head, |value| value);
                }
                KvDtype::Float(Dtype::Bf16) => {
                    let head: &mut [bf16] = bytemuck::cast_slice_mut(head);
                    scatter(layout, part, token, values, head, bf16::from_f32);
                }
                KvDtype::Float(Dtype::F16) => {
                    let head: &mut [f16] = bytemuck::cast_slice_mut(head);
                    scatter(layout, part, token, values, head, f16::from_f32);
                }
                KvDtype::Int8 => {
                    let (head, scales) = int8_mut(layout, head);
                    // No number is no number whatever it is multiplied with.
                    let scale = largest(values) / 127.0;
                    let inverse = inverse(scale);
                    scales[token] = scale;
                    let convert = |value| round(value * inverse) as i8;
                    scatter(layout, part, token, values, head, convert);
                }
            }
        }
    }
}

/// Calls `put(d, value)` for the dimensions of one token of a plain (panel-free) head.
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
    /// Writes the first `tokens` tokens of every panel of an int8 head of V, `[dimension / 16][token][16]`,
    /// as f32 from token `to` on of panels of `stretch` tokens.
    pub(crate) fn widen_values(
        layout: &KvLayout,
        head: &[u8],
        tokens: usize,
        to: usize,
        stretch: usize,
        out: &mut [f32],
    ) {
        let (elements, scales) = int8(layout, head);
        let panels = elements.chunks_exact(layout.block_tokens * COLS);
        // Padding behind the elements may look like one panel more; `out` ends before it.
        for (out, panel) in out.chunks_exact_mut(stretch * COLS).zip(panels) {
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
    /// Copies the V of `tokens` tokens of a bf16 head, from `from` on, to the places from `to` on of panels of
    /// pairs that have `stretch` places.
    pub(crate) fn copy_values(
        layout: &KvLayout,
        head: &[u8],
        from: usize,
        tokens: usize,
        to: usize,
        stretch: usize,
        out: &mut [bf16],
    ) {
        if !values_in_panels(layout) {
            for token in 0..tokens {
                let panel = |d: usize| d / COLS * stretch * COLS;
                read_plain(layout, head, from + token, |d, value| {
                    out[panel(d) + pair_place(to + token, d % COLS)] = bf16::from_f32(value);
                });
            }
            return;
        }
        let head: &[bf16] = bytemuck::cast_slice(head);
        let panels = head.chunks_exact(layout.block_tokens * COLS);
        for (out, panel) in out.chunks_exact_mut(stretch * COLS).zip(panels) {
            let mut token = 0;
            if from.is_multiple_of(2) && to.is_multiple_of(2) {
                token = tokens / 2 * 2;
                let panel = &panel[from * COLS..][..token * COLS];
                out[to * COLS..][..token * COLS].copy_from_slice(panel);
            }
            for token in token..tokens {
                let (from, to) = (from + token, to + token);
                let pairs = &panel[from / 2 * 2 * COLS..][..2 * COLS];
                let out = &mut out[to / 2 * 2 * COLS..][..2 * COLS];
                for (out, pair) in out.as_chunks_mut::<2>().0.iter_mut().zip(pairs.as_chunks::<2>().0) {
                    out[to % 2] = pair[from % 2];
                }
            }
        }
    }
}

/// Copies whole blocks, one pair after the other.
pub(crate) fn copy_blocks(layout: &KvLayout, pairs: &[(BlockId, BlockId)], arena: &mut Arena) {
    let len = layout.block_bytes();
    for &(from, to) in pairs {
        let [from, to] = [from, to].map(|block| block.0 as usize * layout.unit_bytes);
        arena.bytes_mut().copy_within(from..from + len, to);
    }
}
