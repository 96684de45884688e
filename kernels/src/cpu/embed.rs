//! Rows by index: the embedding lookup and the gathering of output rows.
//!
//! What: `out[r, :] = scale * table[rows[r].token_id, :]` in f32; `out[i, :] = x[outputs[i], :]`.
//! Tiling: a row at a time, on the calling thread. Layout: the table is a packed [`Weight`], so a
//! row is a column of a panel and its elements are 16 apart. Numerics: the scale rounds once, a scale
//! of 1 does not; gathered rows are exact copies.
//! Budget: one cache line read and 4 bytes written per element (embed, from bf16: half a line);
//! 8 bytes per element (gather). One FLOP per element (embed).

use super::buffers::{Activations, Stored, Weight};
use super::tile::{COLS, pair_offset};
use crate::{BatchPlan, Dtype};
use half::{bf16, f16};

/// [`Backend::embed`](crate::Backend::embed).
pub(crate) fn embed(table: &Weight, plan: &BatchPlan, scale: f32, out: &mut Activations) {
    let cols = table.cols();
    assert_eq!(out.cols(), cols, "columns of the embedding");
    for (row, out) in plan
        .rows
        .iter()
        .zip(out.first_rows_mut(plan.rows.len()).chunks_exact_mut(cols))
    {
        let token = row.token_id as usize;
        assert!(
            token < table.rows(),
            "token {token} of a vocabulary of {}",
            table.rows()
        );
        let panel = table.panel(token / COLS);
        match table.stored() {
            Stored::Float(Dtype::F32) => {
                let values: &[f32] = bytemuck::cast_slice(panel);
                let column = values[token % COLS..].iter().step_by(COLS);
                out.iter_mut()
                    .zip(column)
                    .for_each(|(o, &v)| *o = scale * v);
            }
            Stored::Float(Dtype::Bf16) => {
                let values: &[bf16] = bytemuck::cast_slice(panel);
                for (k, o) in out.iter_mut().enumerate() {
                    *o = scale * values[pair_offset(k, token % COLS)].to_f32();
                }
            }
            Stored::Float(Dtype::F16) => {
                let values: &[f16] = bytemuck::cast_slice(panel);
                let column = values[token % COLS..].iter().step_by(COLS);
                out.iter_mut()
                    .zip(column)
                    .for_each(|(o, v)| *o = scale * v.to_f32());
            }
            Stored::Quantized(_) => unreachable!("an embedding is never quantised"),
        }
    }
}

/// [`Backend::gather_outputs`](crate::Backend::gather_outputs).
pub(crate) fn gather_outputs(x: &Activations, plan: &BatchPlan, out: &mut Activations) {
    let cols = x.cols();
    assert_eq!(out.cols(), cols, "columns of the outputs");
    for (&row, out) in plan.outputs.iter().zip(
        out.first_rows_mut(plan.outputs.len())
            .chunks_exact_mut(cols),
    ) {
        out.copy_from_slice(x.row(row as usize));
    }
}
