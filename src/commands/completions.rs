//! `offshoot completions` and `offshoot man`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::print;
use crate::error::{Done, Failure};
use crate::flags::Cli;

/// Prints a completion script.
pub fn shell(shell: Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "offshoot", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Prints a manual page.
pub fn man(command: Option<&str>) -> Done {
    let mut cli = Cli::command();
    cli.build();
    let page = match command {
        None => cli,
        Some(name) => (cli.find_subcommand(name).cloned())
            .ok_or_else(|| Failure::new(format!("man {name}: no such command")))?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .map_err(Failure::stdout)?;
    print(&String::from_utf8_lossy(&text))
}
