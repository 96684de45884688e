//! Threads: one parallel loop over independent tasks, small work on the calling thread.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Work of fewer operations than this is done by the calling thread: waking another one costs
/// about as long as this many operations take.
const SERIAL_BELOW: usize = 1_000_000;

/// The calling thread and the backend's own rayon pool, which holds the others.
pub(crate) struct Workers {
    pool: Option<rayon::ThreadPool>,
    threads: usize,
}

impl Workers {
    /// `threads` threads, the calling one included; 0 means all cores.
    pub(crate) fn new(threads: usize) -> Workers {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool = (threads > 1).then(|| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads - 1)
                .thread_name(|i| format!("offshoot-cpu-{}", i + 1))
                .build()
                .unwrap_or_else(|error| panic!("cannot start {threads} threads: {error}"))
        });
        Workers { pool, threads }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// The pool, if work of that many operations is worth its while.
    fn pool_for(&self, tasks: usize, operations: usize) -> Option<&rayon::ThreadPool> {
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
        let take = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    return;
                }
                task(i);
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 1..self.threads.min(tasks) {
                scope.spawn(|_| take());
            }
            take();
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
        let per_thread = rows.div_ceil(self.threads);
        pool.in_place_scope(|scope| {
            let (mine, others) = data.split_at_mut(per_thread * cols);
            for (i, rows) in others.chunks_mut(per_thread * cols).enumerate() {
                let span = &span;
                scope.spawn(move |_| span((i + 1) * per_thread, rows));
            }
            span(0, mine);
        });
    }
}
