//! Vector clocks: for each warp, the progress of all warps of its block that happened before it.

/// The progress of all warps that a barrier or flag passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock([u32; 32]);

impl Clock {
    /// No progress of any warp.
    pub fn nothing() -> Clock {
        Clock([0; 32])
    }

    pub fn join(&mut self, other: &Clock) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }
}

/// The clock of one warp. Its own entry counts its ordering operations.
#[derive(Clone, Debug)]
pub struct WarpClock {
    seen: Clock,
    warp: usize,
    /// The smallest of the other warps' entries.
    others: u32,
}

impl WarpClock {
    /// Warp `warp` of `warps` at the start of a block. Everything up to `base` is in the past.
    pub fn new(warp: u32, warps: u32, base: u32) -> WarpClock {
        // Warps that do not exist access nothing.
        let mut seen = Clock([u32::MAX; 32]);
        seen.0[..warps.min(32) as usize].fill(base);
        let mut c = WarpClock {
            seen,
            warp: warp as usize % 32,
            others: base,
        };
        c.seen.0[c.warp] = base + 1;
        c.settle();
        c
    }

    fn settle(&mut self) {
        let mut others = self.seen.0;
        others[self.warp] = u32::MAX;
        let mut least = u32::MAX;
        for time in others {
            least = least.min(time);
        }
        self.others = least;
    }

    /// The warp's own time.
    #[inline(always)]
    pub fn own(&self) -> u32 {
        self.seen.0[self.warp]
    }

    /// Accesses at or below it are in the past of this warp, by whichever warp.
    #[inline(always)]
    pub fn low(&self) -> u32 {
        self.others.min(self.own() - 1)
    }

    /// Whether an access of warp `warp` at `time` is in the past.
    #[inline(always)]
    pub fn covers(&self, warp: u32, time: u32) -> bool {
        let seen = self.seen.0[warp as usize % 32];
        if warp as usize == self.warp {
            time < seen
        } else {
            time <= seen
        }
    }

    /// The clock that this warp passes on.
    pub fn shared(&self) -> &Clock {
        &self.seen
    }

    /// Joins a clock that another warp passed on.
    pub fn learn(&mut self, other: &Clock) {
        self.seen.join(other);
        self.settle();
    }

    /// Later accesses are not covered by the clock passed on so far.
    pub fn advance(&mut self) {
        self.seen.0[self.warp] += 1;
    }

    /// A barrier at which all of `warps` have waited: each joins the clocks of all, and they go on
    /// at one time.
    pub fn leave_barrier(&mut self, joined: &Clock, warps: impl Iterator<Item = u32> + Clone) {
        self.seen.join(joined);
        let now = warps.clone().map(|w| joined.0[w as usize]).max();
        for w in warps {
            self.seen.0[w as usize] = now.unwrap_or(0);
        }
        self.settle();
        self.advance();
    }
}
