//! [`Executor`] over models on several devices, each with an executor of its own.

use std::collections::VecDeque;

use crate::Error;
use crate::schedule::executor::{Batch, BatchResult, Executor};

/// The executors of the devices as one. Batches of different devices run at the same time.
pub(crate) struct Devices {
    executors: Vec<Box<dyn Executor>>,
    /// Of every model: its executor, and its number there.
    placed: Vec<(usize, usize)>,
    /// The executors of the batches that have not been waited for, oldest first.
    enqueued: VecDeque<usize>,
}

impl Devices {
    /// Executors with the number of models each has; all models in that order.
    pub fn new(devices: Vec<(Box<dyn Executor>, usize)>) -> Devices {
        let mut placed = Vec::new();
        let mut executors = Vec::new();
        for (device, (executor, models)) in devices.into_iter().enumerate() {
            placed.extend((0..models).map(|model| (device, model)));
            executors.push(executor);
        }
        Devices {
            executors,
            placed,
            enqueued: VecDeque::new(),
        }
    }
}

impl Executor for Devices {
    fn device(&self) -> String {
        let names: Vec<String> = self.executors.iter().map(|e| e.device()).collect();
        names.join(" and ")
    }

    fn prefers_async(&self) -> bool {
        self.executors.iter().any(|e| e.prefers_async())
    }

    fn enqueue(&mut self, batch: &Batch<'_>) -> Result<(), Error> {
        let (device, model) = self.placed[batch.model];
        self.executors[device].enqueue(&Batch { model, ..*batch })?;
        self.enqueued.push_back(device);
        Ok(())
    }

    fn finish(&mut self) -> Result<BatchResult, Error> {
        match self.enqueued.pop_front() {
            Some(device) => self.executors[device].finish(),
            None => Ok(BatchResult::default()),
        }
    }
}
