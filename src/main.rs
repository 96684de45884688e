//! The `offshoot` command: solves problems by searching over the branches of a small policy,
//! guided by a process reward model.

mod commands;
mod downloads;
mod error;
mod external;
mod flags;
mod progress;
mod summary;

use std::process::ExitCode;

use clap::Parser;

use error::{Failure, print_failure};
use flags::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Solve(flags) => commands::solve::run(&flags),
        Command::Show(flags) => commands::show::run(&flags),
        Command::Generate(flags) => commands::generate::run(&flags),
        Command::Score(flags) => commands::score::run(&flags),
        Command::Grade(flags) => commands::grade::run(&flags),
        Command::Calibrate(flags) => commands::calibrate::run(&flags),
        Command::Inspect(flags) => commands::inspect::run(&flags),
        Command::Quantize(flags) => commands::quantize::run(&flags),
        Command::Export(flags) => commands::export::run(&flags),
        Command::Devices(flags) => commands::devices::run(&flags),
        Command::Kernels(command) => commands::kernels::run(&command),
        Command::Bench(command) => commands::bench::run(&command),
        Command::Completions { shell } => commands::completions::shell(shell),
        Command::Man { command } => commands::completions::man(command.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has had enough of it.
        Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            print_failure(&failure);
            ExitCode::from(2)
        }
    }
}
