//! RLHFlow's PRMs (Llama3.1-8B-PRM-*-Data): a chat with one user's turn per step, the first with
//! the problem before it, every one answered by `+`. The probability of `+` against `-` from the LM
//! head at the last token before an answer, which predicts it.

use std::rc::Rc;

use engine::checkpoint::config::HeadKind;
use engine::text::chat::{ChatTemplate, Message};

use super::format::{Family, StepFormat, Text, softmax_second};
use crate::Error;

const GOOD: &str = "+";
const BAD: &str = "-";
/// A placeholder for a step while the template's own text is cut out around it.
const STEP: &str = "@step@";

pub(super) const FAMILY: Family = Family {
    name: "rlhflow",
    read_out: "the probability of + against - from its LM head where the assistant's turn begins, \
               one user turn per step",
    head: "an LM head",
    fits: |head| *head == HeadKind::Causal,
    recognise: |name| name.contains("rlhflow") || name.contains("llama3.1-8b-prm"),
    needs_chat_template: true,
    open: |text, chat| Ok(Box::new(RlhFlow::new(text, chat)?)),
};

struct RlhFlow {
    text: Text,
    chat: Rc<ChatTemplate>,
    /// `-`, then `+`.
    answers: [u32; 2],
    /// From the end of a step to the answer.
    opening: String,
    /// From an answer, included, to the next step.
    closing: String,
}

impl RlhFlow {
    fn new(text: Text, chat: Rc<ChatTemplate>) -> Result<RlhFlow, Error> {
        let answers = [text.single(BAD, "answer")?, text.single(GOOD, "answer")?];
        let turns = [
            Message::new("user", STEP),
            Message::new("assistant", GOOD),
            Message::new("user", STEP),
        ];
        let whole = chat.render(&turns, true, false)?;
        let parts: Vec<&str> = whole.split(STEP).collect();
        let unusable = || {
            Error::PrmFormat(
                "the chat template does not put one turn after the other, which the PRM format \
                 rlhflow needs"
                    .into(),
            )
        };
        let &[_, between, opening] = parts.as_slice() else {
            return Err(unusable());
        };
        let closing = between.strip_prefix(opening).ok_or_else(unusable)?;
        if opening.is_empty() || !closing.starts_with(GOOD) {
            return Err(unusable());
        }
        Ok(RlhFlow {
            opening: opening.into(),
            closing: closing.into(),
            text,
            chat,
            answers,
        })
    }

    /// Everything before the first step, with the space between problem and step left to that.
    fn head(&self, problem: &str) -> Result<String, Error> {
        let turns = [Message::new("user", format!("{problem} {STEP}"))];
        let text = self.chat.render(&turns, false, false)?;
        let before = text.rsplit_once(STEP).map_or("", |(before, _)| before);
        Ok(before.strip_suffix(' ').unwrap_or(before).into())
    }
}

impl StepFormat for RlhFlow {
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        self.text.encode(&self.head(problem)?)
    }

    fn step(&self, problem: &str, before: usize, step: &str) -> Result<(Vec<u32>, usize), Error> {
        let (step, opening, closing) = (step.trim(), &self.opening, &self.closing);
        let tokens = match before {
            0 => (self.text).after(&self.head(problem)?, &format!(" {step}{opening}"))?,
            _ => (self.text).after(opening, &format!("{closing}{step}{opening}"))?,
        };
        let offset = tokens.len() - 1;
        Ok((tokens, offset))
    }

    fn score(&self, head: &[f32]) -> f64 {
        softmax_second(head)
    }

    fn head_rows(&self) -> Option<Vec<u32>> {
        Some(self.answers.to_vec())
    }
}
