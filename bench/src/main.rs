//! Offshoot's studies. Each runs the `offshoot` binary as a user would, keeps the raw output with
//! the machine and the command, and makes its tables from that.

mod kernels;
mod machine;
mod markdown;
mod offshoot;
mod scaling;

use std::process::ExitCode;

use clap::Parser;

/// What a command comes to: a value, or one sentence.
type Done<T = ()> = Result<T, String>;

/// Studies of accuracy and cost.
#[derive(Parser, Debug)]
#[command(name = "bench", max_term_width = 100)]
enum Command {
    /// Accuracy and cost of every strategy against N, on the bundled problems.
    Scaling(scaling::Flags),
    /// Tree attention counted on the emulated GPU, against flat and two-level plans.
    Kernels(kernels::Flags),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Scaling(flags) => scaling::run(&flags),
        Command::Kernels(flags) => kernels::run(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::from(2)
        }
    }
}
