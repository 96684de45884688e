//! Threads that wait for a job and do it together.
//!
//! A step of a model is hundreds of short jobs with next to nothing between them. A thread that has slept comes
//! back after some 50 us (measured on a virtual machine with two Xeon cores, by a scratch program), longer than many a job takes; so threads look out for the
//! next job for [`PATIENCE`] before they sleep, and so does the caller for the last thread to end. That is all
//! that a shared machine loses by it; more threads than cores do not look out at all, as each would keep another from
//! its work. Nobody waits for a thread that has not begun: the caller does what is left of
//! a job and then shuts it, and who comes late finds it shut.
#![allow(unsafe_code)] // A job lives on the caller's stack; what keeps it alive is said where it is used.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread looks out before it sleeps: longer than what lies between two jobs of a step.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks between two readings of the clock.
const LOOKS: usize = 64;

/// Threads besides the caller's.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held by who has a job done.
    calling: Mutex<()>,
}

/// Bits of [`Shared::gate`]: threads that have begun and not ended, whether others may still begin, and above them
/// the job's number.
const BEGUN: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const NUMBER: u64 = 1 << 17;

struct Shared {
    gate: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// How long a thread looks out before it sleeps.
    patience: Duration,
    /// Threads asleep, or about to be.
    asleep: AtomicUsize,
    /// Whether all is over; what sleepers wait with.
    over: Mutex<bool>,
    wake: Condvar,
}

/// What is to be done, by as many threads as come.
#[derive(Clone)]
struct Job {
    /// Lives until nobody is in the gate.
    work: *const (dyn Fn() + Sync),
    /// The first panic of a thread.
    panic: *const Mutex<Option<Box<dyn Any + Send>>>,
    caller: Thread,
}

// SAFETY: `job` is written while the gate is shut and empty, and read by threads that are in it; what it points to
// may be used by several threads.
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
            patience: if threads < super::cores() {
                PATIENCE
            } else {
                Duration::ZERO
            },
            asleep: AtomicUsize::new(0),
            over: Mutex::new(false),
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

    /// Has the caller do `work`, and at the same time every thread that comes before the caller is through; returns
    /// when all have. If another job is under way, the caller does it alone.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub(super) fn together(&self, work: &(dyn Fn() + Sync)) {
        let _calling = match self.calling.try_lock() {
            Ok(calling) => calling,
            // A job that panicked is over.
            Err(TryLockError::Poisoned(calling)) => calling.into_inner(),
            Err(TryLockError::WouldBlock) => return work(),
        };
        let shared = &*self.shared;
        let panic = Mutex::new(None);
        // SAFETY: only the lifetime is changed. The job is forgotten before this function returns, by `shut`.
        let work_for_all: *const (dyn Fn() + Sync) = unsafe {
            std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync)>(work)
        };
        let job = Job {
            work: work_for_all,
            panic: &raw const panic,
            caller: std::thread::current(),
        };
        // SAFETY: the gate is shut and empty, as the last job's end left it, and this thread alone opens it.
        unsafe { *shared.job.get() = Some(job) };
        let number = shared.gate.load(SeqCst) / NUMBER + 1;
        shared.gate.store((number * NUMBER) | OPEN, SeqCst);
        if shared.asleep.load(SeqCst) > 0 {
            let _over = shared.over.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let mine = catch_unwind(AssertUnwindSafe(work));
        shared.shut();
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
            .over
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread's panics are those of its jobs, which were told.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits until nobody is in the gate, into which nobody may come any more, and forgets the job.
    fn shut(&self) {
        let mut gate = self.gate.fetch_and(!OPEN, SeqCst);
        let mut patience = Patience::new(self.patience);
        while gate & BEGUN > 0 {
            if !patience.look() {
                // The last one to leave knows this thread. It may also have left by now: then this returns at once.
                std::thread::park();
            }
            gate = self.gate.load(SeqCst);
        }
        // SAFETY: nobody is in the gate.
        unsafe { *self.job.get() = None };
    }

    /// Does jobs until all is over.
    fn serve(&self) {
        let mut last = 0;
        loop {
            let mut patience = Patience::new(self.patience);
            let number = loop {
                let gate = self.gate.load(SeqCst);
                if gate & OPEN > 0 && gate / NUMBER != last {
                    let entered = self.gate.compare_exchange(gate, gate + 1, SeqCst, SeqCst);
                    if entered.is_ok() {
                        break gate / NUMBER;
                    }
                } else if !patience.look() {
                    if !self.sleep(last) {
                        return;
                    }
                    patience = Patience::new(self.patience);
                }
            };
            last = number;
            // SAFETY: this thread is in the gate, so the caller waits for it.
            let job = unsafe { (*self.job.get()).clone() }.expect("an open gate has a job");
            // SAFETY: as above.
            let done = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.work)() }));
            if let Err(panic) = done {
                // SAFETY: as above.
                let first = unsafe { &*job.panic };
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(panic);
            }
            // After this the job may be gone, but not its caller's handle, which was cloned.
            let gate = self.gate.fetch_sub(1, SeqCst);
            if gate & OPEN == 0 && gate & BEGUN == 1 {
                job.caller.unpark();
            }
        }
    }

    /// Sleeps until there is a job after the last one, or all is over: then it is false.
    fn sleep(&self, last: u64) -> bool {
        self.asleep.fetch_add(1, SeqCst);
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // The caller opens the gate before it looks who is asleep.
            let gate = self.gate.load(SeqCst);
            if *over || gate & OPEN > 0 && gate / NUMBER != last {
                break;
            }
            over = self.wake.wait(over).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, SeqCst);
        !*over
    }
}

/// How long a thread still looks out.
struct Patience {
    whole: Duration,
    looks: usize,
    since: Option<Instant>,
}

impl Patience {
    fn new(whole: Duration) -> Patience {
        Patience {
            whole,
            looks: 0,
            since: None,
        }
    }

    /// Lets a moment pass; false if it was one too many.
    fn look(&mut self) -> bool {
        if self.whole.is_zero() {
            return false;
        }
        std::hint::spin_loop();
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS) {
            return true;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        since.elapsed() < self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job whose tasks each thread takes until there are none.
    fn count(pool: &Pool, tasks: usize) -> Vec<usize> {
        let next = AtomicUsize::new(0);
        let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        pool.together(&|| {
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
                    std::thread::sleep(4 * PATIENCE);
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
                pool.together(&|| {
                    begun.fetch_add(1, SeqCst);
                    // All three are here before one of them fails.
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
        pool.together(&|| {
            outer.fetch_add(1, SeqCst);
            pool.together(&|| {
                inner.fetch_add(1, SeqCst);
            });
        });
        assert_eq!(inner.into_inner(), outer.into_inner());
    }
}
