//! Process reward models: the families of checkpoints, and a PRM over the engine.
//!
//! A family is one file: a [`Family`] row (name, heads it reads, how it is recognised) and a
//! [`StepFormat`] (how problem and steps become tokens, where the head is read and what its numbers
//! mean). To add one, write its file and give it a variant and its two entries here.
//!
//! - `format.rs`: the interface of a family, and the tokenizer helpers that families share.
//! - `engine.rs`: the PRM over the engine.

mod engine;
mod format;
mod math_shepherd;
mod qwen_math;
mod rlhflow;
mod skywork;
mod token_classification;

use std::rc::Rc;

use ::engine::checkpoint::config::{HeadKind, ModelConfig};
use ::engine::text::chat::ChatTemplate;
use ::engine::text::tokenizer::Tokenizer;

pub use engine::{EnginePrm, PrmBranch};

use crate::Error;
use crate::prompt::PROBE;
use format::{Family, StepFormat, Text};

/// A family of PRMs (SEMANTICS.md, "Process reward models").
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
    /// Every family. A checkpoint is of the first that recognises it.
    pub const ALL: [PrmKind; 5] = [
        PrmKind::TokenClassification,
        PrmKind::MathShepherd,
        PrmKind::RlhFlow,
        PrmKind::Skywork,
        PrmKind::QwenMath,
    ];

    fn family(self) -> &'static Family {
        match self {
            PrmKind::TokenClassification => &token_classification::FAMILY,
            PrmKind::MathShepherd => &math_shepherd::FAMILY,
            PrmKind::RlhFlow => &rlhflow::FAMILY,
            PrmKind::Skywork => &skywork::FAMILY,
            PrmKind::QwenMath => &qwen_math::FAMILY,
        }
    }

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        self.family().name
    }

    /// How it scores a step, in words.
    pub fn read_out(self) -> &'static str {
        self.family().read_out
    }

    /// The family of a checkpoint, by its head. An LM head fits several families, so there the
    /// `name` of the model decides.
    ///
    /// # Errors
    /// [`Error::PrmFormat`] with the reason why no family is certain.
    pub fn recognise(config: &ModelConfig, name: &str) -> Result<PrmKind, Error> {
        let name = name.to_lowercase();
        let fits = |kind: &PrmKind| (kind.family().fits)(&config.head);
        let fitting: Vec<PrmKind> = PrmKind::ALL.into_iter().filter(fits).collect();
        if let Some(&kind) = fitting.iter().find(|k| (k.family().recognise)(&name)) {
            return Ok(kind);
        }
        Err(Error::PrmFormat(match &config.head {
            HeadKind::TokenClassification { labels } => format!(
                "its score head has {} labels; expected 2, wrong and right",
                labels.len()
            ),
            HeadKind::Causal => {
                let names: Vec<&str> = fitting.iter().map(|kind| kind.name()).collect();
                format!(
                    "{} has an LM head and no reward head; if it was trained to answer steps with \
                     + and -, name its form with `prm_format`: {}",
                    config.architecture,
                    names.join(" or ")
                )
            }
            _ => format!("no PRM format reads the head of {}", config.architecture),
        }))
    }
}

/// How a checkpoint is read as a PRM.
pub struct PrmFormat {
    kind: PrmKind,
    steps: Box<dyn StepFormat>,
}

impl PrmFormat {
    /// The format of `kind` with a checkpoint's tokenizer and template.
    ///
    /// # Errors
    /// A head that cannot be read this way; a tokenizer without the tokens it takes; no
    /// chat template for a family that needs one.
    pub fn new(
        kind: PrmKind,
        config: &ModelConfig,
        tokenizer: Rc<Tokenizer>,
        chat: Rc<ChatTemplate>,
    ) -> Result<PrmFormat, Error> {
        let family = kind.family();
        if !(family.fits)(&config.head) {
            return Err(Error::PrmFormat(format!(
                "{} cannot be read as {}, which needs {}",
                config.architecture, family.name, family.head
            )));
        }
        if family.needs_chat_template && chat.is_plain() {
            return Err(Error::PrmFormat(format!(
                "no chat template, in which a PRM of the form {} reads its steps",
                family.name
            )));
        }
        let steps = (family.open)(Text::new(tokenizer), chat)?;
        // A template that fails does so before anything is loaded.
        steps.prompt(PROBE)?;
        Ok(PrmFormat { kind, steps })
    }

    /// Its family.
    pub fn kind(&self) -> PrmKind {
        self.kind
    }

    /// The rows of the LM head it reads; `None` for a head of its own.
    pub fn head_rows(&self) -> Option<Vec<u32>> {
        self.steps.head_rows()
    }
}
