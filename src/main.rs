//! The `offshoot` command: solves problems by searching over the branches of a small policy,
//! guided by a process reward model.

mod commands;
mod downloads;
mod error;
mod external;
mod flags;
mod progress;
mod summary;
mod table;

use std::process::ExitCode;

use clap::{Command as ClapCommand, CommandFactory, FromArgMatches};

use error::{Failure, print_failure};
use flags::{Cli, Command};

/// Lets the options of a command, and of those below it, take a negative number as their value: the
/// error is then about the option, not about an argument that nobody knows.
fn with_negative_numbers(command: ClapCommand) -> ClapCommand {
    let command = command.mut_args(|arg| {
        let takes = arg.get_action().takes_values() && !arg.is_positional();
        if takes {
            arg.allow_negative_numbers(true)
        } else {
            arg
        }
    });
    let names: Vec<String> = (command.get_subcommands())
        .map(|below| below.get_name().to_string())
        .collect();
    (names.into_iter()).fold(command, |command, name| {
        command.mut_subcommand(name, with_negative_numbers)
    })
}

fn main() -> ExitCode {
    let matches = with_negative_numbers(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = match cli.command {
        Command::Solve(flags) => commands::solve::run(&flags),
        Command::Sweep(flags) => commands::sweep::run(&flags),
        Command::Plan(flags) => commands::plan::run(&flags),
        Command::Show(flags) => commands::show::run(&flags),
        Command::Generate(flags) => commands::generate::run(&flags),
        Command::Score(flags) => commands::score::run(&flags),
        Command::Grade(flags) => commands::grade::run(&flags),
        Command::Calibrate(flags) => commands::calibrate::run(&flags),
        Command::PrmEval(flags) => commands::prm_eval::run(&flags),
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
