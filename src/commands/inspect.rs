//! `offshoot inspect`: what a checkpoint is.

use super::{print, print_json};
use crate::error::Done;
use crate::flags::InspectFlags;
use crate::models;

/// Runs the command.
pub fn run(flags: &InspectFlags) -> Done {
    let description = engine::describe::describe(models::source("MODEL", &flags.model)?)?;
    if flags.json {
        return print_json(&description);
    }
    print(&description.to_string())
}
