//! Exact normal forms: fractions of sums of products over the rationals.
//!
//! A product is a coefficient times powers of *atoms*. Primes (for radicals), i, π, e and
//! variables are atoms whose relations are all known (radicals of distinct primes are linearly
//! independent over the rationals; π, e and variables are treated as independent), so equal
//! values have equal cross products and different ones do not. Everything else, such as sin x or
//! a nested radical, is an *opaque* atom: equal when written alike, otherwise decided by
//! `numeric`.
//!
//! All work takes fuel. Without fuel there is no value, never a wrong one.

mod fraction;
mod function;
mod power;
mod sum;

pub(super) use fraction::Frac;
pub(super) use sum::{Atom, Kind, Sum};

use std::cell::Cell;

/// The work that one comparison may still do: a limit that, unlike a clock, makes results
/// repeatable.
pub(super) struct Fuel(Cell<u64>);

impl Fuel {
    /// Enough for any answer a person would write, a few milliseconds at most.
    pub(super) fn full() -> Fuel {
        Fuel(Cell::new(400_000))
    }

    /// Takes fuel for `work` elementary operations; `None` if there is not enough.
    pub(super) fn take(&self, work: u64) -> Option<()> {
        let left = self.0.get().checked_sub(work);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ())
    }
}
