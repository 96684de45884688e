//! The operations of a forward pass, as `engine::model` calls them on its backend. A test compares them with
//! the calls of an engine that runs.

use engine::checkpoint::layout::{LayerLayout, LinearSpec};

use super::linear::Shape;
use super::model::Model;

/// An operation of a forward pass, as the engine calls it on a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Tokens drawn by the last batch become inputs.
    Substitute,
    /// Rows of the embedding.
    Embed,
    /// An RMS norm of so many rows.
    Norm {
        /// Rows.
        rows: usize,
    },
    /// The norm of query and key heads.
    QkNorm,
    /// A linear layer.
    Linear {
        /// Rows, output and input features.
        shape: Shape,
        /// Bytes that move for each output.
        output_bytes: usize,
    },
    /// A linear layer of gates and ups with its activation.
    LinearGated {
        /// Rows, gates and ups, input features.
        shape: Shape,
    },
    /// Rotation, and the append to the KV cache.
    Rope,
    /// Attention of a layer with this window.
    Attention {
        /// Positions that a row sees.
        window: Option<u32>,
    },
    /// The rows whose output is wanted.
    Gather,
    /// Drawing tokens.
    Sample,
}

/// The operations of a batch of `rows` rows of which `outputs` are drawn from, `substituted` if its inputs
/// are the last batch's draws.
pub fn operations(model: &Model, rows: usize, outputs: usize, substituted: bool) -> Vec<Operation> {
    let mut all = Vec::new();
    if substituted {
        all.push(Operation::Substitute);
    }
    all.push(Operation::Embed);
    for (layer, &window) in model.layout.layers.iter().zip(&model.config.windows) {
        push_layer(&mut all, layer, rows, window);
    }
    if outputs > 0 {
        let (n, k) = model.head();
        all.extend([
            Operation::Gather,
            Operation::Norm { rows: outputs },
            Operation::Linear {
                shape: Shape {
                    rows: outputs,
                    n,
                    k,
                },
                output_bytes: 4,
            },
            Operation::Sample,
        ]);
    }
    all
}

fn push_layer(all: &mut Vec<Operation>, layer: &LayerLayout, rows: usize, window: Option<u32>) {
    let shape = |linear: &LinearSpec| Shape {
        rows,
        n: linear.rows(),
        k: linear.cols,
    };
    let linear = |linear: &LinearSpec, output_bytes| Operation::Linear {
        shape: shape(linear),
        output_bytes,
    };
    // f32, read and written where it is added to; where a norm follows, written here and read there.
    const STREAM: usize = 8;
    all.extend([Operation::Norm { rows }, linear(&layer.qkv, 2)]);
    all.extend(layer.qk_norm.as_ref().map(|_| Operation::QkNorm));
    all.extend([
        Operation::Rope,
        Operation::Attention { window },
        linear(&layer.output, STREAM),
    ]);
    all.extend((layer.attention_post_norm.as_ref()).map(|_| Operation::Norm { rows }));
    all.extend([
        Operation::Norm { rows },
        Operation::LinearGated {
            shape: shape(&layer.gate_up),
        },
        linear(&layer.down, STREAM),
    ]);
    all.extend((layer.mlp_post_norm.as_ref()).map(|_| Operation::Norm { rows }));
}
