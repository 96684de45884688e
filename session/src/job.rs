//! A job: events while it runs, and its outcome.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

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
        // Nobody reads them: none need be made.
        self.events.close();
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
        block_on(self.outcome())
    }

    /// The next event, blocking the calling thread; `None` when the work has ended. Events that are
    /// neither read nor given up by [`Job::outcome`] are kept in memory.
    pub fn next_event(&mut self) -> Option<Event> {
        block_on(self.events.next())
    }
}

/// Runs a future on the calling thread, which may be inside of any executor.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // A wake between the poll and here makes this return at once.
            Poll::Pending => std::thread::park(),
        }
    }
}

impl<T> std::fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
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
