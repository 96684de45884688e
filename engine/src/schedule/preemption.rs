//! Preemption: blocks for a sequence in need, taken from others.
//!
//! When evicting cached blocks does not free enough, other sequences are preempted: first those
//! younger than the one in need, youngest first, then idle branches (no request is on them or waits
//! for them now). A preempted sequence gives all its blocks back and is computed again when it is
//! next needed. The oldest request can thus take everything but its own blocks, so it always ends,
//! or the memory is too small for one branch, which is an error.

use std::collections::HashSet;
use std::rc::{Rc, Weak};

use super::Scheduler;
use super::batch::BatchDraft;
use super::request::Request;
use super::sequence::{Sequence, Shared};
use crate::Error;
use crate::kv::CopyOnWrite;

impl Scheduler {
    /// Makes room for one more token of `seq`, preempting others if it must. The copy to make
    /// first, if any; `None` if nobody is left to preempt.
    pub(super) fn grow(&mut self, seq: &Shared) -> Option<Option<CopyOnWrite>> {
        loop {
            if let Some((_, copy)) = seq.borrow_mut().table.push() {
                return Some(copy);
            }
            let victim = self.victim(seq)?;
            self.preempt(&mut victim.borrow_mut());
        }
    }

    fn preempt(&mut self, victim: &mut Sequence) {
        self.usage[victim.model].preemptions += 1;
        victim.preempt();
    }

    /// The sequence to preempt for `seq`: one that alone holds a block before one that shares them
    /// all, one that is younger than `seq` before one that is idle, the youngest of those.
    fn victim(&self, seq: &Shared) -> Option<Shared> {
        let (age, model) = (seq.borrow().age, seq.borrow().model);
        let place = &self.placements[model];
        let with_stems = |r: &Request| {
            std::iter::successors(Some(Rc::clone(&r.seq)), |s| s.borrow().stem.clone())
        };
        let busy: HashSet<_> = (self.requests.values())
            .flat_map(with_stems)
            .map(|s| Rc::as_ptr(&s))
            .collect();
        (self.sequences.iter().filter_map(Weak::upgrade))
            .filter(|s| !Rc::ptr_eq(s, seq))
            .filter_map(|s| {
                let rank = {
                    let v = s.borrow();
                    let (younger, idle) = (v.age > age, !busy.contains(&Rc::as_ptr(&s)));
                    let here = self.placements[v.model].same_memory(place);
                    let possible = !v.in_batch && !v.table.is_empty() && (younger || idle) && here;
                    possible.then(|| (v.table.frees_something(), younger, v.age))
                };
                Some((rank?, s))
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, s)| s)
    }

    /// Frees every memory whose requests have no row in this batch, and none in flight.
    pub(super) fn free_stuck_memories(&mut self, drafts: &[BatchDraft]) {
        let mut stuck: Vec<usize> = Vec::new();
        for request in self.requests.values() {
            let model = request.seq.borrow().model;
            let place = &self.placements[model];
            let here = |other: usize| self.placements[other].same_memory(place);
            let works = |other: usize| {
                let in_flight = self.in_flight.iter().any(|batch| batch.model == other);
                !drafts[other].is_empty() || in_flight
            };
            let found = stuck.iter().any(|&other| here(other));
            if !found && !(0..drafts.len()).any(|other| here(other) && works(other)) {
                stuck.push(model);
            }
        }
        for model in stuck {
            self.preempt_all_or_fail_oldest(model);
        }
    }

    /// For a memory (that of `model`) without rows in a batch although its requests wait. All its
    /// sequences are preempted, so that the oldest request begins anew without half-filled blocks; if none holds a block, or the request
    /// would not fit alone, it cannot be served and fails.
    fn preempt_all_or_fail_oldest(&mut self, model: usize) {
        let place = self.placements[model].clone();
        let here = |r: &Request| self.placements[r.seq.borrow().model].same_memory(&place);
        let oldest =
            (self.requests.iter().filter(|(_, r)| here(r))).min_by_key(|(_, r)| r.seq.borrow().age);
        let Some((&id, request)) = oldest else {
            return;
        };
        let (model, tokens) = {
            let seq = request.seq.borrow();
            (seq.model, seq.token_ids.len())
        };
        let needed = tokens.div_ceil(self.block_tokens);
        let pool = self.placements[model].pool;
        let blocks = place.memory.borrow().capacity(pool);
        let mut held = false;
        let sequences: Vec<Shared> = self.sequences.iter().filter_map(Weak::upgrade).collect();
        for seq in sequences {
            let mut seq = seq.borrow_mut();
            if !seq.table.is_empty() && self.placements[seq.model].same_memory(&place) {
                held = true;
                self.preempt(&mut seq);
            }
        }
        if needed > blocks || !held {
            let block_bytes = self.models[model].block_bytes;
            if let Some(request) = self.requests.remove(&id) {
                request.fail(Error::PoolTooSmall {
                    needed,
                    blocks,
                    block_bytes,
                });
            }
        }
    }
}
