//! The process reward model over the engine.
//!
//! The PRM keeps a branch of its own for every branch of the policy. A step is encoded once, on
//! its own, and only its tokens are computed. That is exact: all formats here are causal, so the
//! score at a marker depends on nothing after it (TTS.md 3.1).
//!
//! How a problem and its steps become tokens, where the head is read and what its numbers mean is
//! a [`PrmFormat`]: one file per family of checkpoints.

mod format;
mod math_shepherd;
mod qwen_math;
mod rlhflow;
mod skywork;
mod token_classification;

use std::cell::Cell;
use std::rc::Rc;

use engine::{Branch, Model};

pub use format::{PrmFormat, PrmKind};

use crate::{Error, Prm};

/// What becomes of tokens past the positions a model was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PastLimit {
    /// They are computed all the same (the paper's code): the model is asked for what it never
    /// saw, up to eight times its positions.
    RunOn,
    /// A solution is cut there. A PRM reads no step that does not fit whole, nor any after it; they
    /// have the score of the last step it read.
    #[default]
    Truncate,
    /// The problem fails with an error.
    Refuse,
}

impl PastLimit {
    /// All of them.
    pub const ALL: [PastLimit; 3] = [PastLimit::RunOn, PastLimit::Truncate, PastLimit::Refuse];

    /// The word for flags and results.
    pub fn name(self) -> &'static str {
        match self {
            PastLimit::RunOn => "run-on",
            PastLimit::Truncate => "truncate",
            PastLimit::Refuse => "refuse",
        }
    }
}

/// A reward model of the engine, as strategies see it.
pub struct EnginePrm {
    model: Model,
    format: Rc<PrmFormat>,
    past_limit: PastLimit,
    read: Cell<u64>,
}

/// A solution as far as the PRM has read it.
pub struct PrmBranch {
    branch: Branch,
    problem: Rc<str>,
    /// Steps given.
    steps: usize,
    /// The score of the last step that was read.
    last: Option<f64>,
    /// Whether a step did not fit: no further one is read.
    full: bool,
}

impl EnginePrm {
    /// A PRM that reads steps in `format`. To run on past its positions the model must have been
    /// loaded for that ([`engine::ModelSpec::extend_context`]).
    pub fn new(model: Model, format: Rc<PrmFormat>, past_limit: PastLimit) -> EnginePrm {
        EnginePrm {
            model,
            format,
            past_limit,
            read: Cell::new(0),
        }
    }

    /// The same model for another problem, with a count of its own.
    pub fn again(&self) -> EnginePrm {
        EnginePrm::new(self.model.clone(), Rc::clone(&self.format), self.past_limit)
    }

    /// Tokens given to the model through this value: those of the prompt and of every step, each
    /// once.
    pub fn tokens_read(&self) -> u64 {
        self.read.get()
    }

    fn count(&self, tokens: usize) {
        self.read.set(self.read.get() + tokens as u64);
    }
}

impl Prm for EnginePrm {
    type Branch = PrmBranch;

    async fn start(&self, problem: &str) -> Result<PrmBranch, Error> {
        let tokens = self.format.prompt(problem)?;
        self.count(tokens.len());
        // Nothing is drawn from a PRM, so the stream of random numbers does not matter.
        let mut branch = self.model.root(0);
        branch.append(&tokens).map_err(Error::model)?;
        Ok(PrmBranch {
            branch,
            problem: problem.into(),
            steps: 0,
            last: None,
            full: false,
        })
    }

    fn fork(&self, branch: &PrmBranch) -> PrmBranch {
        PrmBranch {
            branch: branch.branch.fork(),
            problem: Rc::clone(&branch.problem),
            ..*branch
        }
    }

    async fn score(&self, branch: &mut PrmBranch, steps: &[&str]) -> Result<Vec<f64>, Error> {
        let room = match self.past_limit {
            PastLimit::Truncate => self.model.context_length() - branch.branch.len(),
            // Where there is none, appending says so.
            PastLimit::RunOn | PastLimit::Refuse => usize::MAX,
        };
        let (mut tokens, mut at) = (Vec::new(), Vec::new());
        for step in steps {
            let (more, offset) = self.format.step(&branch.problem, branch.steps, step)?;
            branch.steps += 1;
            branch.full |= tokens.len() + more.len() > room;
            if !branch.full {
                at.push(tokens.len() + offset);
                tokens.extend(more);
            }
        }
        self.count(tokens.len());
        let read = branch.branch.read(&tokens, &at);
        let values = read.await.map_err(Error::model)?;
        let mut scores: Vec<f64> = values.iter().map(|v| self.format.score(v)).collect();
        branch.last = scores.last().copied().or(branch.last);
        let Some(last) = branch.last else {
            return Err(Error::NothingRead {
                positions: self.model.context_length(),
            });
        };
        scores.resize(steps.len(), last);
        Ok(scores)
    }
}
