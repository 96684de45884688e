//! Math-Shepherd (arXiv 2312.08935): plain text, `{problem} {step} ки\n{step} ки...`; the
//! probability of `+` against `-` from the LM head at every `ки`.

use engine::checkpoint::config::HeadKind;

use super::format::{Family, StepFormat, Text, softmax_second};
use crate::Error;

const MARKER: &str = "ки";

pub(super) const FAMILY: Family = Family {
    name: "math-shepherd",
    read_out: "the probability of + against - from its LM head at the marker ки after each step",
    head: "an LM head",
    fits: |head| *head == HeadKind::Causal,
    recognise: |name| name.contains("math-shepherd"),
    needs_chat_template: false,
    open: |text, _| Ok(Box::new(MathShepherd::new(text)?)),
};

struct MathShepherd {
    text: Text,
    /// `-`, then `+`.
    answers: [u32; 2],
}

impl MathShepherd {
    fn new(text: Text) -> Result<MathShepherd, Error> {
        let marker = text.after("1", &format!(" {MARKER}"))?;
        if marker.len() != 1 {
            return Err(Error::PrmFormat(format!(
                "no step marker: {MARKER:?} is {} tokens of this tokenizer, expected 1",
                marker.len()
            )));
        }
        // As its authors find them: two tokens of one text.
        let answers = match text.encode("+ -")?.as_slice() {
            &[good, bad] => [bad, good],
            tokens => {
                return Err(Error::PrmFormat(format!(
                    "no answers: \"+ -\" is {} tokens of this tokenizer, expected 2",
                    tokens.len()
                )));
            }
        };
        Ok(MathShepherd { text, answers })
    }
}

impl StepFormat for MathShepherd {
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        self.text.encode_whole(problem)
    }

    fn step(&self, problem: &str, before: usize, step: &str) -> Result<(Vec<u32>, usize), Error> {
        let step = step.trim();
        let tokens = match before {
            0 => self.text.after(problem, &format!(" {step} {MARKER}"))?,
            _ => self.text.after(MARKER, &format!("\n{step} {MARKER}"))?,
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
