//! Token classifiers of two labels: every step followed by a marker, the probability of label 1
//! there.
//!
//! Two forms, distinguished by the tokenizer. If it has `<extra_0>`, that is the marker and the
//! problem is a user's turn (Qwen2.5-Math-PRM's form with a plain head; nano-prm). Else it is the
//! form of TRL's PRM trainer with blank lines as `step_separator`, as Hugging Face's Qwen2.5-Math
//! PRMs have it: bos if the tokenizer names one, the bare problem without template or separator,
//! every step encoded on its own and closed by the token of a blank line.

use std::rc::Rc;

use engine::checkpoint::config::HeadKind;
use engine::text::chat::{ChatTemplate, Message};

use super::format::{Family, StepFormat, Text, softmax_second};
use crate::Error;

/// The marker of Qwen2.5-Math-PRM.
pub(super) const EXTRA_0: &str = "<extra_0>";
/// TRL's step separator.
const BLANK_LINE: &str = "\n\n";

pub(super) const FAMILY: Family = Family {
    name: "token-classification",
    read_out: "the probability of its label 1 of 2 at the marker after each step",
    head: "a token-classification head of 2 labels",
    fits: |head| matches!(head, HeadKind::TokenClassification { labels } if labels.len() == 2),
    recognise: |_| true,
    needs_chat_template: false,
    open: |text, chat| Ok(Box::new(TokenClassification::new(text, chat)?)),
};

struct TokenClassification {
    text: Text,
    /// The template of the problem's turn; `None` for TRL's form.
    chat: Option<Rc<ChatTemplate>>,
    marker: u32,
}

impl TokenClassification {
    fn new(text: Text, chat: Rc<ChatTemplate>) -> Result<TokenClassification, Error> {
        let (marker, chat) = match text.token(EXTRA_0) {
            Some(marker) => (marker, Some(chat)),
            None => (text.single(BLANK_LINE, "step marker, nor <extra_0>")?, None),
        };
        Ok(TokenClassification { text, chat, marker })
    }
}

impl StepFormat for TokenClassification {
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        let Some(chat) = &self.chat else {
            let mut tokens = Vec::from_iter(self.text.own_bos());
            tokens.extend(self.text.encode(problem)?);
            return Ok(tokens);
        };
        self.text.chat(chat, &[Message::new("user", problem)])
    }

    fn step(&self, _: &str, _: usize, step: &str) -> Result<(Vec<u32>, usize), Error> {
        self.text.marked(step.trim(), self.marker)
    }

    fn score(&self, head: &[f32]) -> f64 {
        softmax_second(head)
    }
}
