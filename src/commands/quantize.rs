//! `offshoot quantize`: a checkpoint with its matrices in 8 or 4 bits.

use engine::checkpoint::Checkpoint;
use engine::checkpoint::quantize;
use serde_json::json;
use session::Need;
use session::models::source;

use super::{print, print_json};
use crate::downloads::Downloads;
use crate::error::{Done, Failure, sentence_with};
use crate::flags::QuantizeFlags;

/// Runs the command.
pub fn run(flags: &QuantizeFlags) -> Done {
    let found = source(
        "model",
        &flags.model,
        Need::Weights,
        &mut Downloads::default(),
    )
    .map_err(|error| Failure::new(sentence_with(error, &[("model", "MODEL")])))?;
    let checkpoint = Checkpoint::open(found)?;
    let kind = flags.kind;
    let written = quantize::write(&checkpoint, kind, flags.keep_head, &flags.to)?;
    let to = flags.to.display().to_string();
    if flags.json {
        return print_json(&json!({
            "model": flags.model,
            "to": to,
            "kind": kind.name(),
            "bytes_before": written.bytes_before,
            "bytes": written.bytes,
            "quantized": written.quantized,
            "left": written.left,
        }));
    }
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let mut text = format!(
        "{to}: {} matrices in {}, {:.1} MiB (before: {:.1})\n",
        written.quantized,
        kind.name(),
        mib(written.bytes),
        mib(written.bytes_before),
    );
    if !written.left.is_empty() {
        text += &format!("left as they were: {}\n", written.left.join(", "));
    }
    print(&text)
}
