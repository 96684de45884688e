//! One file per subcommand.

pub mod bench;
pub mod calibrate;
pub mod completions;
pub mod devices;
pub mod export;
pub mod generate;
pub mod grade;
pub mod inspect;
pub mod kernels;
pub mod predict;
pub mod prm_eval;
pub mod quantize;
pub mod score;
pub mod show;
pub mod solve;

use std::io::{Read, Write, stdin, stdout};

use crate::error::{Done, Failure};

/// Writes to standard output.
pub fn print(text: &str) -> Done {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::stdout)
}

/// Prints one JSON object.
pub fn print_json(value: &impl serde::Serialize) -> Done {
    let text = serde_json::to_string(value).map_err(|e| Failure::new(e.to_string()))?;
    print(&(text + "\n"))
}

/// Says what is to know about a session before it works.
pub fn say_notes(info: &session::Info) {
    say_unused_card(&info.machine);
    for warning in info.warnings() {
        eprintln!("warning: {warning}");
    }
}

/// Says why a card that is there is not used.
pub fn say_unused_card(machine: &session::Machine) {
    if let Some(why) = &machine.unused_card {
        eprintln!("running on the CPU: {why}");
    }
}

/// All of standard input, as text.
pub fn read_stdin(what: &str) -> Done<String> {
    let mut text = String::new();
    stdin()
        .read_to_string(&mut text)
        .map_err(|e| Failure::io(&format!("{what} from standard input"), &e))?;
    Ok(text)
}
