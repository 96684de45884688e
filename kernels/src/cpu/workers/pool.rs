//! A thread pool that runs one job at a time on all its threads.
//!
//! A forward pass is hundreds of short jobs with almost nothing between them. Waking a parked
//! thread takes about 50 µs (measured on a virtual machine with two Xeon cores), longer than most
//! jobs. So idle threads spin for [`SPIN_TIME`] before parking, and so does the caller while the
//! last thread finishes. That bounds the time a shared machine loses. If there are more threads
//! than cores they do not spin at all, as each would keep another from its work.
//!
//! The caller never waits for a thread that has not entered the job. It works until no work is left
//! and then closes the job; a thread that arrives later skips it.
#![allow(unsafe_code)] // A job lives on the caller's stack; comments say what keeps it alive.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread spins before it parks: longer than the gap between two jobs of a forward pass.
const SPIN_TIME: Duration = Duration::from_micros(200);
/// Spins between two readings of the clock.
const SPINS_PER_CLOCK: usize = 64;

/// The threads besides the caller's.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held by the thread whose job is running.
    calling: Mutex<()>,
}

/// Bits of [`Shared::gate`]: the number of threads inside the job, whether more may enter, and
/// above them the job's number.
const INSIDE: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const NUMBER: u64 = 1 << 17;

struct Shared {
    gate: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// How long a thread spins before it parks.
    spin_time: Duration,
    /// Threads that are parked or about to park.
    parked: AtomicUsize,
    /// Whether the pool is shutting down; the mutex of `wake`.
    shutdown: Mutex<bool>,
    wake: Condvar,
}

/// Work that any number of threads may join.
#[derive(Clone)]
struct Job {
    /// Valid until no thread is inside the job.
    work: *const (dyn Fn() + Sync),
    /// The first panic of a thread.
    panic: *const Mutex<Option<Box<dyn Any + Send>>>,
    caller: Thread,
}

// SAFETY: `job` is written while the gate is closed and no thread is inside, and read by threads
// that are inside. Its pointees may be used by several threads.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Pool {
    /// # Panics
    ///
    /// If the operating system cannot start the threads.
    pub(super) fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            spin_time: if threads < super::cores() {
                SPIN_TIME
            } else {
                Duration::ZERO
            },
            parked: AtomicUsize::new(0),
            shutdown: Mutex::new(false),
            wake: Condvar::new(),
        });
        let start = |i: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("offshoot-cpu-{}", i + 1))
                .spawn(move || shared.serve())
                .unwrap_or_else(|error| panic!("cannot start {} threads: {error}", threads + 1))
        };
        Pool {
            threads: (0..threads).map(start).collect(),
            shared,
            calling: Mutex::new(()),
        }
    }

    /// Calls `work` on the caller and on every thread that arrives before the caller returns from
    /// it; returns when all of them have. If another job is running, only the caller calls `work`.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub(super) fn run(&self, work: &(dyn Fn() + Sync)) {
        let _calling = match self.calling.try_lock() {
            Ok(calling) => calling,
            // The job that panicked has ended.
            Err(TryLockError::Poisoned(calling)) => calling.into_inner(),
            Err(TryLockError::WouldBlock) => return work(),
        };
        let shared = &*self.shared;
        let panic = Mutex::new(None);
        // SAFETY: only the lifetime changes. `close` removes the job before this function returns.
        let work_for_all: *const (dyn Fn() + Sync) = unsafe {
            std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync)>(work)
        };
        let job = Job {
            work: work_for_all,
            panic: &raw const panic,
            caller: std::thread::current(),
        };
        // SAFETY: the gate is closed and no thread inside, as `close` left it, and only this thread
        // opens it.
        unsafe { *shared.job.get() = Some(job) };
        let number = shared.gate.load(SeqCst) / NUMBER + 1;
        shared.gate.store((number * NUMBER) | OPEN, SeqCst);
        if shared.parked.load(SeqCst) > 0 {
            let _shutdown = shared
                .shutdown
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let mine = catch_unwind(AssertUnwindSafe(work));
        shared.close();
        let theirs = panic.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        *self
            .shared
            .shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread panics only in jobs, whose callers have received the panic.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Closes the gate, waits until no thread is inside, and removes the job.
    fn close(&self) {
        let mut gate = self.gate.fetch_and(!OPEN, SeqCst);
        let mut spin = Spin::new(self.spin_time);
        while gate & INSIDE > 0 {
            if !spin.again() {
                // The last thread to leave unparks this one. If it has left already, `park` returns
                // at once.
                std::thread::park();
            }
            gate = self.gate.load(SeqCst);
        }
        // SAFETY: no thread is inside, and none can enter.
        unsafe { *self.job.get() = None };
    }

    /// Runs jobs until shutdown.
    fn serve(&self) {
        let mut last = 0;
        loop {
            let mut spin = Spin::new(self.spin_time);
            let number = loop {
                let gate = self.gate.load(SeqCst);
                if gate & OPEN > 0 && gate / NUMBER != last {
                    let entered = self.gate.compare_exchange(gate, gate + 1, SeqCst, SeqCst);
                    if entered.is_ok() {
                        break gate / NUMBER;
                    }
                } else if !spin.again() {
                    if !self.park(last) {
                        return;
                    }
                    spin = Spin::new(self.spin_time);
                }
            };
            last = number;
            // SAFETY: this thread is inside, so the caller waits for it.
            let job = unsafe { (*self.job.get()).clone() }.expect("an open gate has a job");
            // SAFETY: as above.
            let done = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.work)() }));
            if let Err(panic) = done {
                // SAFETY: as above.
                let first = unsafe { &*job.panic };
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(panic);
            }
            // After this the job may be gone, but the handle of its caller was cloned.
            let gate = self.gate.fetch_sub(1, SeqCst);
            if gate & OPEN == 0 && gate & INSIDE == 1 {
                job.caller.unpark();
            }
        }
    }

    /// Blocks until a job after number `last` is open (returns `true`), or until shutdown
    /// (`false`).
    fn park(&self, last: u64) -> bool {
        self.parked.fetch_add(1, SeqCst);
        let mut shutdown = self.shutdown.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // The caller opens the gate before it reads `parked`, so one of the two sees the other.
            let gate = self.gate.load(SeqCst);
            if *shutdown || gate & OPEN > 0 && gate / NUMBER != last {
                break;
            }
            shutdown = self
                .wake
                .wait(shutdown)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, SeqCst);
        !*shutdown
    }
}

/// A spin-wait of limited time.
struct Spin {
    limit: Duration,
    spins: usize,
    since: Option<Instant>,
}

impl Spin {
    fn new(limit: Duration) -> Spin {
        Spin {
            limit,
            spins: 0,
            since: None,
        }
    }

    /// Spins once; `false` when the time is up.
    fn again(&mut self) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        std::hint::spin_loop();
        self.spins += 1;
        if !self.spins.is_multiple_of(SPINS_PER_CLOCK) {
            return true;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        since.elapsed() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a job in which threads take tasks until none is left; returns how often each was done.
    fn count(pool: &Pool, tasks: usize) -> Vec<usize> {
        let next = AtomicUsize::new(0);
        let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        pool.run(&|| {
            while let Some(done) = done.get(next.fetch_add(1, SeqCst)) {
                done.fetch_add(1, SeqCst);
            }
        });
        done.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_task_is_done_once_whether_threads_sleep_or_not() {
        for threads in [1, 4] {
            let pool = Pool::new(threads);
            for turn in 0..2_000 {
                assert_eq!(count(&pool, turn % 7), vec![1; turn % 7], "turn {turn}");
                if turn % 400 == 0 {
                    std::thread::sleep(4 * SPIN_TIME);
                }
            }
        }
    }

    #[test]
    fn a_panic_of_any_thread_is_the_callers_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let caller = std::thread::current().id();
        for from_caller in [true, false] {
            let begun = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|| {
                    begun.fetch_add(1, SeqCst);
                    // All three threads are inside before one of them panics.
                    while begun.load(SeqCst) < 3 {
                        std::thread::yield_now();
                    }
                    assert_ne!(std::thread::current().id() == caller, from_caller, "fails");
                });
            }));
            assert!(result.is_err());
            assert_eq!(count(&pool, 5), [1; 5]);
        }
    }

    #[test]
    fn a_job_within_a_job_is_the_callers_alone() {
        let pool = Pool::new(2);
        let inner = AtomicUsize::new(0);
        let outer = AtomicUsize::new(0);
        pool.run(&|| {
            outer.fetch_add(1, SeqCst);
            pool.run(&|| {
                inner.fetch_add(1, SeqCst);
            });
        });
        assert_eq!(inner.into_inner(), outer.into_inner());
    }
}
