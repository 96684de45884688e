//! A job: events while it runs, and its outcome.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::{mpsc, oneshot};
use futures::future::AbortHandle;
use futures::{Stream, StreamExt};

use crate::{Error, Event};

/// Work that the engine's thread does. It is a stream of [`Event`]s that ends with the work, and
/// [`Job::outcome`] is its result.
///
/// Dropping a job cancels it: its branches and their memory are free after the batch that is being
/// computed.
pub struct Job<T> {
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) outcome: oneshot::Receiver<Result<T, Error>>,
    pub(crate) abort: AbortHandle,
    pub(crate) failure: crate::session::DeviceFailure,
}

impl<T> Job<T> {
    /// Waits for the result. Events that were not read are lost.
    ///
    /// # Errors
    /// What went wrong; [`Error::Ended`] if the session ended first.
    pub async fn outcome(mut self) -> Result<T, Error> {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.failure.error()),
        }
    }

    /// As [`Job::outcome`], blocking the calling thread.
    ///
    /// # Errors
    /// As [`Job::outcome`].
    pub fn wait(self) -> Result<T, Error> {
        futures::executor::block_on(self.outcome())
    }
}

impl<T> Stream for Job<T> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_next_unpin(context)
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
