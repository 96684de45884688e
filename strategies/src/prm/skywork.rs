//! Skywork-o1-Open-PRM: bos, the problem and a newline, then every step encoded on its own and
//! closed by a newline token; the sigmoid of the value head there.
//!
//! A line break inside of a step becomes a space, as in the paper's code: to the model a newline
//! is the end of a step.

use engine::checkpoint::config::HeadKind;

use super::format::{Family, StepFormat, Text, sigmoid};
use crate::Error;

pub(super) const FAMILY: Family = Family {
    name: "skywork",
    read_out: "the sigmoid of its value head at the newline after each step",
    head: "a value head (v_head.summary)",
    fits: |head| *head == HeadKind::Value,
    recognise: |_| true,
    needs_chat_template: false,
    open: |text, _| Ok(Box::new(Skywork::new(text)?)),
};

struct Skywork {
    text: Text,
    newline: u32,
}

impl Skywork {
    fn new(text: Text) -> Result<Skywork, Error> {
        let newline = text.single("\n", "step marker")?;
        Ok(Skywork { text, newline })
    }
}

impl StepFormat for Skywork {
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        self.text.encode(&format!("{}{problem}\n", self.text.bos()))
    }

    fn step(&self, _: &str, _: usize, step: &str) -> Result<(Vec<u32>, usize), Error> {
        let step = step.trim().replace('\n', " ");
        self.text.marked(&step, self.newline)
    }

    fn score(&self, head: &[f32]) -> f64 {
        head.first().map_or(f64::NAN, |&x| sigmoid(f64::from(x)))
    }
}
