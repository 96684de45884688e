//! A batch plan on the device: the addresses of its rows, and what every use of it relies on.
//!
//! A plan of a *decode batch*, of which every row is an output, has a fixed place for its number of
//! rows: the same addresses in every batch, so that a recorded pass ([`super::graph`]) can be
//! launched again over the plan that the host has written there since. Other plans lie in pooled
//! buffers.
//!
//! # Padding
//!
//! Decode batches are padded to one of [`BUCKETS`] rows, so that few recordings serve them all. A
//! padding row is token 0 at position 0, writes no K and V, belongs to no run and is not an output.
//! Attention has no work for it, so its row of attention's output holds values of an earlier batch;
//! linear layers, norms and the head compute it like any other row. No operation sums over rows, so
//! its values reach no other row; and no bucket crosses a number of rows at which linear layers
//! choose another kernel, so the other rows have the bits they have without padding.
//!
//! Batches with prefill rows are padded to a multiple of [`PREFILL_ROWS`] where cuBLASLt computes
//! linear layers: the library chooses a kernel for every number of rows it sees, and chunks of a
//! prefill have any number. Such padding rows are no outputs.

use super::attention_work::{DeviceWork, Region};
use super::device::Card;
use super::items::AttentionShape;
use super::memory::Buffer;
use crate::Error;
use crate::plan::BatchPlan;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Rows of decode batches.
const BUCKETS: [usize; 17] = [
    1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512,
];
/// Rows of the largest decode batch that has a fixed place.
const MAX_ROWS: usize = BUCKETS[BUCKETS.len() - 1];

/// Batches with prefill rows are padded to multiples of this many rows, which is what the tiles of the
/// library's kernels divide.
const PREFILL_ROWS: usize = 64;

/// Whether a batch only decodes, in so few rows that launches dominate its time: such a batch is
/// recorded.
pub fn decodes(plan: &BatchPlan) -> bool {
    plan.outputs.len() == plan.rows.len() && (1..=MAX_ROWS).contains(&plan.rows.len())
}

/// The number of rows to pad a batch to; `library`: whether cuBLASLt computes linear layers of so
/// many rows.
pub fn padded_rows(plan: &BatchPlan, library: bool) -> usize {
    let rows = plan.rows.len();
    let bucket = BUCKETS.into_iter().find(|&bucket| bucket >= rows);
    match bucket.filter(|_| decodes(plan)) {
        Some(bucket) => bucket,
        None if library => rows.next_multiple_of(PREFILL_ROWS),
        None => rows,
    }
}

/// A plan on the device. The attention's work is built at its first use, for each shape it is used
/// with.
pub struct Plan {
    pub(super) step: BatchPlan,
    location: Location,
    pub(super) work: RefCell<Vec<(AttentionShape, Rc<DeviceWork>)>>,
    pub(super) needs: RefCell<Needs>,
    /// Token ids that the device puts into rows are below this.
    pub(super) fed_below: usize,
}

enum Location {
    Pooled(Pooled),
    Place(Rc<Place>),
}

/// The place of plans of one number of rows. Batches of all models use it one after the other: the
/// copy of the next plan is enqueued behind the kernels of this one.
pub(super) struct Place {
    buffer: Buffer,
    /// The attention's work, by shape.
    pub regions: RefCell<Vec<(AttentionShape, Rc<Region>)>>,
}

/// The places, by number of rows.
#[derive(Default)]
pub(super) struct Places(HashMap<usize, Rc<Place>>);

/// The bounds that the operations of a pass rely on, checked again before a recorded pass is
/// launched.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Needs {
    /// Tokens are below each of these.
    pub tokens: Vec<usize>,
    /// Positions are below each of these.
    pub positions: Vec<usize>,
    /// Blocks are below each of these.
    pub blocks: Vec<usize>,
    /// The attention's shapes.
    pub attention: Vec<AttentionShape>,
}

impl Needs {
    /// Adds `one` unless it is there.
    pub fn add<T: PartialEq>(all: &mut Vec<T>, one: T) {
        if !all.contains(&one) {
            all.push(one);
        }
    }

    /// Panics if a plan exceeds a bound: its kernels would read or write out of bounds.
    pub fn check(&self, plan: &Plan) {
        for &limit in &self.tokens {
            let fed_below = plan.fed_below;
            assert!(fed_below <= limit, "tokens of {fed_below} for {limit}");
        }
        let plan = &plan.step;
        for row in &plan.rows {
            let (token, position) = (row.token_id as usize, row.position as usize);
            for &limit in &self.tokens {
                assert!(token < limit, "token {token} of a vocabulary of {limit}");
            }
            for &limit in &self.positions {
                assert!(position < limit, "position {position} has no angle");
            }
        }
        let written = plan.rows.iter().filter_map(|row| Some(row.slot?.block));
        for block in plan.blocks.iter().copied().chain(written) {
            for &limit in &self.blocks {
                assert!((block.0 as usize) < limit, "block {block:?}");
            }
        }
    }
}

impl Plan {
    /// Uploads a plan: `{token, position, block, offset}` per row, then the outputs.
    pub(super) fn upload(
        card: &Rc<Card>,
        pool: &Pool,
        places: &mut Places,
        plan: &BatchPlan,
    ) -> Result<Plan, Error> {
        let mut words = Vec::with_capacity(plan.rows.len() * 4 + plan.outputs.len());
        for row in &plan.rows {
            let (block, offset) = row
                .slot
                .map_or((u32::MAX, 0), |slot| (slot.block.0, slot.offset));
            words.extend([row.token_id, row.position, block, offset]);
        }
        words.extend(&plan.outputs);
        let place = if decodes(plan) {
            places.of(card, plan.rows.len())?
        } else {
            None
        };
        let location = match place {
            Some(place) => {
                place.buffer.upload(&words)?;
                Location::Place(place)
            }
            None => Location::Pooled(pool.upload(card, &words)?),
        };
        Ok(Plan {
            step: plan.clone(),
            location,
            work: RefCell::default(),
            needs: RefCell::default(),
            fed_below: 0,
        })
    }

    /// The address of the rows.
    pub(super) fn at(&self) -> u64 {
        match &self.location {
            Location::Pooled(pooled) => pooled.at(),
            Location::Place(place) => place.buffer.at(),
        }
    }

    /// Its fixed place, if it has one.
    pub(super) fn place(&self) -> Option<&Rc<Place>> {
        match &self.location {
            Location::Pooled(_) => None,
            Location::Place(place) => Some(place),
        }
    }
}

impl Places {
    /// The place of plans of `rows` rows, unless another plan is there.
    fn of(&mut self, card: &Rc<Card>, rows: usize) -> Result<Option<Rc<Place>>, Error> {
        let place = match self.0.get(&rows) {
            Some(place) => place,
            None => {
                let place = Rc::new(Place {
                    buffer: Buffer::new(card, rows * 5 * 4, "a batch plan")?,
                    regions: RefCell::default(),
                });
                self.0.entry(rows).or_insert(place)
            }
        };
        Ok((Rc::strong_count(place) == 1).then(|| Rc::clone(place)))
    }
}

/// Buffers for reuse.
#[derive(Clone, Default)]
pub(super) struct Pool(Rc<RefCell<Vec<Buffer>>>);

/// A buffer that returns to its pool. Its next user enqueues behind its last one.
pub(super) struct Pooled {
    buffer: Option<Buffer>,
    pool: Pool,
}

impl Pool {
    /// A buffer of at least that many bytes, with unspecified content.
    pub fn take(&self, card: &Rc<Card>, bytes: usize) -> Result<Pooled, Error> {
        let fitting = self.0.borrow().iter().position(|b| b.bytes() >= bytes);
        let buffer = match fitting {
            Some(index) => self.0.borrow_mut().swap_remove(index),
            None => Buffer::new(card, bytes.next_power_of_two().max(4096), "a batch plan")?,
        };
        Ok(Pooled {
            buffer: Some(buffer),
            pool: self.clone(),
        })
    }

    /// A buffer that holds `words`.
    pub fn upload(&self, card: &Rc<Card>, words: &[u32]) -> Result<Pooled, Error> {
        let taken = self.take(card, std::mem::size_of_val(words))?;
        taken.get().upload(words)?;
        Ok(taken)
    }
}

impl Pooled {
    pub fn get(&self) -> &Buffer {
        self.buffer.as_ref().expect("only its drop takes it")
    }

    pub fn at(&self) -> u64 {
        self.get().at()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.0.borrow_mut().extend(self.buffer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Row;

    #[test]
    fn steps_that_decode_are_padded() {
        for (rows, outputs, padded) in [
            (0, 0, 0),
            (1, 1, 1),
            (5, 5, 6),
            (5, 4, 5),
            (64, 64, 64),
            (65, 65, 96),
            (256, 256, 256),
            (257, 257, 384),
            (512, 512, 512),
            (513, 513, 513),
        ] {
            let row = Row {
                token_id: 1,
                position: 3,
                slot: None,
            };
            let plan = BatchPlan {
                rows: vec![row; rows],
                outputs: (0..outputs as u32).collect(),
                ..BatchPlan::default()
            };
            let found = padded_rows(&plan, false);
            assert_eq!(found, padded, "{rows} rows, {outputs} outputs");
            let plan = plan.padded(padded);
            assert_eq!(plan.rows.len(), padded);
            assert_eq!(plan.outputs.len(), outputs + padded - rows);
        }
    }

    #[test]
    fn rows_of_a_prefill_are_padded_for_the_library() {
        for (rows, padded) in [(70, 128), (128, 128), (2000, 2048)] {
            let row = Row {
                token_id: 1,
                position: 3,
                slot: None,
            };
            let plan = BatchPlan {
                rows: vec![row; rows],
                outputs: vec![rows as u32 - 1],
                ..BatchPlan::default()
            };
            assert_eq!(padded_rows(&plan, false), rows);
            assert_eq!(padded_rows(&plan, true), padded);
            assert_eq!(plan.padded(padded).outputs, plan.outputs);
        }
    }
}
