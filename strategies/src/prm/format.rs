//! The interface of a family of PRMs, and the tokenizer helpers that families share.

use std::rc::Rc;

use engine::checkpoint::config::HeadKind;
use engine::text::chat::{ChatTemplate, Message};
use engine::text::tokenizer::Tokenizer;

use crate::Error;

/// The facts about one family.
pub(super) struct Family {
    /// The word for it in options and results.
    pub name: &'static str,
    /// How it scores a step, in words.
    pub read_out: &'static str,
    /// The head it needs, in words.
    pub head: &'static str,
    /// Whether it can read a checkpoint's head.
    pub fits: fn(&HeadKind) -> bool,
    /// Whether a checkpoint of such a head is of this family, by its name in lower case.
    pub recognise: fn(&str) -> bool,
    /// Whether it writes its steps into the checkpoint's chat template.
    pub needs_chat_template: bool,
    /// Opens it; fails on a tokenizer without the tokens it takes.
    pub open: Open,
}

/// Opens a format over a checkpoint's tokenizer and chat template.
pub(super) type Open = fn(Text, Rc<ChatTemplate>) -> Result<Box<dyn StepFormat>, Error>;

/// How one family writes problem and steps, and reads its head.
pub(super) trait StepFormat {
    /// The ids before the first step.
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error>;
    /// The ids of a step, `before` of which were given, and the offset of the one to read.
    fn step(&self, problem: &str, before: usize, step: &str) -> Result<(Vec<u32>, usize), Error>;
    /// The score, from the head's numbers at that token.
    fn score(&self, head: &[f32]) -> f64;
    /// The rows of the LM head it reads; `None` for a head of its own.
    fn head_rows(&self) -> Option<Vec<u32>> {
        None
    }
}

/// A tokenizer as the formats use it.
pub(super) struct Text {
    tokenizer: Rc<Tokenizer>,
}

impl Text {
    pub fn new(tokenizer: Rc<Tokenizer>) -> Text {
        Text { tokenizer }
    }

    /// The ids of a text as it is.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer.encode(text, false)?)
    }

    /// The ids of a text with the special tokens that the tokenizer adds.
    pub fn encode_whole(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer.encode(text, true)?)
    }

    /// A step encoded on its own and closed by `marker`, and the marker's offset.
    pub fn marked(&self, step: &str, marker: u32) -> Result<(Vec<u32>, usize), Error> {
        let mut tokens = self.encode(step)?;
        let offset = tokens.len();
        tokens.push(marker);
        Ok((tokens, offset))
    }

    /// The ids of turns as a template writes them, opened for the answer.
    pub fn chat(&self, chat: &ChatTemplate, turns: &[Message]) -> Result<Vec<u32>, Error> {
        let text = chat.render(turns, true, false)?;
        self.encode(&text)
    }

    /// The ids of `text` after `context`: a tokenizer that marks a text's
    /// beginning (SentencePiece) must not do so in its middle. If a token spans the
    /// border, the text is encoded on its own.
    pub fn after(&self, context: &str, text: &str) -> Result<Vec<u32>, Error> {
        let before = self.encode(context)?;
        let mut both = self.encode(&format!("{context}{text}"))?;
        if both.starts_with(&before) {
            Ok(both.split_off(before.len()))
        } else {
            self.encode(text)
        }
    }

    /// The id of a token of the vocabulary.
    pub fn token(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_id(token)
    }

    /// The id of a text that is one token; `what` names its use in errors.
    pub fn single(&self, text: &str, what: &str) -> Result<u32, Error> {
        match self.encode(text)?.as_slice() {
            &[token] => Ok(token),
            tokens => Err(Error::PrmFormat(format!(
                "no {what}: {text:?} is {} tokens of this tokenizer, expected 1",
                tokens.len()
            ))),
        }
    }

    /// The token a text begins with, if the tokenizer itself names one; the config is not used.
    pub fn own_bos(&self) -> Option<u32> {
        let bos = self.tokenizer.bos()?;
        bos.named.then_some(bos.id)
    }

    /// The token a text begins with, as text; empty if there is none.
    pub fn bos(&self) -> &str {
        self.tokenizer.bos().map_or("", |token| &token.text)
    }
}

/// The probability of the second of two classes, in f64 from f32 logits.
pub(super) fn softmax_second(logits: &[f32]) -> f64 {
    match logits {
        &[first, second] => sigmoid(f64::from(second) - f64::from(first)),
        _ => f64::NAN,
    }
}

/// `1 / (1 + e^-x)`.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::softmax_second;

    #[test]
    fn the_score_is_the_softmax_of_the_second_label() {
        for (logits, score) in [
            ([0.0, 0.0], 0.5),
            ([0.0, 100.0], 1.0),
            ([100.0, 0.0], 0.0),
            ([1.0, 3.0], 0.880_797_077_977_882_4),
            ([-1000.0, 1000.0], 1.0),
        ] {
            let found = softmax_second(&logits);
            assert!(
                (found - score).abs() < 1e-15,
                "softmax of {logits:?}: {found}, expected {score}"
            );
        }
    }
}
