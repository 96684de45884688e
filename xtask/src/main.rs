//! Offshoot's own commands, run as `cargo xtask <command>`.
//!
//! - `test`: installs what the tests need, then runs every test of the workspace.
//! - `lint`: formatting, clippy, rustdoc, lengths of functions, licences; a warning is an error.
//! - `functions`: production functions of more than 70 lines.
//! - `licences`: the licence of every dependency against the allow list in `deny.toml`.

mod checkpoints;
mod functions;
#[cfg(test)]
mod layers;
mod licences;
mod metadata;
mod nvrtc;
#[cfg(test)]
mod settings;
mod sources;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The result of a command: a value, or one sentence that says why there is none.
type Done<T = ()> = Result<T, String>;

const USAGE: &str = "usage: cargo xtask test|lint|functions|licences";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test"] => test(),
        ["lint"] => lint(),
        ["functions"] => functions::check(),
        ["licences"] => licences::check(),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::from(2)
        }
    }
}

/// The repository's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// `cargo` with these arguments, in the repository's root.
fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Prints a command and runs it.
fn run(command: &mut Command) -> Done {
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    let program = Path::new(command.get_program());
    let name = program.file_stem().unwrap_or_default().to_string_lossy();
    let words = format!("{name} {}", arguments.join(" "));
    eprintln!("$ {words}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{words}: {status}")),
        Err(e) => Err(format!("{words}: {e}")),
    }
}

/// Installs what the tests need and runs every test of the workspace.
fn test() -> Done {
    let mut environment = nvrtc::install_if_needed()?;
    environment.push((checkpoints::DIR_VARIABLE, checkpoints::install_if_needed()?));
    // Doc tests are no target of --all-targets.
    for which in ["--all-targets", "--doc"] {
        let words = ["test", "--workspace", "--no-fail-fast", which];
        run(cargo(&words).envs(environment.iter().cloned()))?;
    }
    Ok(())
}

/// Formatting, clippy, rustdoc, lengths of functions, licences.
fn lint() -> Done {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    functions::check()?;
    licences::check()
}
