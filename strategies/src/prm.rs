//! The process reward model over the engine: step formats and read-outs.
//!
//! The PRM keeps a branch of its own for every branch of the policy. A step is encoded once, on
//! its own, and only its tokens are computed. That is exact: all formats here are causal, so the
//! score at a marker depends on nothing after it (TTS.md 3.1).

use std::cell::Cell;
use std::rc::Rc;

use engine::chat::{ChatTemplate, Message};
use engine::tokenizer::Tokenizer;
use engine::{Branch, Model};

use crate::{Error, Prm};

/// The marker Qwen2.5-Math-PRM closes a step with; used where the tokenizer knows it.
const EXTRA_0: &str = "<extra_0>";

/// How steps are marked, and what is read at the marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrmFormat {
    /// A token-classification head of two labels, read at the marker token that follows each
    /// step; the score is the probability of label 1 (TRL's PRM trainer).
    TokenClassification {
        /// The marker's id.
        marker: u32,
    },
}

impl PrmFormat {
    /// The format of a token-classification checkpoint with `labels` labels: the marker is
    /// `<extra_0>` if the tokenizer has it, else the token of a blank line.
    pub fn token_classification(labels: usize, tokenizer: &Tokenizer) -> Result<PrmFormat, Error> {
        if labels != 2 {
            let what = format!("a PRM's head has 2 labels, found {labels}");
            return Err(Error::model(what));
        }
        if let Some(marker) = tokenizer.token_id(EXTRA_0) {
            return Ok(PrmFormat::TokenClassification { marker });
        }
        match tokenizer
            .encode("\n\n", false)
            .map_err(Error::model)?
            .as_slice()
        {
            &[marker] => Ok(PrmFormat::TokenClassification { marker }),
            tokens => Err(Error::model(format!(
                "no step marker: the tokenizer has no {EXTRA_0:?} and a blank line is {} tokens, expected 1",
                tokens.len()
            ))),
        }
    }
}

/// A reward model of the engine, as strategies see it.
pub struct EnginePrm {
    model: Model,
    tokenizer: Rc<Tokenizer>,
    chat: Rc<ChatTemplate>,
    format: PrmFormat,
    read: Cell<u64>,
}

impl EnginePrm {
    /// A PRM that reads steps in `format`.
    pub fn new(
        model: Model,
        tokenizer: Rc<Tokenizer>,
        chat: Rc<ChatTemplate>,
        format: PrmFormat,
    ) -> EnginePrm {
        EnginePrm {
            model,
            tokenizer,
            chat,
            format,
            read: Cell::new(0),
        }
    }

    /// The same model for another problem, with a count of its own.
    pub fn again(&self) -> EnginePrm {
        EnginePrm {
            model: self.model.clone(),
            tokenizer: Rc::clone(&self.tokenizer),
            chat: Rc::clone(&self.chat),
            format: self.format.clone(),
            read: Cell::new(0),
        }
    }

    /// Tokens given to the model through this value: those of the prompt and of every step, each
    /// once.
    pub fn tokens_read(&self) -> u64 {
        self.read.get()
    }
}

impl Prm for EnginePrm {
    type Branch = Branch;

    async fn start(&self, problem: &str) -> Result<Branch, Error> {
        let text = self
            .chat
            .render(&[Message::new("user", problem)], true, false)
            .map_err(Error::model)?;
        let tokens = self.tokenizer.encode(&text, false).map_err(Error::model)?;
        self.read.set(self.read.get() + tokens.len() as u64);
        // Nothing is drawn from a PRM, so the stream of random numbers does not matter.
        let mut branch = self.model.root(0);
        branch.append(&tokens).map_err(Error::model)?;
        Ok(branch)
    }

    fn fork(&self, branch: &Branch) -> Branch {
        branch.fork()
    }

    async fn score(&self, branch: &mut Branch, steps: &[&str]) -> Result<Vec<f64>, Error> {
        let PrmFormat::TokenClassification { marker } = self.format;
        let mut tokens = Vec::new();
        let mut at = Vec::new();
        for step in steps {
            tokens.extend(
                self.tokenizer
                    .encode(step.trim(), false)
                    .map_err(Error::model)?,
            );
            at.push(tokens.len());
            tokens.push(marker);
        }
        self.read.set(self.read.get() + tokens.len() as u64);
        let values = branch.read(&tokens, &at).await.map_err(Error::model)?;
        Ok(values.iter().map(|v| softmax_second(v)).collect())
    }
}

/// The probability of the second of two classes, in f64 from f32 logits.
fn softmax_second(logits: &[f32]) -> f64 {
    match logits {
        &[first, second] => 1.0 / (1.0 + (f64::from(first) - f64::from(second)).exp()),
        _ => f64::NAN,
    }
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
