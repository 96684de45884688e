//! The modelled L2: cache lines of four sectors, sixteen ways, LRU replacement, write-back.

const WAYS: usize = 16;

#[derive(Clone, Copy, Default)]
struct Way {
    /// Cache line number plus one; 0 is empty.
    tag: u64,
    valid: u8,
    dirty: u8,
    used: u64,
}

/// The effect of an access.
pub struct Seen {
    pub hit: bool,
    /// Dirty sectors evicted.
    pub written_back: u64,
}

/// A second-level cache.
pub struct L2 {
    sets: Vec<[Way; WAYS]>,
    time: u64,
}

impl L2 {
    pub fn new(bytes: u64) -> L2 {
        let sets = (bytes / 128 / WAYS as u64).max(1) as usize;
        L2 {
            sets: vec![[Way::default(); WAYS]; sets],
            time: 0,
        }
    }

    /// Empties the cache without writing dirty sectors back.
    pub fn clear(&mut self) {
        self.sets.fill([Way::default(); WAYS]);
    }

    /// Accesses a 32-byte sector.
    pub fn access(&mut self, sector: u64, write: bool) -> Seen {
        self.time += 1;
        let (cache_line, bit) = (sector / 4, 1u8 << (sector % 4));
        // Cache lines a power of two apart would share a set; a multiplicative hash spreads them,
        // as hardware does.
        let set = (cache_line.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24) as usize % self.sets.len();
        let ways = &mut self.sets[set];
        let mut written_back = 0;
        let way = match ways.iter().position(|w| w.tag == cache_line + 1) {
            Some(i) => &mut ways[i],
            None => {
                let oldest = ways.iter_mut().min_by_key(|w| w.used);
                let Some(w) = oldest else {
                    return Seen {
                        hit: false,
                        written_back: 0,
                    };
                };
                written_back = u64::from(w.dirty.count_ones());
                *w = Way {
                    tag: cache_line + 1,
                    ..Way::default()
                };
                w
            }
        };
        let hit = way.valid & bit != 0;
        way.valid |= bit;
        if write {
            way.dirty |= bit;
        }
        way.used = self.time;
        Seen { hit, written_back }
    }
}

#[cfg(test)]
mod tests {
    use super::L2;

    #[test]
    fn a_working_set_that_fits_is_read_once() {
        let mut l2 = L2::new(1 << 20);
        let misses = |l2: &mut L2| (0..8192u64).filter(|s| !l2.access(*s, false).hit).count();
        assert_eq!(misses(&mut l2), 8192);
        assert_eq!(misses(&mut l2), 0);
    }

    #[test]
    fn what_is_written_comes_back_out_once() {
        let mut l2 = L2::new(1 << 12);
        let mut out = 0;
        for s in 0..100_000 {
            out += l2.access(s, s < 1000).written_back;
        }
        assert_eq!(out, 1000);
    }
}
