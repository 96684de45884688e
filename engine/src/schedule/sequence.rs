//! A sequence: the tokens of one branch and how far the device has computed them.

use std::cell::RefCell;
use std::rc::Rc;

use kernels::philox;

use crate::kv::Table;

/// A sequence shared between its branch, the scheduler and the forks that wait for it.
pub(crate) type Shared = Rc<RefCell<Sequence>>;

/// Tokens, of which the first `table.len()` have their K and V in the cache.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Which of the engine's models.
    pub model: usize,
    /// Creation order of the tree's root, then of the sequence: smaller is older.
    pub age: (u64, u64),
    pub tokens: Vec<u32>,
    pub table: Table,
    /// Stands for (seed, branch path) in sampling.
    pub key: u64,
    forks: u64,
    /// What this sequence and its siblings had in common, not yet computed, when they parted.
    /// It is computed once, under its own name, and its table adopted.
    pub stem: Option<Shared>,
    /// Whether a branch (and not only forks that wait for it) holds this sequence.
    pub is_branch: bool,
    /// Part of the step being built: its blocks are not to be taken away.
    pub in_step: bool,
}

impl Sequence {
    /// An empty sequence.
    pub fn root(model: usize, age: (u64, u64), table: Table, key: u64) -> Sequence {
        Sequence {
            model,
            age,
            tokens: Vec::new(),
            table,
            key,
            forks: 0,
            stem: None,
            is_branch: true,
            in_step: false,
        }
    }

    /// Tokens whose K and V are not in the cache, nor on their way there.
    pub fn pending(&self) -> usize {
        self.tokens.len().saturating_sub(self.table.len())
    }

    /// A child that shares everything. If tokens are pending, they become a stem both wait for;
    /// it is returned as the second value when it is new.
    pub fn fork(&mut self, age: (u64, u64), stem_age: (u64, u64)) -> (Sequence, Option<Shared>) {
        let key = philox::fork_key(self.key, self.forks);
        self.forks += 1;
        let mut fresh = None;
        if self.pending() > 0 && !self.ends_at_stem() {
            let stem = Rc::new(RefCell::new(self.copy(stem_age, None)));
            self.stem = Some(Rc::clone(&stem));
            // The stem alone holds the blocks from here on: it is to write on in its tail, which
            // it could not if those who wait for it shared that.
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
            tokens: self.tokens.clone(),
            table: self.table.clone(),
            key: key.unwrap_or_default(),
            forks: 0,
            stem: self.stem.clone(),
            is_branch: key.is_some(),
            in_step: false,
        }
    }

    /// Whether the stem has every token this sequence has.
    pub fn ends_at_stem(&self) -> bool {
        self.stem
            .as_ref()
            .is_some_and(|s| s.borrow().tokens.len() == self.tokens.len())
    }

    /// Takes over the stem's table if the stem is computed. Whether nothing is left to wait for.
    pub fn adopt_stem(&mut self) -> bool {
        let Some(stem) = &self.stem else { return true };
        let done = {
            let stem = stem.borrow();
            let done = stem.pending() == 0 && !stem.in_step;
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

    /// Makes the full blocks whose tokens are known, and whose computation is enqueued, known for
    /// reuse.
    pub fn remember(&mut self) {
        self.table.remember(&self.tokens);
    }

    /// Gives the blocks back; everything is pending again.
    pub fn preempt(&mut self) {
        self.table.clear();
    }
}
