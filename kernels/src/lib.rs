//! Offshoot's device layer: memory, the operations of a transformer, and the plan of a batch.
//!
//! A *batch* is one forward pass of a model over rows of many sequences. This crate handles shapes,
//! buffers and plans; it never sees a token's text, a request or a model's name. Its parts:
//!
//! - [`plan`]: the rows of a batch and the KV runs they share, as plain data.
//!   [`plan::BatchPlan::build`] is a pure function from block tables to a plan.
//! - [`backend`]: the [`Backend`] trait, one method per operation, enqueued in order.
//! - [`cpu`] and [`cuda`]: the backends.
//!
//! # Shared runs
//!
//! Every backend uses the same plan. A *run* is a sequence of consecutive KV tokens that a
//! contiguous range of rows attends to; its K and V are read once for all these rows.

pub mod activation;
pub mod backend;
#[cfg(any(test, feature = "cases"))]
pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod dtype;
pub mod error;
mod exp2;
pub mod file;
pub mod philox;
pub mod plan;
pub mod quant;
#[cfg(any(test, feature = "cases"))]
pub mod reference;
pub mod sampling;
mod widest;

pub use activation::Activation;
pub use backend::{Allocation, Backend, DEFAULT_KV_BYTES, KvLayout, MatrixView, RopeTable};
pub use cpu::CpuBackend;
pub use cuda::CudaBackend;
pub use dtype::{Dtype, KvDtype};
pub use error::{Error, Setting};
pub use plan::{BatchPlan, BlockId, Row, Run, SequenceRows, Slot, Substitution};
pub use quant::{Quantization, QuantizedMatrix};
pub use sampling::{Confidence, Draw, Sample, Sampling, TOP_TOKENS};
