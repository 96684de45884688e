//! Offshoot's engine: models, the paged KV cache, the scheduler and sampling.
//!
//! It knows tokens and branches; it never sees a strategy, a reward or a dataset.
//!
//! An [`Engine`] holds models on one device. [`Model::root`] starts a [`Branch`], which is forked
//! and continued with `async` calls; [`Engine::run`] drives any number of them at once and
//! computes in one device step whatever is ready.
//!
//! # Traps
//!
//! - Everything is single-threaded (`!Send`): one engine, one thread; the backend uses the cores.
//! - [`Branch::append`] computes nothing. Fork *after* appending what the children share: it is
//!   then computed once for all of them.

pub mod arch;
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod describe;
mod engine;
pub mod error;
mod executor;
pub mod generation;
pub mod hub;
mod json;
mod kv;
mod local;
mod model;
pub mod quantization;
mod request;
mod scheduler;
mod sequence;
#[cfg(test)]
mod simulation;
pub mod source;
mod stop;
#[cfg(test)]
mod testing;
pub mod tokenizer;
mod usage;

pub use engine::{Branch, Engine, Model, Options, Part};
pub use error::Error;
pub use request::{Finish, Generate, Generated};
pub use usage::{KvUsage, Usage};

pub use kernels::{Dtype, Sampling, Setting};
