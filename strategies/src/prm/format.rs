//! The families of PRMs: which one a checkpoint is, and what they have in common.

use std::rc::Rc;

use engine::checkpoint::config::{HeadKind, ModelConfig};
use engine::text::chat::{ChatTemplate, Message};
use engine::text::tokenizer::Tokenizer;

use super::{
    math_shepherd::MathShepherd, qwen_math::QwenMath, rlhflow::RlhFlow, skywork::Skywork,
    token_classification::TokenClassification,
};
use crate::Error;

/// A family of PRMs (TTS.md 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrmKind {
    /// A token classifier of two labels (TRL's PRM trainer, nano-prm).
    TokenClassification,
    /// Math-Shepherd: an LM head's `+` and `-` at the marker `ки`.
    MathShepherd,
    /// RLHFlow: an LM head's `+` and `-` where the assistant would answer each step.
    RlhFlow,
    /// Skywork-o1-Open-PRM: a value head at the newline that closes each step.
    Skywork,
    /// Qwen2.5-Math-PRM: a two-layer head at `<extra_0>`.
    QwenMath,
}

impl PrmKind {
    /// All of them.
    pub const ALL: [PrmKind; 5] = [
        PrmKind::TokenClassification,
        PrmKind::MathShepherd,
        PrmKind::RlhFlow,
        PrmKind::Skywork,
        PrmKind::QwenMath,
    ];

    /// The word for flags and results.
    pub fn name(self) -> &'static str {
        match self {
            PrmKind::TokenClassification => "token-classification",
            PrmKind::MathShepherd => "math-shepherd",
            PrmKind::RlhFlow => "rlhflow",
            PrmKind::Skywork => "skywork",
            PrmKind::QwenMath => "qwen-math",
        }
    }

    /// How it scores a step, in words.
    pub fn how(self) -> &'static str {
        match self {
            PrmKind::TokenClassification => {
                "the probability of its label 1 of 2 at the marker after each step"
            }
            PrmKind::MathShepherd => {
                "the probability of + against - from its LM head at the marker ки after each step"
            }
            PrmKind::RlhFlow => {
                "the probability of + against - from its LM head where the assistant's turn begins, \
                 one user turn per step"
            }
            PrmKind::Skywork => "the sigmoid of its value head at the newline after each step",
            PrmKind::QwenMath => {
                "the probability of class 1 of 2 from its two-layer head at <extra_0> after each step"
            }
        }
    }

    /// The family of a checkpoint, by its head; an LM head alone says nothing, so there the
    /// `name` it goes by must. The error is why not.
    pub fn recognise(config: &ModelConfig, name: &str) -> Result<PrmKind, String> {
        match &config.head {
            HeadKind::Value => Ok(PrmKind::Skywork),
            HeadKind::Process => Ok(PrmKind::QwenMath),
            HeadKind::TokenClassification { labels } => match labels.len() {
                2 => Ok(PrmKind::TokenClassification),
                n => Err(format!(
                    "its score head has {n} labels; expected 2, wrong and right"
                )),
            },
            HeadKind::Causal => {
                let name = name.to_lowercase();
                if name.contains("math-shepherd") {
                    Ok(PrmKind::MathShepherd)
                } else if name.contains("rlhflow") || name.contains("llama3.1-8b-prm") {
                    Ok(PrmKind::RlhFlow)
                } else {
                    Err(format!(
                        "{} has an LM head and no reward head; if it was trained to answer steps \
                         with + and -, say how with --prm-format math-shepherd or rlhflow",
                        config.architecture
                    ))
                }
            }
        }
    }

    /// Why a checkpoint of this head cannot be read this way, if so.
    fn mismatch(self, head: &HeadKind) -> Option<&'static str> {
        let (fits, needs) = match self {
            PrmKind::TokenClassification => (
                matches!(head, HeadKind::TokenClassification { labels } if labels.len() == 2),
                "a token-classification head of 2 labels",
            ),
            PrmKind::MathShepherd | PrmKind::RlhFlow => (*head == HeadKind::Causal, "an LM head"),
            PrmKind::Skywork => (*head == HeadKind::Value, "a value head (v_head.summary)"),
            PrmKind::QwenMath => (
                *head == HeadKind::Process,
                "a two-layer head (score.0 and score.2)",
            ),
        };
        (!fits).then_some(needs)
    }
}

/// How one family writes problem and steps, and reads its head.
pub(super) trait Format {
    /// The tokens before the first step.
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error>;
    /// The tokens of a step, `before` of which were given, and the offset of the one to read.
    fn step(&self, problem: &str, before: usize, step: &str) -> Result<(Vec<u32>, usize), Error>;
    /// The score that the head's numbers mean.
    fn score(&self, head: &[f32]) -> f64;
    /// The rows of the LM head it reads; `None` for a head of its own.
    fn head_rows(&self) -> Option<Vec<u32>> {
        None
    }
}

/// How a checkpoint is read as a PRM.
pub struct PrmFormat {
    kind: PrmKind,
    format: Box<dyn Format>,
}

impl PrmFormat {
    /// The format of `kind` with a checkpoint's tokenizer and template.
    ///
    /// # Errors
    /// A head that cannot be read this way; a tokenizer without the tokens it takes.
    pub fn new(
        kind: PrmKind,
        config: &ModelConfig,
        tokenizer: Rc<Tokenizer>,
        chat: Rc<ChatTemplate>,
    ) -> Result<PrmFormat, Error> {
        if let Some(needs) = kind.mismatch(&config.head) {
            return Err(Error::model(format!(
                "{} cannot be read as {}, which needs {needs}",
                config.architecture,
                kind.name()
            )));
        }
        if matches!(kind, PrmKind::RlhFlow | PrmKind::QwenMath) && chat.is_plain() {
            return Err(Error::model(format!(
                "no chat template, in which a PRM of the form {} reads its steps",
                kind.name()
            )));
        }
        let text = Text { tokenizer };
        let format: Box<dyn Format> = match kind {
            PrmKind::TokenClassification => Box::new(TokenClassification::new(text, chat)?),
            PrmKind::MathShepherd => Box::new(MathShepherd::new(text)?),
            PrmKind::RlhFlow => Box::new(RlhFlow::new(text, chat)?),
            PrmKind::Skywork => Box::new(Skywork::new(text)?),
            PrmKind::QwenMath => Box::new(QwenMath::new(text, chat)?),
        };
        Ok(PrmFormat { kind, format })
    }

    /// Its family.
    pub fn kind(&self) -> PrmKind {
        self.kind
    }

    /// The rows of the LM head it reads; `None` for a head of its own.
    pub fn head_rows(&self) -> Option<Vec<u32>> {
        self.format.head_rows()
    }

    pub(super) fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        self.format.prompt(problem)
    }

    pub(super) fn step(
        &self,
        problem: &str,
        before: usize,
        step: &str,
    ) -> Result<(Vec<u32>, usize), Error> {
        self.format.step(problem, before, step)
    }

    pub(super) fn score(&self, head: &[f32]) -> f64 {
        self.format.score(head)
    }
}

/// A tokenizer as the formats use it.
pub(super) struct Text {
    tokenizer: Rc<Tokenizer>,
}

impl Text {
    /// The ids of a text as it is.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.tokenizer.encode(text, false).map_err(Error::model)
    }

    /// The ids of a text with what the tokenizer puts before it.
    pub fn encode_whole(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.tokenizer.encode(text, true).map_err(Error::model)
    }

    /// A step encoded on its own and closed by `marker`, and the marker's offset.
    pub fn marked(&self, step: &str, marker: u32) -> Result<(Vec<u32>, usize), Error> {
        let mut tokens = self.encode(step)?;
        let at = tokens.len();
        tokens.push(marker);
        Ok((tokens, at))
    }

    /// The ids of turns as a template writes them, opened for the answer.
    pub fn chat(&self, chat: &ChatTemplate, turns: &[Message]) -> Result<Vec<u32>, Error> {
        let text = chat.render(turns, true, false).map_err(Error::model)?;
        self.encode(&text)
    }

    /// The ids `text` has when it stands after `context`: a tokenizer that marks a text's
    /// beginning (SentencePiece) must not do so in its middle. If the two grow together over the
    /// border, the text is encoded on its own.
    pub fn after(&self, context: &str, text: &str) -> Result<Vec<u32>, Error> {
        let before = self.encode(context)?;
        let mut both = self.encode(&format!("{context}{text}"))?;
        match both.starts_with(&before) {
            true => Ok(both.split_off(before.len())),
            false => self.encode(text),
        }
    }

    /// The id of a token of the vocabulary.
    pub fn token(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_id(token)
    }

    /// The one token that `text` is, `what` it is for in messages.
    pub fn single(&self, text: &str, what: &str) -> Result<u32, Error> {
        match self.encode(text)?.as_slice() {
            &[token] => Ok(token),
            tokens => Err(Error::model(format!(
                "no {what}: {text:?} is {} tokens of this tokenizer, expected 1",
                tokens.len()
            ))),
        }
    }

    /// The token a text begins with, if the tokenizer itself names one, whatever the config says.
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
