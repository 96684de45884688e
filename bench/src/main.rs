//! The studies that run the `offshoot` binary; the others are `offshoot bench`.

use std::process::ExitCode;

use clap::Parser;
use offshoot_bench::{kernels, predict, quantized, scaling};

/// Studies of accuracy and cost.
#[derive(Parser, Debug)]
#[command(name = "bench", max_term_width = 100)]
enum Command {
    /// Accuracy and cost of every strategy against N, on the bundled problems.
    Scaling(scaling::Flags),
    /// Tree attention counted on the emulated GPU, against flat and two-level plans.
    Kernels(kernels::Flags),
    /// Predicted times of batches on four cards, by a model with named constants: the baseline page.
    Predict(predict::page::Flags),
    /// How quantized weights and KV change the logits of a checkpoint.
    Quantized(quantized::Flags),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Scaling(flags) => scaling::run(&flags),
        Command::Kernels(flags) => kernels::run(&flags),
        Command::Predict(flags) => predict::page::run(&flags),
        Command::Quantized(flags) => quantized::run(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::from(2)
        }
    }
}
