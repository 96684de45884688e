//! A sequence: the tokens of one branch and how far the device has computed them.
//!
//! A branch is often forked with tokens that are not computed yet: the prompt, the last sampled
//! token, a PRM's step marker. They become a *stem*: a sequence of its own that all children wait
//! for, and whose blocks they adopt. So it is computed once.

use std::cell::RefCell;
use std::rc::Rc;

use kernels::philox;

use crate::kv::Table;

/// A sequence shared between its branch, the scheduler and the forks that wait for it.
pub(crate) type Shared = Rc<RefCell<Sequence>>;

/// The states of a sequence that a request is on. It goes from `Waiting` (or `WaitingForStem`, if
/// it is a fork) to `Prefilling` to `Decoding`; preemption takes it back to `Waiting`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Tokens it shares with its siblings are to be computed first, under a sequence of their own.
    WaitingForStem,
    /// Nothing of it is in the cache: it is new, or was preempted.
    Waiting,
    /// Several of its tokens are to be computed, in chunks.
    Prefilling,
    /// At most its last token is to be computed: one row a batch, scheduled first.
    Decoding,
}

/// Tokens, of which the first `table.len()` have their K and V in the cache.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Which of the engine's models.
    pub model: usize,
    /// Creation order of the tree's root, then of the sequence: smaller is older.
    pub age: (u64, u64),
    pub token_ids: Vec<u32>,
    pub table: Table,
    /// Stands for (seed, branch path) in sampling.
    pub key: u64,
    forks: u64,
    /// The tokens that this sequence and its siblings had in common, not yet computed, when they
    /// parted.
    pub stem: Option<Shared>,
    /// Whether a branch (and not only forks that wait for it) holds this sequence.
    pub is_branch: bool,
    /// Whether it has rows in the batch being built: it must not be preempted.
    pub in_batch: bool,
}

impl Sequence {
    /// An empty sequence.
    pub fn root(model: usize, age: (u64, u64), table: Table, key: u64) -> Sequence {
        Sequence {
            model,
            age,
            token_ids: Vec::new(),
            table,
            key,
            forks: 0,
            stem: None,
            is_branch: true,
            in_batch: false,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        if self.stem.is_some() {
            State::WaitingForStem
        } else if self.pending() <= 1 {
            State::Decoding
        } else if self.table.is_empty() {
            State::Waiting
        } else {
            State::Prefilling
        }
    }

    /// Tokens whose K and V are neither in the cache nor in flight.
    pub fn pending(&self) -> usize {
        self.token_ids.len().saturating_sub(self.table.len())
    }

    /// The key of the random numbers of the next child.
    pub fn next_key(&mut self) -> u64 {
        let key = philox::fork_key(self.key, self.forks);
        self.forks += 1;
        key
    }

    /// A child that shares everything. If tokens are pending, they become a stem both wait for;
    /// it is returned as the second value when it is new.
    pub fn child(
        &mut self,
        key: u64,
        age: (u64, u64),
        stem_age: (u64, u64),
    ) -> (Sequence, Option<Shared>) {
        let mut fresh = None;
        if self.pending() > 0 && !self.ends_at_stem() {
            let stem = Rc::new(RefCell::new(self.copy(stem_age, None)));
            self.stem = Some(Rc::clone(&stem));
            // Only the stem holds the blocks from here on: it writes on in its tail, which it could
            // not do while the sequences that wait for it shared that tail.
            self.table.clear();
            fresh = Some(stem);
        }
        (self.copy(age, Some(key)), fresh)
    }

    /// A sequence with the same tokens; without a key it is a stem.
    fn copy(&self, age: (u64, u64), key: Option<u64>) -> Sequence {
        Sequence {
            model: self.model,
            age,
            token_ids: self.token_ids.clone(),
            table: self.table.clone(),
            key: key.unwrap_or_default(),
            forks: 0,
            stem: self.stem.clone(),
            is_branch: key.is_some(),
            in_batch: false,
        }
    }

    /// Whether the stem has every token this sequence has.
    pub fn ends_at_stem(&self) -> bool {
        let tokens = self.token_ids.len();
        (self.stem.as_ref()).is_some_and(|stem| stem.borrow().token_ids.len() == tokens)
    }

    /// Takes over the stem's table if the stem is computed. Whether nothing is left to wait for.
    pub fn adopt_stem(&mut self) -> bool {
        let Some(stem) = &self.stem else { return true };
        let done = {
            let stem = stem.borrow();
            let done = stem.pending() == 0 && !stem.in_batch;
            if done && self.table.len() < stem.table.len() {
                self.table = stem.table.clone();
            }
            done
        };
        if done {
            self.stem = None;
        }
        done
    }

    /// If nothing is in its table, takes the longest cached prefix of its tokens, without the last
    /// and those from `first_wanted` on, whose outputs are to be computed. How many tokens are in
    /// the table then, and how many are not.
    pub fn reuse_cached(&mut self, first_wanted: Option<usize>) -> (usize, usize) {
        if self.table.is_empty() {
            let last = self.token_ids.len() - 1;
            let max_tokens = first_wanted.map_or(last, |first| first.min(last));
            self.table.reuse(&self.token_ids, max_tokens);
        }
        (self.table.len(), self.pending())
    }

    /// Puts the full blocks whose tokens are known, and whose computation is enqueued, into the
    /// prefix trie.
    pub fn remember(&mut self) {
        self.table.remember(&self.token_ids);
    }

    /// Gives the blocks back; everything is pending again.
    pub fn preempt(&mut self) {
        self.table.clear();
    }
}
