//! `offshoot export`: an embedded model as a Hugging Face directory.

use serde_json::json;

use super::{print, print_json};
use crate::error::{Done, Failure, sentence_with};
use crate::flags::ExportFlags;

/// Runs the command.
pub fn run(flags: &ExportFlags) -> Done {
    let files = session::embedded::export(&flags.model, &flags.to).map_err(|error| {
        let names = [("model", "MODEL"), ("to", "")];
        Failure::new(sentence_with(error, &names))
    })?;
    if flags.json {
        let to = flags.to.display().to_string();
        return print_json(&json!({ "model": flags.model, "to": to, "files": files }));
    }
    let lines = files.iter().map(|file| format!("{}\n", file.display()));
    print(&lines.collect::<String>())
}
