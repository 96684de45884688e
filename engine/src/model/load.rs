//! Loading: tensors of a checkpoint, put onto a device as the plan says.

use kernels::{Allocation, Backend, Dtype, KvLayout, MatrixView, Quantized};

use super::plan::{Buffers, HeadPlan, LoadOptions, Plan, distinct, shape};
use super::{BlockOutput, Head, Layer, Linear, Model};
use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::layout::{LayerLayout, LinearSpec, TensorSpec};
use crate::checkpoint::rope::Rope;

impl<B: Backend> Model<B> {
    /// Puts a checkpoint's weights onto the device and allocates the buffers: exactly what
    /// [`super::allocations`] lists.
    ///
    /// # Errors
    /// A missing tensor, a wrong shape or dtype, a head row outside of the vocabulary, too little
    /// memory.
    pub fn load(
        backend: &mut B,
        checkpoint: &Checkpoint,
        layout: KvLayout,
        options: &LoadOptions,
    ) -> Result<Model<B>, Error> {
        let (config, tensors) = (checkpoint.config.clone(), checkpoint.layout());
        let plan = Plan {
            checkpoint,
            quantize: options.quantize,
        };
        let ropes = distinct(&config.ropes);
        let mut loader = Loader {
            backend,
            checkpoint,
            plan: &plan,
            norm_offset: config.norm_offset,
        };
        let layers = (tensors.layers.iter().zip(&config.ropes))
            .map(|(layer, rope)| loader.layer(layer, &ropes, rope))
            .collect::<Result<_, _>>()?;
        let head = loader.head(plan.head(options))?;
        let embedding = loader.matrix(std::slice::from_ref(&tensors.embedding))?;
        let norm = loader.norm(&tensors.final_norm)?;
        let positions = options.context_length.min(options.kv_tokens);
        let ropes = (ropes.iter())
            .map(|rope| backend.load_rope(rope.table(config.head_dim, positions)))
            .collect::<Result<_, _>>()?;
        let buffers = Buffers::sizes(&config, &layout, options).try_map(|size| match size {
            Allocation::Activations { rows, cols } => backend.activations(rows, cols),
            Allocation::HalfActivations { rows, cols } => backend.product_activations(rows, cols),
            other => unreachable!("{other:?} is not a buffer"),
        })?;
        Ok(Model {
            max_rows: options.max_rows,
            max_outputs: shape(&config, &layout, options).max_outputs,
            embedding_scale: config.dtype.round(config.scales.embedding),
            config,
            layout,
            embedding,
            layers,
            norm,
            head,
            ropes,
            buffers,
            recordings: B::Recordings::default(),
        })
    }
}

/// Reads tensors of a checkpoint and hands them to a device.
struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    checkpoint: &'a Checkpoint,
    plan: &'a Plan<'a>,
    /// Added to the weights of norms.
    norm_offset: f32,
}

impl<B: Backend> Loader<'_, B> {
    fn layer(
        &mut self,
        spec: &LayerLayout,
        ropes: &[Rope],
        rope: &Rope,
    ) -> Result<Layer<B>, Error> {
        let qk_norm = match &spec.qk_norm {
            Some([q, k]) => Some([self.norm(q)?, self.norm(k)?]),
            None => None,
        };
        Ok(Layer {
            attention_norm: self.norm(&spec.attention_norm)?,
            qkv: self.linear(&spec.qkv)?,
            qk_norm,
            rope: ropes.iter().position(|r| r == rope).unwrap_or(0),
            output: self.block_output(&spec.output, &spec.attention_post_norm)?,
            mlp_norm: self.norm(&spec.mlp_norm)?,
            gate_up: self.linear(&spec.gate_up)?,
            down: self.block_output(&spec.down, &spec.mlp_post_norm)?,
        })
    }

    fn block_output(
        &mut self,
        linear: &LinearSpec,
        norm: &Option<TensorSpec>,
    ) -> Result<BlockOutput<B>, Error> {
        Ok(BlockOutput {
            linear: self.linear(linear)?,
            norm: norm.as_ref().map(|norm| self.norm(norm)).transpose()?,
        })
    }

    fn head(&mut self, plan: HeadPlan<'_>) -> Result<Head<B>, Error> {
        Ok(match plan {
            HeadPlan::Embedding => Head::Embedding,
            HeadPlan::Rows(tensor, rows) => Head::Linear(Linear {
                weight: self.rows_of(tensor, rows)?,
                bias: None,
            }),
            HeadPlan::Linear(linear) => Head::Linear(self.linear(&linear)?),
            HeadPlan::TwoLayer(inner, outer) => Head::TwoLayer {
                inner: self.linear(inner)?,
                outer: self.linear(outer)?,
            },
        })
    }

    /// A linear layer: its matrices stacked along their rows, its biases one after the other.
    fn linear(&mut self, spec: &LinearSpec) -> Result<Linear<B>, Error> {
        let weight = match self.plan.quantization(spec) {
            None => self.matrix(&spec.matrices)?,
            Some(kind) => {
                let quantized = |matrix| match self.checkpoint.quantized(matrix)? {
                    Some(stored) => Ok(stored),
                    None => Ok(Quantized::new(&self.checkpoint.matrix(matrix)?, kind)),
                };
                let all =
                    (spec.matrices.iter().map(quantized)).collect::<Result<Vec<_>, Error>>()?;
                self.backend.load_quantized(&all)?
            }
        };
        let mut bias = Vec::new();
        for part in &spec.biases {
            bias.extend(self.checkpoint.vector(part)?);
        }
        let bias = if bias.is_empty() {
            None
        } else {
            Some(self.backend.load_vector(&bias)?)
        };
        Ok(Linear { weight, bias })
    }

    /// Matrices in floating point, stacked along their rows.
    fn matrix(&mut self, parts: &[TensorSpec]) -> Result<B::Weight, Error> {
        let views = (parts.iter())
            .map(|part| self.checkpoint.matrix(part))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.backend.load_matrix(&views)?)
    }

    /// Some rows of a matrix, in the order given.
    fn rows_of(&mut self, spec: &TensorSpec, wanted: &[u32]) -> Result<B::Weight, Error> {
        let (vocab, cols) = (spec.rows(), spec.cols());
        if let Some(&token) = wanted.iter().find(|&&row| row as usize >= vocab) {
            return Err(Error::TokenOutOfVocabulary { token, vocab });
        }
        if let Some(matrix) = self.checkpoint.quantized(spec)? {
            let numbers: Vec<f32> = (wanted.iter())
                .flat_map(|&row| matrix.row(row as usize))
                .collect();
            return Ok(self.backend.load_matrix(&[MatrixView {
                rows: wanted.len(),
                cols,
                dtype: Dtype::F32,
                bytes: bytemuck::cast_slice(&numbers),
            }])?);
        }
        let all = self.checkpoint.matrix(spec)?;
        let width = cols * all.dtype.bytes();
        let row = |&row: &u32| MatrixView {
            rows: 1,
            bytes: &all.bytes[row as usize * width..][..width],
            ..all
        };
        let views: Vec<_> = wanted.iter().map(row).collect();
        Ok(self.backend.load_matrix(&views)?)
    }

    /// The weights of a norm.
    fn norm(&mut self, spec: &TensorSpec) -> Result<B::Vector, Error> {
        let mut weights = self.checkpoint.vector(spec)?;
        if self.norm_offset != 0.0 {
            weights.iter_mut().for_each(|w| *w += self.norm_offset);
        }
        Ok(self.backend.load_vector(&weights)?)
    }
}
