//! `offshoot quantize`: a checkpoint with its matrices in 8 or 4 bits.

use engine::checkpoint::quantize;
use serde_json::json;

use super::{print, print_json};
use crate::error::Done;
use crate::flags::QuantizeFlags;
use crate::models;

/// Runs the command.
pub fn run(flags: &QuantizeFlags) -> Done {
    let model = models::open("MODEL", &flags.model)?;
    let kind = flags.kind.kind();
    let written = quantize::write(&model.checkpoint, kind, flags.keep_head, &flags.to)?;
    let to = flags.to.display().to_string();
    if flags.json {
        return print_json(&json!({
            "model": model.name,
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
