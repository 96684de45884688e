//! Rotary embedding, and writing K and V to the cache.
//!
//! What: for every row and every head of Q and K, with `c, s` the cosine and sine of the row's
//! position and pair `i`: `(a, b) = (a c - b s, b c + a s)`, `a` at `i`, `b` at `i + head_dim / 2`.
//! Then K (rotated) and V go to the row's slot, if it has one.
//!
//! Tiling: rotation a row at a time, rows divided among threads; K and V are written by the calling
//! thread.
//! Layout: `qkv` row-major `[rows, q heads | k heads | v heads]`, rotated in place; the cache as
//! [`kv`](super::kv) describes. Numerics: two products and one sum, each rounded; rounding to bf16
//! is to nearest even.
//! Budget: `8 * rows * (heads + kv_heads) * head_dim` bytes of rows, `rows * token_bytes / layers`
//! written; `3 * rows * (heads + kv_heads) * head_dim` FLOPs.

use super::buffers::{Activations, Arena};
use super::kv;
use super::workers::Workers;
use crate::{BatchPlan, KvLayout, RopeTable};

/// [`Backend::rope_and_append`](crate::Backend::rope_and_append).
pub(crate) fn rope_and_append(
    workers: &Workers,
    qkv: &mut Activations,
    rope: &RopeTable,
    plan: &BatchPlan,
    layout: &KvLayout,
    layer: usize,
    arena: &mut Arena,
) {
    let (head_dim, half) = (layout.head_dim, rope.half_dim);
    assert_eq!(2 * half, head_dim, "the rotary table's head dimension");
    assert_eq!(qkv.cols(), layout.qkv_cols(), "columns of Q, K and V");
    assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
    let cols = qkv.cols();
    let q_cols = layout.heads * head_dim;
    let kv_cols = layout.kv_heads * head_dim;
    let rotated = q_cols + kv_cols;
    let rows = plan.rows.len();
    workers.rows(
        qkv.first_rows_mut(rows),
        cols,
        3 * rows * rotated,
        |r, row| {
            let start = plan.rows[r].position as usize * half;
            let (cos, sin) = (&rope.cos[start..][..half], &rope.sin[start..][..half]);
            for head in row[..rotated].chunks_exact_mut(head_dim) {
                let (a, b) = head.split_at_mut(half);
                for (((a, b), &c), &s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        },
    );
    for (r, row) in plan.rows.iter().enumerate() {
        if let Some(slot) = row.slot {
            let (k, v) = qkv.row(r)[q_cols..].split_at(kv_cols);
            kv::append(layout, layer, slot, k, v, arena);
        }
    }
}
