//! Continuing a prompt.

use engine::text::chat::Message;
use engine::{Finish, Sampling};

use crate::Error;
use crate::models::LoadedModel;

/// What a generation begins with.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Text as it is, without a chat template; the tokenizer adds its special tokens.
    Raw(String),
    /// Token ids as they are.
    TokenIds(Vec<u32>),
    /// Messages through the model's chat template. A last message of the assistant is continued;
    /// otherwise the assistant's turn is opened.
    Messages(Vec<Message>),
}

/// A generation to run.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// What it begins with.
    pub prompt: Prompt,
    /// The distribution of a token.
    pub sampling: Sampling,
    /// Most tokens to draw.
    pub max_tokens: usize,
    /// Texts that end the generation and are not part of it.
    pub stop: Vec<String>,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl GenerateRequest {
    /// Greedy, at most 512 tokens.
    pub fn new(prompt: Prompt) -> GenerateRequest {
        GenerateRequest {
            prompt,
            sampling: Sampling::GREEDY,
            max_tokens: 512,
            stop: Vec::new(),
            seed: 0,
        }
    }
}

/// A continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The ids of every drawn token: those of a stop string and a stop token included, though they
    /// are not part of `text`.
    pub token_ids: Vec<u32>,
    /// The continuation's text, up to a stop string.
    pub text: String,
    /// Natural-log probability of every token of `token_ids`, one to one, under the model's own
    /// distribution: temperature 1, no filter, no penalty.
    pub logprobs: Vec<f32>,
    /// The same under the distribution that the token was drawn from; 0 for a greedy one.
    pub processed_logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

impl LoadedModel {
    /// The token ids of a prompt.
    pub(crate) fn token_ids(&self, prompt: &Prompt) -> Result<Vec<u32>, Error> {
        match prompt {
            Prompt::TokenIds(ids) => Ok(ids.clone()),
            Prompt::Raw(text) => Ok(self.tokenizer.encode(text, true)?),
            Prompt::Messages(messages) => {
                let text = self.render(messages)?;
                Ok(self.tokenizer.encode(&text, false)?)
            }
        }
    }

    fn render(&self, messages: &[Message]) -> Result<String, Error> {
        let Some(begun) = messages.last().filter(|last| last.role == "assistant") else {
            return Ok(self.chat.render(messages, true, false)?);
        };
        let mut text = self.chat.render(messages, false, true)?;
        // A template that trims messages (Llama 3's) takes away where the answer stopped.
        let begun = &begun.content;
        let end = &begun[begun.trim_end().len()..];
        if !text.ends_with(end) {
            text.push_str(end);
        }
        Ok(text)
    }
}
