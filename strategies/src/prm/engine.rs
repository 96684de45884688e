//! The process reward model over the engine.
//!
//! The PRM keeps a branch of its own for every branch of the policy. A step is encoded once and
//! only its tokens are computed. That is exact: all formats here are causal, so the score at a
//! marker depends on nothing after it (SEMANTICS.md, "Process reward models").

use std::rc::Rc;

use engine::{Branch, Model};

use super::PrmFormat;
use crate::{ContextOverflow, Error, Prm};

/// A reward model of the engine, as strategies see it.
pub struct EnginePrm {
    model: Model,
    format: Rc<PrmFormat>,
    context_overflow: ContextOverflow,
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
    /// A PRM that reads steps in `format`. For [`ContextOverflow::Extend`] the model must have been
    /// loaded with tables beyond its context length.
    pub fn new(
        model: Model,
        format: Rc<PrmFormat>,
        context_overflow: ContextOverflow,
    ) -> EnginePrm {
        EnginePrm {
            model,
            format,
            context_overflow,
        }
    }
}

impl Prm for EnginePrm {
    type Branch = PrmBranch;

    async fn start(&self, problem: &str) -> Result<PrmBranch, Error> {
        // Nothing is drawn from a PRM, so the stream of random numbers does not matter.
        let mut branch = self.model.root(0);
        branch.append(&self.format.steps.prompt(problem)?)?;
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
        let format = &self.format.steps;
        let room = match self.context_overflow {
            ContextOverflow::Truncate => self.model.context_length() - branch.branch.len(),
            // The engine refuses tokens beyond the last position it has tables for.
            ContextOverflow::Extend | ContextOverflow::Refuse => usize::MAX,
        };
        let (mut tokens, mut offsets) = (Vec::new(), Vec::new());
        for step in steps {
            let (more, offset) = format.step(&branch.problem, branch.steps, step)?;
            branch.steps += 1;
            branch.full |= tokens.len() + more.len() > room;
            if !branch.full {
                offsets.push(tokens.len() + offset);
                tokens.extend(more);
            }
        }
        let values = branch.branch.read(&tokens, &offsets).await?;
        let mut scores: Vec<f64> = values.iter().map(|v| format.score(v)).collect();
        branch.last = scores.last().copied().or(branch.last);
        let Some(last) = branch.last else {
            return Err(Error::NothingRead {
                context_length: self.model.context_length(),
            });
        };
        scores.resize(steps.len(), last);
        Ok(scores)
    }

    fn num_tokens(&self, branch: &PrmBranch) -> usize {
        branch.branch.len()
    }
}
