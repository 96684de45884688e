//! Qwen2.5-Math-PRM (arXiv 2501.07301): the model's chat form with the sentence it was trained
//! with, every step followed by `<extra_0>`, the probability of class 1 of its two-layer head
//! there.

use std::rc::Rc;

use engine::checkpoint::config::HeadKind;
use engine::text::chat::{ChatTemplate, Message};

use super::format::{Family, StepFormat, Text, softmax_second};
use super::token_classification::EXTRA_0;
use crate::{Error, REASON_STEP_BY_STEP};

pub(super) const FAMILY: Family = Family {
    name: "qwen-math",
    read_out: "the probability of class 1 of 2 from its two-layer head at <extra_0> after each step",
    head: "a two-layer head (score.0 and score.2)",
    fits: |head| *head == HeadKind::Process,
    recognise: |_| true,
    needs_chat_template: true,
    open: |text, chat| Ok(Box::new(QwenMath::new(text, chat)?)),
};

struct QwenMath {
    text: Text,
    chat: Rc<ChatTemplate>,
    marker: u32,
}

impl QwenMath {
    fn new(text: Text, chat: Rc<ChatTemplate>) -> Result<QwenMath, Error> {
        let marker = text.single(EXTRA_0, "step marker")?;
        Ok(QwenMath { text, chat, marker })
    }
}

impl StepFormat for QwenMath {
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        let turns = [
            Message::new("system", REASON_STEP_BY_STEP),
            Message::new("user", problem),
        ];
        self.text.chat(&self.chat, &turns)
    }

    fn step(&self, _: &str, _: usize, step: &str) -> Result<(Vec<u32>, usize), Error> {
        self.text.marked(step.trim(), self.marker)
    }

    fn score(&self, head: &[f32]) -> f64 {
        softmax_second(head)
    }
}
