//! A step's plan on the device: where its rows lie, and what every use of it relies on.
//!
//! A plan of a *decoding* step, of which every row is an output, has a fixed place for its number of
//! rows: the same addresses in every step, so that a recorded pass ([`super::graph`]) can be launched
//! again over whatever the host has put there since. Other plans lie in pooled buffers.
//!
//! # Padding
//!
//! Decoding steps are padded to one of [`BUCKETS`] rows, so that few recordings serve them all. A
//! padding row is token 0 at position 0, writes no K and V, belongs to no run and is nobody's output.
//! Attention has no work for it, so its share of attention's output is what an earlier step left
//! there; products, norms and the head compute it row by row like any other. Nothing ever adds up
//! over rows, so what it holds reaches no other row; and the buckets do not cross the numbers of rows
//! at which products choose another kernel, so the other rows' bits are those without it.

use super::attention::{Region, Work};
use super::device::Card;
use super::items::Shape;
use super::memory::Buffer;
use crate::Error;
use crate::plan::StepPlan;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Rows of decoding steps.
const BUCKETS: [usize; 15] = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];
/// The most rows of a decoding step that has a fixed place.
const MOST_ROWS: usize = BUCKETS[BUCKETS.len() - 1];

/// Whether a step decodes and nothing else, in few rows enough for launching to be what it costs.
fn decodes(plan: &StepPlan) -> bool {
    plan.outputs.len() == plan.rows.len() && (1..=MOST_ROWS).contains(&plan.rows.len())
}

/// The rows a step is to be padded to.
pub(super) fn padded_rows(plan: &StepPlan) -> usize {
    let rows = plan.rows.len();
    let bucket = BUCKETS.into_iter().find(|&bucket| bucket >= rows);
    bucket.filter(|_| decodes(plan)).unwrap_or(rows)
}

/// A plan on the device. The attention's work is made at its first use, for every shape it is used
/// with.
pub struct Plan {
    pub(super) step: StepPlan,
    at: At,
    pub(super) work: RefCell<Vec<(Shape, Rc<Work>)>>,
    pub(super) needs: RefCell<Needs>,
    /// Tokens that the device puts into rows are below this.
    pub(super) fed_below: usize,
}

enum At {
    Pooled(Pooled),
    Place(Rc<Place>),
}

/// The place of plans of one number of rows. Used by one step after the other, whatever its model:
/// what is written for the next is written behind this one's kernels.
pub(super) struct Place {
    buffer: Buffer,
    /// Of the attention's work.
    pub regions: RefCell<Vec<(Shape, Rc<Region>)>>,
}

/// The places, by number of rows.
#[derive(Default)]
pub(super) struct Places(HashMap<usize, Rc<Place>>);

/// What the operations of a pass have relied on, to be checked again before it is launched again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Needs {
    /// Tokens are below each of these.
    pub tokens: Vec<usize>,
    /// Positions are below each of these.
    pub positions: Vec<usize>,
    /// Blocks are below each of these.
    pub blocks: Vec<usize>,
    /// The attention's shapes, with their head dimensions.
    pub attention: Vec<(Shape, usize)>,
}

impl Needs {
    /// Adds one that is not there.
    pub fn add<T: PartialEq>(all: &mut Vec<T>, one: T) {
        if !all.contains(&one) {
            all.push(one);
        }
    }

    /// Panics if a plan does not have what they say: its kernels would read or write elsewhere.
    pub fn check(&self, plan: &Plan) {
        for &limit in &self.tokens {
            let fed_below = plan.fed_below;
            assert!(fed_below <= limit, "tokens of {fed_below} for {limit}");
        }
        let plan = &plan.step;
        for row in &plan.rows {
            let (token, position) = (row.token as usize, row.position as usize);
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
        plan: &StepPlan,
    ) -> Result<Plan, Error> {
        let mut words = Vec::with_capacity(plan.rows.len() * 4 + plan.outputs.len());
        for row in &plan.rows {
            let (block, offset) = row
                .slot
                .map_or((u32::MAX, 0), |slot| (slot.block.0, slot.offset));
            words.extend([row.token, row.position, block, offset]);
        }
        words.extend(&plan.outputs);
        let at = match decodes(plan) {
            true => places.of(card, plan.rows.len())?,
            false => None,
        };
        let at = match at {
            Some(place) => {
                place.buffer.upload(&words)?;
                At::Place(place)
            }
            None => At::Pooled(pool.upload(card, &words)?),
        };
        Ok(Plan {
            step: plan.clone(),
            at,
            work: RefCell::default(),
            needs: RefCell::default(),
            fed_below: 0,
        })
    }

    /// The address of the rows.
    pub(super) fn at(&self) -> u64 {
        match &self.at {
            At::Pooled(pooled) => pooled.at(),
            At::Place(place) => place.buffer.at(),
        }
    }

    /// Its fixed place, if it has one.
    pub(super) fn place(&self) -> Option<&Rc<Place>> {
        match &self.at {
            At::Pooled(_) => None,
            At::Place(place) => Some(place),
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
                    buffer: Buffer::new(card, rows * 5 * 4, "a step's plan")?,
                    regions: RefCell::default(),
                });
                self.0.entry(rows).or_insert(place)
            }
        };
        Ok((Rc::strong_count(place) == 1).then(|| Rc::clone(place)))
    }
}

/// Buffers to be used again.
#[derive(Clone, Default)]
pub(super) struct Pool(Rc<RefCell<Vec<Buffer>>>);

/// A buffer that returns to its pool. Whoever takes it next enqueues behind whoever had it.
pub(super) struct Pooled {
    buffer: Option<Buffer>,
    pool: Pool,
}

impl Pool {
    /// A buffer of at least that many bytes, which holds anything.
    pub fn take(&self, card: &Rc<Card>, bytes: usize) -> Result<Pooled, Error> {
        let fitting = self.0.borrow().iter().position(|b| b.bytes() >= bytes);
        let buffer = match fitting {
            Some(index) => self.0.borrow_mut().swap_remove(index),
            None => Buffer::new(card, bytes.next_power_of_two().max(4096), "a step's plan")?,
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
            (257, 257, 257),
        ] {
            let row = Row {
                token: 1,
                position: 3,
                slot: None,
            };
            let plan = StepPlan {
                rows: vec![row; rows],
                outputs: (0..outputs as u32).collect(),
                ..StepPlan::default()
            };
            assert_eq!(padded_rows(&plan), padded, "{rows} rows, {outputs} outputs");
            let plan = plan.padded(padded);
            assert_eq!(plan.rows.len(), padded);
            assert_eq!(plan.outputs.len(), outputs + padded - rows);
        }
    }
}
