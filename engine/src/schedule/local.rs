//! [`Executor`] over models of one [`Backend`].

use std::collections::VecDeque;

use kernels::Backend;

use crate::Error;
use crate::model::{Model, Wanted};
use crate::schedule::executor::{Batch, BatchResult, Executor};

/// A batch that has not been waited for.
struct Pending<B: Backend> {
    model: usize,
    samples: Option<B::PendingSamples>,
    head: Option<B::PendingRead>,
    hidden_states: Option<B::PendingRead>,
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
        self.backend.async_scheduling()
    }

    fn enqueue(&mut self, batch: &Batch<'_>) -> Result<(), Error> {
        let Local {
            backend,
            arena,
            models,
            pending,
        } = self;
        let previous = pending.iter().rfind(|p| p.model == batch.model);
        let samples = previous.and_then(|p| p.samples.as_ref());
        let substitutions = match (batch.substitutions, samples) {
            ([], _) => None,
            (substitutions, Some(samples)) => Some((substitutions, samples)),
            _ => unreachable!("rows are fed while the batch that samples for them is in flight"),
        };
        backend.select_model(batch.model);
        let wanted = Wanted {
            head: batch.needs_head(),
            hidden_layer: batch.hidden_layer,
        };
        let model = &mut models[batch.model];
        let copies = batch.copies;
        let (head, hidden_states) =
            model.forward(backend, arena, batch.plan, substitutions, copies, wanted)?;
        let samples = (!batch.draws.is_empty()).then(|| backend.sample(head, batch.draws));
        let outputs = 0..batch.plan.outputs.len();
        let head = batch.read.then(|| backend.read(head, outputs));
        pending.push_back(Pending {
            model: batch.model,
            samples,
            head,
            hidden_states,
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
        let mut read = |pending: Option<B::PendingRead>| match pending {
            Some(pending) => self.backend.finish_read(pending),
            None => Ok(Vec::new()),
        };
        Ok(BatchResult {
            samples,
            head: read(pending.head)?,
            hidden_states: read(pending.hidden_states)?,
        })
    }
}
