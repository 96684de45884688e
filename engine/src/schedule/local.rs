//! [`Executor`] over models of one [`Backend`].

use std::collections::VecDeque;

use kernels::Backend;

use crate::Error;
use crate::model::Model;
use crate::schedule::executor::{Batch, BatchResult, Executor};

struct Pending<B: Backend> {
    model: usize,
    samples: Option<B::PendingSamples>,
    head: Option<B::PendingRead>,
}

/// Models that share a device and its KV arena.
pub(crate) struct Local<B: Backend> {
    backend: B,
    arena: B::Arena,
    models: Vec<Model<B>>,
    pending: VecDeque<Pending<B>>,
}

impl<B: Backend> Local<B> {
    pub fn new(backend: B, arena: B::Arena, models: Vec<Model<B>>) -> Local<B> {
        Local {
            backend,
            arena,
            models,
            pending: VecDeque::new(),
        }
    }
}

impl<B: Backend> Executor for Local<B> {
    fn device(&self) -> String {
        self.backend.name()
    }

    fn prefers_async(&self) -> bool {
        self.backend.runs_ahead()
    }

    fn enqueue(&mut self, step: &Batch<'_>) -> Result<(), Error> {
        let Local {
            backend,
            arena,
            models,
            pending,
        } = self;
        let before = pending.iter().rfind(|p| p.model == step.model);
        let drawn = before.and_then(|p| p.samples.as_ref());
        let feeds = match (step.feeds, drawn) {
            ([], _) => None,
            (feeds, Some(samples)) => Some((feeds, samples)),
            _ => unreachable!("rows are fed while the step that draws for them is under way"),
        };
        backend.select_model(step.model);
        let head = models[step.model].forward(backend, arena, step.plan, feeds, step.copies)?;
        let samples = (!step.draws.is_empty()).then(|| backend.sample(head, step.draws));
        let head = step
            .read
            .then(|| backend.read(head, 0..step.plan.outputs.len()));
        pending.push_back(Pending {
            model: step.model,
            samples,
            head,
        });
        Ok(())
    }

    fn finish(&mut self) -> Result<BatchResult, Error> {
        let Some(pending) = self.pending.pop_front() else {
            return Ok(BatchResult::default());
        };
        let samples = match pending.samples {
            Some(samples) => self.backend.finish_samples(samples)?,
            None => Vec::new(),
        };
        let head = match pending.head {
            Some(head) => self.backend.finish_read(head)?,
            None => Vec::new(),
        };
        Ok(BatchResult { samples, head })
    }
}
