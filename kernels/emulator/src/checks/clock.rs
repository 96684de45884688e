//! Vector clocks: what a warp knows about the progress of all warps of its block.

/// Progress of all warps, as barriers and flags hand it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock([u32; 32]);

impl Clock {
    /// Knows of nothing.
    pub fn nothing() -> Clock {
        Clock([0; 32])
    }

    pub fn join(&mut self, other: &Clock) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }
}

/// The clock of one warp. Its own entry counts up with everything that orders.
#[derive(Clone, Debug)]
pub struct WarpClock {
    seen: Clock,
    warp: usize,
    /// The least of the other warps' entries.
    others: u32,
}

impl WarpClock {
    /// Warp `warp` of `warps` at the start of a block. All that was before `base` is past.
    pub fn new(warp: u32, warps: u32, base: u32) -> WarpClock {
        // Warps that do not exist touch nothing.
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

    /// Touches at or below it are in the past of this warp, whoever's they are.
    #[inline(always)]
    pub fn low(&self) -> u32 {
        self.others.min(self.own() - 1)
    }

    /// Whether what warp `warp` did at `time` is past.
    #[inline(always)]
    pub fn covers(&self, warp: u32, time: u32) -> bool {
        let seen = self.seen.0[warp as usize % 32];
        if warp as usize == self.warp {
            time < seen
        } else {
            time <= seen
        }
    }

    /// What this warp hands on.
    pub fn shared(&self) -> &Clock {
        &self.seen
    }

    /// Learns what others handed on.
    pub fn learn(&mut self, other: &Clock) {
        self.seen.join(other);
        self.settle();
    }

    /// What the warp does from here is later than what it has handed on.
    pub fn advance(&mut self) {
        self.seen.0[self.warp] += 1;
    }

    /// A barrier at which all of `warps` have waited: they know everything about one another, and go on at one time.
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
