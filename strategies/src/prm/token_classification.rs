//! Token classifiers of two labels, as TRL's PRM trainer makes them: the problem as a user's turn,
//! every step followed by a marker, the probability of label 1 there.
//!
//! The marker is `<extra_0>` if the tokenizer has it, else the token of a blank line.

use std::rc::Rc;

use engine::chat::{ChatTemplate, Message};

use super::format::{Format, Text, softmax_second};
use crate::Error;

/// The marker of Qwen2.5-Math-PRM.
pub(super) const EXTRA_0: &str = "<extra_0>";

pub(super) struct TokenClassification {
    text: Text,
    chat: Rc<ChatTemplate>,
    marker: u32,
}

impl TokenClassification {
    pub fn new(text: Text, chat: Rc<ChatTemplate>) -> Result<TokenClassification, Error> {
        let marker = match text.token(EXTRA_0) {
            Some(marker) => marker,
            None => text.single("\n\n", "step marker, nor <extra_0>")?,
        };
        Ok(TokenClassification { text, chat, marker })
    }
}

impl Format for TokenClassification {
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        let turns = [Message::new("user", problem)];
        let text = self.chat.render(&turns, true, false);
        self.text.encode(&text.map_err(Error::model)?)
    }

    fn step(&self, _: &str, _: usize, step: &str) -> Result<(Vec<u32>, usize), Error> {
        let mut tokens = self.text.encode(step.trim())?;
        tokens.push(self.marker);
        let at = tokens.len() - 1;
        Ok((tokens, at))
    }

    fn score(&self, head: &[f32]) -> f64 {
        softmax_second(head)
    }
}
