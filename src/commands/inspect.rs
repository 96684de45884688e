//! `offshoot inspect`: what a checkpoint is.

use std::rc::Rc;

use engine::describe::{Capability, Description, Inspected, TokenizerSummary};
use serde::Serialize;
use session::Need;
use session::models::{hub_name, source};
use strategies::{PrmFormat, PrmKind, PromptKind};

use super::{print, print_json};
use crate::downloads::Downloads;
use crate::error::{Done, Failure, sentence, sentence_with};
use crate::flags::InspectFlags;

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    description: Description,
    /// Whether it can write solutions.
    policy: Capability,
    /// Whether it can score steps.
    prm: Capability,
}

/// Runs the command.
pub fn run(flags: &InspectFlags) -> Done {
    let downloads = &mut Downloads::default();
    let found = source("model", &flags.model, Need::Description, downloads)
        .map_err(|error| Failure::new(sentence_with(error, &[("model", "MODEL")])))?;
    let mut inspected = engine::describe::inspect(found)?;
    if hub_name(&flags.model).is_some() {
        let description = &mut inspected.description;
        // The cache's folder is no name, and its weights were not asked for.
        description.name = flags.model.clone();
        description.without_weights = (description.without_weights.as_ref())
            .map(|_| "not fetched yet, these figures are the config's".into());
    }
    let printed = Printed {
        policy: policy(&inspected),
        prm: prm(&inspected, &flags.model),
        description: inspected.description,
    };
    match flags.json {
        true => print_json(&printed),
        false => print(&render(&printed)),
    }
}

/// Whether and how a checkpoint can write solutions: its head, and its chat template with the
/// prompt that `solve` would choose.
fn policy(inspected: &Inspected) -> Capability {
    let writes = inspected.description.writes.clone();
    let Some((tokenizer, chat)) = inspected.text.as_ref().filter(|_| writes.can) else {
        return writes;
    };
    let style = PromptKind::recognise(&inspected.config, tokenizer).style();
    match style.fit(chat) {
        Ok(style) => Capability {
            how: match style.note(chat) {
                Some(note) => format!("{}; {note}", writes.how),
                None => writes.how,
            },
            ..writes
        },
        Err(why) => Capability {
            can: false,
            how: format!("its chat template fails on a problem: {}", sentence(why)),
        },
    }
}

/// Whether and how a checkpoint can score steps. Its tokenizer is asked too, if it is there.
fn prm(inspected: &Inspected, name: &str) -> Capability {
    let config = &inspected.config;
    let tried = PrmKind::recognise(config, name).and_then(|kind| match &inspected.text {
        None => Ok(kind),
        Some((tokenizer, chat)) => {
            PrmFormat::new(kind, config, Rc::clone(tokenizer), Rc::clone(chat)).map(|_| kind)
        }
    });
    match tried {
        Ok(kind) => Capability {
            can: true,
            how: format!("{}: {}", kind.name(), kind.read_out()),
        },
        Err(why) => Capability {
            can: false,
            how: sentence(why),
        },
    }
}

fn render(printed: &Printed) -> String {
    let d = &printed.description;
    let files = match d.files.is_empty() {
        true => String::new(),
        false => format!(" in {}", d.files.join(", ")),
    };
    let tied = if d.tied_embeddings {
        ", head tied to the embedding"
    } else {
        ""
    };
    let tokenizer = (d.tokenizer.as_ref()).map_or_else(|| "none".into(), self::tokenizer);
    let mut context = format!("{} tokens", d.context);
    if let Some(scaling) = d.rope_scaling {
        context += &format!(" ({scaling} rotary scaling)");
    }
    if let Some(window) = d.sliding_window {
        let (tokens, layers) = (window.positions, window.layers);
        context += &format!(", {layers} layers see the last {tokens}");
    }
    let mut weights = match &d.without_weights {
        None => String::new(),
        Some(why) => format!("weights    {why}\n"),
    };
    weights.extend(d.warnings.iter().map(|why| format!("warning    {why}\n")));
    let verdict = |role: &str, v: &Capability| {
        format!(
            "{role}     {}: {}\n",
            if v.can { "yes" } else { "no" },
            v.how
        )
    };
    let quantized = match d.quantization {
        Some(kind) => format!(", linear layers in {kind}"),
        None => String::new(),
    };
    format!(
        "{}: {}\n\
         size       {} parameters, {} bytes as {}{quantized}{files}\n\
         shape      {} layers of {}, {} query and {} key-value heads of {}{tied}\n\
         context    {context}, {} bytes of KV cache a token\n\
         tokenizer  {tokenizer}\n{weights}{}{}",
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
        d.kv_bytes_per_token,
        verdict("policy", &printed.policy),
        verdict("PRM   ", &printed.prm)
    )
}

fn tokenizer(t: &TokenizerSummary) -> String {
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
