//! Threads: a parallel loop over independent tasks. Small work stays on the calling thread.

mod pool;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use self::pool::Pool;

/// The calling thread does work of fewer operations alone: waking another thread takes about as
/// long as this many operations.
const MIN_PARALLEL_OPS: usize = 1_000_000;

/// Spans of rows per thread. With more than one, the other threads take over the share of a thread
/// that is delayed.
const SPANS_PER_THREAD: usize = 4;

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The calling thread, and a pool of the other threads.
pub(crate) struct Workers {
    pool: Option<Pool>,
    threads: usize,
}

impl Workers {
    /// `threads` threads, the calling one included; 0 means all cores.
    pub(crate) fn new(threads: usize) -> Workers {
        let threads = match threads {
            0 => cores(),
            n => n,
        };
        let pool = (threads > 1).then(|| Pool::new(threads - 1));
        Workers { pool, threads }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// The pool, if there are several tasks and enough operations to pay for it.
    fn pool_for(&self, tasks: usize, operations: usize) -> Option<&Pool> {
        self.pool
            .as_ref()
            .filter(|_| tasks > 1 && operations >= MIN_PARALLEL_OPS)
    }

    /// Runs `task(i)` for all `i < tasks`, in any order, on any thread. `operations` estimates the
    /// floating-point operations of all tasks together.
    pub(crate) fn run(&self, tasks: usize, operations: usize, task: impl Fn(usize) + Sync) {
        let Some(pool) = self.pool_for(tasks, operations) else {
            return (0..tasks).for_each(task);
        };
        let next = AtomicUsize::new(0);
        pool.run(&|| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    return;
                }
                task(i);
            }
        });
    }

    /// Runs `task(i, row i)` for every row of `cols` elements of `data`; `operations` as for
    /// [`Workers::run`].
    pub(crate) fn rows<T: Send>(
        &self,
        data: &mut [T],
        cols: usize,
        operations: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        if data.is_empty() {
            return;
        }
        let rows = data.len() / cols;
        let span = |first: usize, rows: &mut [T]| {
            for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                task(first + i, row);
            }
        };
        let Some(pool) = self.pool_for(rows, operations) else {
            return span(0, data);
        };
        let each = rows.div_ceil(self.threads * SPANS_PER_THREAD);
        let spans = Mutex::new(data.chunks_mut(each * cols).enumerate());
        pool.run(&|| {
            loop {
                let next = spans.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, rows)) = next else {
                    return;
                };
                span(index * each, rows);
            }
        });
    }
}
