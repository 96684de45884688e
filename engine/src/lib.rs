//! Offshoot: engine.
pub mod arch;
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod describe;
pub mod error;
pub mod generation;
mod json;
pub mod source;
#[cfg(test)]
mod testing;
pub mod tokenizer;
