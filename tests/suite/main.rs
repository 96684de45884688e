//! The whole-system tests, one binary with a module a file: linking the engine takes longer than
//! compiling a file of tests.
//!
//! All modules share one process, so none may set an environment variable, the current folder, a
//! panic hook or a global allocator: what needs one calls the binary, or is a binary of its own
//! (`tests/loading_fuzz.rs`). The emulated GPU's calls are counted for the whole process; only
//! `emulated` opens it, one test at a time. Names of `common::scratch` folders are unique.

#![allow(missing_docs)]

mod bench;
mod command_line;
mod common;
mod determinism;
mod documents;
mod emulated;
mod golden_models;
mod golden_prms;
mod grade;
mod heldout;
mod hub;
mod incremental_prm;
mod inspect_configs;
mod kv_peak;
mod plan;
mod quantized;
mod reference;
mod resume;
mod smollm;
mod sweep;
