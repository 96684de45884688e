//! A stock engine by the same constants: what vLLM or SGLang do with the same batch, in bf16, without
//! sharing between branches.
//!
//! Linear layers by cuBLASLt, biases in its epilogue; decode attention in the manner of FlashDecoding, each
//! branch reading its whole context; small kernels by their number; sampling by passes over the logits. With
//! a prefix cache the branches' common blocks are the same memory, so at the fast end they come out of L2;
//! at the slow end, out of DRAM. The host is left out: `StockHost` is zero.

use std::collections::BTreeMap;

use super::batch::{Batch, Part, Predicted};
use super::constants::{CardEnd, Constant};
use super::linear::{self, Output};
use super::operations::Operation;

/// What a stock engine would take for a batch.
pub fn predict(batch: &Batch<'_>) -> Predicted {
    let [fast, slow] = CardEnd::ends(batch.card).map(|m| parts(batch, &m));
    Predicted::of_parts(&fast, &slow)
}

fn parts(batch: &Batch<'_>, m: &CardEnd) -> BTreeMap<Part, f64> {
    let mut parts = BTreeMap::new();
    let mut gemms = 0;
    for operation in &batch.operations {
        let (part, time) = match *operation {
            Operation::Linear { shape, .. } | Operation::LinearGated { shape, .. } => {
                gemms += 1;
                (Part::Linear, linear::cublaslt(m, shape, Output::HALF).time)
            }
            Operation::Attention { window } => (Part::Attention, attention(batch, m, window)),
            Operation::Sample => (Part::Sampling, sampling(batch, m)),
            _ => continue,
        };
        *parts.entry(part).or_default() += time;
    }
    let layers = batch.model.config.layers as f64;
    let small =
        layers * m.value(Constant::StockLayerKernels) + m.value(Constant::StockBatchKernels);
    let other = small * m.value(Constant::StockSmallKernel) + layers * m.stream(layer_bytes(batch));
    parts.insert(Part::Other, other);
    let gaps = (small + f64::from(gemms)) * m.value(Constant::LaunchGap);
    let copies = m.value(Constant::StockCopies) * m.value(Constant::SmallCopy);
    parts.insert(Part::Launches, gaps + copies + m.value(Constant::StockHost));
    parts
}

/// Bytes that the small kernels of a layer move: two norms that add (residual and branch read, both written),
/// rotation, the append, SwiGLU, in bf16.
fn layer_bytes(batch: &Batch<'_>) -> f64 {
    let c = &batch.model.config;
    let rotated = (c.heads + 2 * c.kv_heads) * c.head_dim;
    let row = 2 * 8 * c.hidden + 4 * rotated + 6 * c.intermediate;
    (batch.rows * row) as f64
}

/// Bytes of keys and values for decode, products for prefill.
fn attention(batch: &Batch<'_>, m: &CardEnd, window: Option<u32>) -> f64 {
    let counted = batch.attention(window);
    let share = m.value(Constant::StockAttentionDram);
    let unique = m.dram(counted.unique_bytes) / share;
    if batch.prefill {
        let (heads, _, head_dim) = batch.model.heads();
        let flops = 4.0 * counted.visible * (heads * head_dim) as f64;
        return unique.max(m.peak(flops) / m.value(Constant::StockAttentionPeak));
    }
    if m.is_fast() {
        unique.max(m.l2(counted.flat_bytes))
    } else {
        m.dram(counted.flat_bytes) / share
    }
}

fn sampling(batch: &Batch<'_>, m: &CardEnd) -> f64 {
    let (vocab, _) = batch.model.head();
    let bytes = (4 * batch.draws * vocab) as f64;
    m.value(Constant::StockSamplingPasses) * m.stream(bytes)
}
