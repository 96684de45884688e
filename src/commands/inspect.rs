//! `offshoot inspect`: what a checkpoint is.

use engine::describe::Description;

use super::{print, print_json};
use crate::error::Done;
use crate::flags::InspectFlags;
use crate::models;

/// Runs the command.
pub fn run(flags: &InspectFlags) -> Done {
    let description = engine::describe::inspect(models::source("MODEL", &flags.model)?)?;
    if flags.json {
        return print_json(&description);
    }
    print(&render(&description))
}

fn render(d: &Description) -> String {
    let files = match d.files.is_empty() {
        true => String::new(),
        false => format!(" in {}", d.files.join(", ")),
    };
    let tied = if d.tied_embeddings {
        ", head tied to the embedding"
    } else {
        ""
    };
    let tokenizer = match &d.tokenizer {
        None => "none".into(),
        Some(t) => {
            let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
            let template = if t.chat_template {
                "a chat template"
            } else {
                "no chat template"
            };
            format!(
                "{} tokens, begins with {}, ends with {}, {template}",
                t.vocab,
                or_none(&t.bos),
                or_none(&t.eos)
            )
        }
    };
    let verdict = |role: &str, v: &engine::describe::Verdict| {
        format!(
            "{role}     {}: {}\n",
            if v.can { "yes" } else { "no" },
            v.how
        )
    };
    format!(
        "{}: {}\n\
         size       {} parameters, {} bytes as {}{files}\n\
         shape      {} layers of {}, {} query and {} key-value heads of {}{tied}\n\
         context    {} positions, {} bytes of KV cache a token\n\
         tokenizer  {tokenizer}\n{}{}",
        d.name,
        d.architecture,
        d.parameters,
        d.bytes,
        d.dtype,
        d.layers,
        d.hidden,
        d.heads,
        d.kv_heads,
        d.head_dim,
        d.context,
        d.kv_bytes_per_token,
        verdict("policy", &d.policy),
        verdict("PRM   ", &d.prm)
    )
}
