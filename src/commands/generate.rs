//! `offshoot generate`: one continuation, streamed.

use engine::text::chat::Message;
use engine::{Finish, Generate};
use futures::StreamExt;
use futures::channel::mpsc;
use serde::Serialize;

use super::{print, print_json, read_stdin};
use crate::error::{Done, Failure};
use crate::flags::{GenerateFlags, unescape};
use crate::models;

#[derive(Serialize)]
struct Printed {
    prompt_tokens: usize,
    tokens: Vec<u32>,
    text: String,
    logprobs: Vec<f32>,
    finish_reason: &'static str,
}

/// Runs the command.
pub fn run(flags: &GenerateFlags) -> Done {
    let sampling = flags.sampling.sampling(0.0);
    strategies::check_sampling(&sampling)?;
    let model = models::open("--model", &flags.model)?;
    model.must_write("--model")?;
    let prompt = if flags.prompt == "-" {
        read_stdin("the prompt")?
    } else {
        flags.prompt.clone()
    };
    let tokens = if flags.raw {
        model.tokenizer.encode(&prompt, true)?
    } else {
        let system = flags.system.iter().map(|s| Message::new("system", s));
        let mut messages: Vec<Message> = system.chain([Message::new("user", &prompt)]).collect();
        let text = match flags.assistant.as_deref().map(unescape) {
            None => model.chat.render(&messages, true, false)?,
            Some(begun) => {
                messages.push(Message::new("assistant", &begun));
                let mut text = model.chat.render(&messages, false, true)?;
                // A template that trims messages (Llama 3's) takes away where the answer stopped.
                let end = &begun[begun.trim_end().len()..];
                if !text.ends_with(end) {
                    text.push_str(end);
                }
                text
            }
        };
        model.tokenizer.encode(&text, false)?
    };
    if tokens.is_empty() {
        return Err(Failure::new("the prompt has no tokens, expected text"));
    }
    let (engine, models) = models::engine(&flags.engine, flags.seed, &[(&model, None)])?;
    let mut branch = models[0].root(0);
    branch.append(&tokens)?;
    let (sender, mut pieces) = mpsc::unbounded();
    let generate = Generate {
        sampling,
        max_tokens: flags.max_tokens as usize,
        stop_strings: flags.stop.iter().map(|s| unescape(s)).collect(),
        include_stop: false,
        stop_token_ids: model.checkpoint.eos().to_vec(),
        stream: (!flags.json).then_some(sender),
    };
    let show = async {
        while let Some(piece) = pieces.next().await {
            print(&piece)?;
        }
        Ok(())
    };
    let (generated, shown): (_, Done) =
        engine.run(futures::future::join(branch.generate(generate), show))?;
    let generated = generated?;
    shown?;
    if !flags.json {
        return print("\n");
    }
    print_json(&Printed {
        prompt_tokens: tokens.len(),
        tokens: generated.token_ids,
        text: generated.text,
        logprobs: generated.logprobs,
        finish_reason: match generated.finish {
            Finish::StopString(_) | Finish::StopToken(_) => "stop",
            Finish::Length | Finish::Context => "length",
        },
    })
}
