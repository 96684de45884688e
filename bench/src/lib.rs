//! Offshoot's measurements.
//!
//! - [`throughput`], [`linear`], [`attention`] and [`profile`]: times on this machine, beside the
//!   limits measured in the same run. `offshoot bench` calls them.
//! - [`scaling`] and [`kernels`]: studies that run the `offshoot` binary as a user would, keep its
//!   raw output with the machine and the command, and generate their tables from it.
//! - [`figures`]: measured figures as lines, and a report of them.
//! - [`predict`]: the time of a batch on a card, by a model with named constants.
//! - [`quantized`]: how quantization changes a checkpoint's logits.
//!
//! `bench/README.md` says how to run each and how to read the results.

pub mod attention;
pub mod figures;
pub mod kernels;
pub mod limits;
pub mod linear;
pub mod machine;
mod markdown;
mod offshoot;
pub mod plot;
pub mod predict;
pub mod profile;
pub mod quantized;
pub mod report;
pub mod scaling;
pub mod shapes;
pub mod stats;
pub mod sweep;
pub mod throughput;
pub mod timed;

/// The result of a command: a value, or one sentence that says why there is none.
pub type Done<T = ()> = Result<T, String>;

/// The row of `table` that `word` names.
pub(crate) fn named<T: Copy>(
    word: &str,
    table: &[(&'static str, T)],
) -> Result<(&'static str, T), String> {
    let words = || table.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    (table.iter().copied())
        .find(|(name, _)| *name == word)
        .ok_or_else(|| format!("expected one of {}", words().join(", ")))
}
