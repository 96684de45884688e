//! Which jobs are in work: as many as fill a batch, in order of arrival.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use futures::channel::oneshot;

/// Rows that keep the device busy: jobs are admitted until their branches give about as many.
const WANTED_ROWS: usize = 384;
/// Jobs in work at once, however few rows they have.
const MAX_JOBS: usize = 64;

/// A queue in front of the engine. More jobs than fill a batch would only hold KV cache.
#[derive(Clone)]
pub(crate) struct Admission(Rc<RefCell<State>>);

struct State {
    /// Jobs in work at once; `None`: as many as give [`WANTED_ROWS`] rows.
    limit: Option<usize>,
    jobs: usize,
    rows: usize,
    waiting: VecDeque<(usize, oneshot::Sender<Permit>)>,
}

/// Leave to work, given back when dropped.
pub(crate) struct Permit {
    admission: Admission,
    rows: usize,
}

impl Admission {
    pub fn new(limit: Option<usize>) -> Admission {
        Admission(Rc::new(RefCell::new(State {
            limit,
            jobs: 0,
            rows: 0,
            waiting: VecDeque::new(),
        })))
    }

    /// Waits until a job of this many branches may begin. Dropping the future leaves the queue.
    pub async fn enter(&self, rows: usize) -> Option<Permit> {
        // Dropped last, after the receiver: who leaves the queue may make room for the next.
        let _leave = Leave(self);
        let (sender, permit) = oneshot::channel();
        self.0.borrow_mut().waiting.push_back((rows, sender));
        self.admit();
        permit.await.ok()
    }

    /// Admits the first of those who wait while there is room.
    fn admit(&self) {
        loop {
            let next = {
                let state = &mut *self.0.borrow_mut();
                match state.waiting.front() {
                    Some((rows, sender)) if sender.is_canceled() || state.has_room(*rows) => {
                        state.waiting.pop_front()
                    }
                    _ => None,
                }
            };
            let Some((rows, sender)) = next else { return };
            if sender.is_canceled() {
                continue;
            }
            {
                let state = &mut *self.0.borrow_mut();
                state.jobs += 1;
                state.rows = state.rows.saturating_add(rows);
            }
            let admission = self.clone();
            // A receiver that has gone gives the permit back by dropping it.
            drop(sender.send(Permit { admission, rows }));
        }
    }
}

/// Looks at the queue again when dropped.
struct Leave<'a>(&'a Admission);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.admit();
    }
}

impl State {
    fn has_room(&self, rows: usize) -> bool {
        match self.limit {
            Some(limit) => self.jobs < limit,
            None => {
                let fits = self.jobs < MAX_JOBS && self.rows.saturating_add(rows) <= WANTED_ROWS;
                fits || self.jobs == 0
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let state = &mut *self.admission.0.borrow_mut();
            state.jobs -= 1;
            state.rows = state.rows.saturating_sub(self.rows);
        }
        self.admission.admit();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Which of jobs of these rows are admitted at once, before any ends.
    fn admitted(limit: Option<usize>, rows: &[usize]) -> Vec<bool> {
        let admission = Admission::new(limit);
        let entered: Vec<_> = rows
            .iter()
            .map(|&rows| Box::pin(admission.enter(rows)).now_or_never().flatten())
            .collect();
        entered.iter().map(Option::is_some).collect()
    }

    #[test]
    fn jobs_are_admitted_until_a_batch_is_full() {
        for (limit, rows, expected) in [
            (None, &[1000][..], &[true][..]),
            (None, &[1000, 1], &[true, false]),
            (None, &[128, 128, 128, 1], &[true, true, true, false]),
            (Some(1), &[1, 1], &[true, false]),
            (Some(3), &[1000, 1000, 1000, 1], &[true, true, true, false]),
        ] {
            assert_eq!(admitted(limit, rows), expected, "{limit:?} {rows:?}");
        }
        assert_eq!(admitted(None, &[1; 70]).iter().filter(|&&a| a).count(), 64);
    }

    #[test]
    fn those_who_wait_come_in_order_and_may_leave() {
        let admission = Admission::new(Some(1));
        let first = admission.enter(1).now_or_never().flatten();
        assert!(first.is_some());
        let mut second = Box::pin(admission.enter(1));
        let mut third = Box::pin(admission.enter(1));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        drop(first);
        assert!(third.as_mut().now_or_never().flatten().is_some());
    }

    #[test]
    fn who_leaves_makes_room_for_the_next() {
        let admission = Admission::new(None);
        let _running = admission.enter(300).now_or_never().flatten().expect("room");
        let mut large = Box::pin(admission.enter(100));
        let mut small = Box::pin(admission.enter(10));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(
            small.as_mut().now_or_never().is_none(),
            "behind the large one"
        );
        drop(large);
        assert!(small.as_mut().now_or_never().flatten().is_some());
    }
}
