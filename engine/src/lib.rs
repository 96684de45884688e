//! Offshoot's engine: models, the paged KV cache, the scheduler and sampling.
//!
//! Its terms are tokens and branches; strategies, rewards and datasets are above it.
//!
//! An [`Engine`] holds models on one device. [`Model::root`] starts a [`Branch`], which is forked
//! and continued with `async` calls; [`Engine::run`] drives any number of them at once and
//! computes everything that is ready in one batch.
//!
//! # Rooms
//!
//! - [`checkpoint`]: the files of a model, opened and checked.
//! - [`text`]: tokenizers, chat templates, stop strings.
//! - `kv`: the paged KV cache: one memory, blocks that free themselves, prefixes.
//! - `schedule`: requests, sequences, and the batches that the device computes for them.
//! - `model`: the weights on a device and the forward pass, once for all architectures.
//! - `engine`, `branch`: the public face over all of them. [`describe`]: a checkpoint in figures
//!   and words.
//!
//! # Traps
//!
//! - Everything is single-threaded (`!Send`): one engine, one thread; the backend uses the cores.
//! - [`Branch::append`] computes nothing. Fork *after* appending what the children share: it is
//!   then computed once for all of them.

mod branch;
pub mod checkpoint;
pub mod describe;
mod engine;
pub mod error;
mod kv;
mod model;
mod schedule;
#[cfg(test)]
mod testing;
pub mod text;

pub use branch::Branch;
pub use engine::{DeviceModels, Engine, Model, ModelSpec, Options};
pub use error::Error;
pub use model::max_outputs;
pub use schedule::confidence::{ConfidenceWindow, Confidences};
pub use schedule::request::{Finish, Generate, Generated};
pub use schedule::usage::{FlopRates, KvUsage, Usage, Work};

pub use kernels::{Confidence, Dtype, Sampling, Setting, philox};
