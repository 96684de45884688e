//! Math-Shepherd (arXiv 2312.08935): plain text, `{problem} {step} ки\n{step} ки...`; the
//! probability of `+` against `-` from the LM head at every `ки`.

use super::format::{Format, Text, softmax_second};
use crate::Error;

const MARKER: &str = "ки";

pub(super) struct MathShepherd {
    text: Text,
    /// `-`, then `+`.
    answers: [u32; 2],
}

impl MathShepherd {
    pub fn new(text: Text) -> Result<MathShepherd, Error> {
        let marker = text.after("1", &format!(" {MARKER}"))?;
        if marker.len() != 1 {
            return Err(Error::model(format!(
                "no step marker: {MARKER:?} is {} tokens of this tokenizer, expected 1",
                marker.len()
            )));
        }
        // As its authors find them: two tokens of one text.
        let answers = match text.encode("+ -")?.as_slice() {
            &[good, bad] => [bad, good],
            tokens => {
                return Err(Error::model(format!(
                    "no answers: \"+ -\" is {} tokens of this tokenizer, expected 2",
                    tokens.len()
                )));
            }
        };
        Ok(MathShepherd { text, answers })
    }
}

impl Format for MathShepherd {
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        self.text.encode_whole(problem)
    }

    fn step(&self, problem: &str, before: usize, step: &str) -> Result<(Vec<u32>, usize), Error> {
        let step = step.trim();
        let tokens = match before {
            0 => self.text.after(problem, &format!(" {step} {MARKER}"))?,
            _ => self.text.after(MARKER, &format!("\n{step} {MARKER}"))?,
        };
        let at = tokens.len() - 1;
        Ok((tokens, at))
    }

    fn score(&self, head: &[f32]) -> f64 {
        softmax_second(head)
    }

    fn head_rows(&self) -> Option<Vec<u32>> {
        Some(self.answers.to_vec())
    }
}
