//! What a search costs: the rows of both models' forward passes, counted as if the search ran alone.
//!
//! Every token of a branch is computed once, and what branches share is computed once for all of them
//! (SEMANTICS.md, "Cost"). So the count follows from the search tree, not from what else the engine
//! does: two runs of one search cost the same. Memory that is too small, so that sequences are computed
//! again, is not counted.

use std::ops::{AddAssign, SubAssign};

use engine::Work;
use serde::{Deserialize, Serialize};

/// Rows of the policy and of the PRM, and the tokens drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The policy's.
    pub policy: Work,
    /// The PRM's; nothing without one.
    pub prm: Work,
    /// Tokens that the policy drew: kept, dropped, duplicate and looked ahead.
    pub drawn: u64,
}

impl Cost {
    /// Whether no row was counted.
    pub fn is_nothing(&self) -> bool {
        *self == Cost::default()
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.policy += other.policy;
        self.prm += other.prm;
        self.drawn += other.drawn;
    }
}

impl SubAssign for Cost {
    fn sub_assign(&mut self, other: Cost) {
        self.policy -= other.policy;
        self.prm -= other.prm;
        self.drawn -= other.drawn;
    }
}
