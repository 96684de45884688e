//! Offshoot's device layer: memory, the operations of a transformer, and the plan of a step.
//!
//! This crate knows shapes, buffers and plans. It never sees a token's text, a request or a
//! model's name. Three rooms:
//!
//! - [`plan`]: what one device step will do, as plain data. [`plan::StepPlan::build`] is a pure
//!   function from block tables to rows and shared runs.
//! - [`backend`]: the [`Backend`] trait, one method per operation, enqueued in order.
//! - [`cpu`] and [`cuda`]: the backends.
//!
//! # Partial attention
//!
//! Every backend uses the same plan: a *run* is a stretch of consecutive KV tokens seen by a
//! contiguous range of rows, and its K and V are read once for all of them.

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
pub use backend::{Backend, DEFAULT_KV_BYTES, KvLayout, MatrixView, RopeTable};
pub use cpu::CpuBackend;
pub use cuda::CudaBackend;
pub use dtype::{Dtype, KvDtype};
pub use error::{Error, Setting};
pub use plan::{BlockId, Feed, Row, Run, SequenceRows, Slot, StepPlan};
pub use quant::{Quantization, Quantized};
pub use sampling::{Draw, Sample, Sampling};
