//! `offshoot generate`: one continuation, streamed.

use serde::Serialize;
use session::{Event, Finish, GenerateRequest, Message, Options, Prompt, Session};

use super::{print, print_json, read_stdin, say_notes};
use crate::downloads::Downloads;
use crate::error::{Done, Failure, sentence_with};
use crate::flags::{GenerateFlags, Logprobs, line_breaks};

#[derive(Serialize)]
struct Printed {
    prompt_tokens: usize,
    token_ids: Vec<u32>,
    text: String,
    logprobs: Vec<f32>,
    finish_reason: &'static str,
}

/// Runs the command.
pub fn run(flags: &GenerateFlags) -> Done {
    let sampling = flags.sampling.sampling(0.0);
    strategies::check_sampling(&sampling)?;
    let request = GenerateRequest {
        prompt: prompt(flags)?,
        sampling,
        max_tokens: flags.max_tokens as usize,
        stop: flags.stop.iter().map(|s| line_breaks(s)).collect(),
        seed: flags.seed,
    };
    let options = Options {
        policy: Some(flags.model.clone()),
        engine: flags.engine.options(),
        ..Options::without_models()
    };
    let session = Session::open_watched(&options, &mut Downloads::default())
        .map_err(|error| Failure::new(sentence_with(error, &[("policy", "--model")])))?;
    say_notes(session.info());
    let mut job = session.generate(request);
    if !flags.json {
        while let Some(event) = job.next_event() {
            if let Event::Text(piece) = event {
                print(&piece)?;
            }
        }
    }
    let generation = job.wait()?;
    if !flags.json {
        return print("\n");
    }
    print_json(&Printed {
        prompt_tokens: generation.prompt_tokens,
        token_ids: generation.token_ids,
        text: generation.text,
        logprobs: match flags.logprobs {
            Logprobs::Raw => generation.logprobs,
            Logprobs::Processed => generation.processed_logprobs,
        },
        finish_reason: match generation.finish {
            Finish::StopString(_) | Finish::StopToken(_) => "stop",
            Finish::Length | Finish::Context | Finish::LowConfidence => "length",
        },
    })
}

/// What the flags have the model continue.
fn prompt(flags: &GenerateFlags) -> Done<Prompt> {
    let prompt = match flags.prompt.as_str() {
        "-" => read_stdin("the prompt")?,
        prompt => prompt.to_string(),
    };
    if flags.raw {
        return Ok(Prompt::Raw(prompt));
    }
    let system = flags.system.iter().map(|s| Message::new("system", s));
    let begun = flags.assistant.as_deref();
    let begun = begun.map(|begun| Message::new("assistant", begun));
    let messages = system.chain([Message::new("user", prompt)]).chain(begun);
    Ok(Prompt::Messages(messages.collect()))
}
