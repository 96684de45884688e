//! Threads: one parallel loop over independent tasks, small work on the calling thread.

mod pool;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use self::pool::Pool;

/// Work of fewer operations than this is done by the calling thread: waking another one costs
/// about as long as this many operations take.
const SERIAL_BELOW: usize = 1_000_000;

/// Spans of rows per thread, so that one that was held up is helped out by the others.
const SPANS_PER_THREAD: usize = 4;

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The calling thread and a pool of the others.
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

    /// The pool, if work of that many operations is worth its while.
    fn pool_for(&self, tasks: usize, operations: usize) -> Option<&Pool> {
        self.pool
            .as_ref()
            .filter(|_| tasks > 1 && operations >= SERIAL_BELOW)
    }

    /// Runs `task(i)` for all `i < tasks`, in any order, on any thread. `operations` is the work of
    /// all of them together, in floating-point operations or thereabouts.
    pub(crate) fn run(&self, tasks: usize, operations: usize, task: impl Fn(usize) + Sync) {
        let Some(pool) = self.pool_for(tasks, operations) else {
            return (0..tasks).for_each(task);
        };
        let next = AtomicUsize::new(0);
        pool.together(&|| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    return;
                }
                task(i);
            }
        });
    }

    /// Runs `task(i, row i)` for every row of `cols` items of `data`.
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
        pool.together(&|| {
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
