//! Races between the blocks of one launch in global memory.
//!
//! Four bytes share one record: the launch, the block that wrote last and which of the bytes, the
//! block that read. Two blocks conflict unless they can be ordered: the earlier one has executed a
//! fence since its write, and the later one has executed an atomic or a strong load. Records of
//! other launches are ignored.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What can order a block's access after those of other blocks.
#[derive(Clone, Copy)]
pub struct Order {
    /// Launch number, 1 to 1023.
    pub epoch: u64,
    /// Linear index of the block.
    pub block: u64,
    /// Fences the block has executed.
    pub fences: u64,
    /// The block has read by an atomic or a strong load.
    pub acquired: bool,
}

const IDS: u64 = (1 << 20) - 1;
const MANY: u64 = IDS;

// epoch 10 | writer 20 | fences at the write 6 | reader 20 | bytes written 4 | bytes read 4
struct Record {
    writer: u64,
    fences: u64,
    reader: u64,
    wrote: u64,
    read: u64,
}

fn unpack(word: u64, epoch: u64) -> Record {
    if word >> 54 != epoch {
        return Record {
            writer: 0,
            fences: 0,
            reader: 0,
            wrote: 0,
            read: 0,
        };
    }
    Record {
        writer: word >> 34 & IDS,
        fences: word >> 28 & 63,
        reader: word >> 8 & IDS,
        wrote: word >> 4 & 15,
        read: word & 15,
    }
}

fn pack(epoch: u64, r: &Record) -> u64 {
    epoch << 54 | r.writer << 34 | r.fences << 28 | r.reader << 8 | r.wrote << 4 | r.read
}

/// Block number as stored: 1 to 2^20 - 2. Grids beyond that share numbers, which can only hide a
/// race.
fn id(block: u64) -> u64 {
    block % (IDS - 1) + 1
}

/// Records of a cell whose bytes this block, or several, have all read and no block has written.
pub fn read_before(me: Order) -> [u64; 2] {
    [id(me.block), MANY].map(|reader| {
        pack(
            me.epoch,
            &Record {
                writer: 0,
                fences: 0,
                reader,
                wrote: 0,
                read: 15,
            },
        )
    })
}

/// Notes a read of `bytes` (a mask of four); returns the writer it races with.
#[inline]
pub fn race_read(
    cell: &AtomicU64,
    bytes: u64,
    me: Order,
    fences_of: impl Fn(u64) -> u64,
) -> Option<u64> {
    let mine = id(me.block);
    note(cell, me.epoch, |r| {
        let foreign = r.writer != 0 && r.writer != mine && r.wrote & bytes != 0;
        if foreign && !(me.acquired && fences_of(r.writer - 1) & 63 != r.fences) {
            return Some(r.writer - 1);
        }
        if r.reader != mine {
            r.reader = if r.reader == 0 { mine } else { MANY };
        }
        r.read |= bytes;
        None
    })
}

/// Notes a write; returns the other block it races with and whether that one wrote.
#[inline]
pub fn race_write(
    cell: &AtomicU64,
    bytes: u64,
    me: Order,
    fences_of: impl Fn(u64) -> u64,
) -> Option<(Option<u64>, bool)> {
    let mine = id(me.block);
    note(cell, me.epoch, |r| {
        if r.writer != 0
            && r.writer != mine
            && r.wrote & bytes != 0
            && !(me.acquired && fences_of(r.writer - 1) & 63 != r.fences)
        {
            return Some((Some(r.writer - 1), true));
        }
        if r.reader != 0 && r.reader != mine && r.read & bytes != 0 && !me.acquired {
            return Some(((r.reader != MANY).then(|| r.reader - 1), false));
        }
        r.wrote = if r.writer == mine {
            r.wrote | bytes
        } else {
            bytes
        };
        r.writer = mine;
        r.fences = me.fences & 63;
        None
    })
}

/// Changes a cell's record unless `change` finds a race. Blocks run in parallel: if another block
/// has changed the cell meanwhile, `change` runs again on the new record, otherwise each would miss
/// the other's access.
#[inline]
fn note<T>(cell: &AtomicU64, epoch: u64, change: impl Fn(&mut Record) -> Option<T>) -> Option<T> {
    let mut word = cell.load(Relaxed);
    loop {
        let mut record = unpack(word, epoch);
        let wrong = change(&mut record);
        let new = pack(epoch, &record);
        if wrong.is_some() || new == word {
            return wrong;
        }
        match cell.compare_exchange_weak(word, new, Relaxed, Relaxed) {
            Ok(_) => return None,
            Err(now) => word = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(block: u64, fences: u64, acquired: bool) -> Order {
        Order {
            epoch: 3,
            block,
            fences,
            acquired,
        }
    }

    #[test]
    fn two_blocks_conflict_unless_ordered() {
        let cell = AtomicU64::new(0);
        assert_eq!(race_write(&cell, 15, order(0, 0, false), |_| 0), None);
        assert_eq!(race_read(&cell, 15, order(0, 0, false), |_| 0), None);
        assert_eq!(race_read(&cell, 15, order(1, 0, false), |_| 0), Some(0));
        assert_eq!(
            race_read(&cell, 15, order(1, 0, true), |_| 0),
            Some(0),
            "the writer has not fenced"
        );
        assert_eq!(
            race_read(&cell, 15, order(1, 0, true), |_| 1),
            None,
            "fence and acquire order them"
        );
        assert_eq!(
            race_write(&cell, 15, order(2, 0, false), |_| 0),
            Some((Some(0), true))
        );
    }

    #[test]
    fn neighbouring_bytes_do_not_conflict() {
        let cell = AtomicU64::new(0);
        assert_eq!(race_write(&cell, 3, order(0, 0, false), |_| 0), None);
        assert_eq!(race_write(&cell, 12, order(1, 0, false), |_| 0), None);
        assert_eq!(
            race_write(&cell, 4, order(2, 0, false), |_| 0),
            Some((Some(1), true))
        );
    }

    #[test]
    fn another_launch_starts_afresh() {
        let cell = AtomicU64::new(0);
        assert_eq!(race_write(&cell, 15, order(0, 0, false), |_| 0), None);
        let later = Order {
            epoch: 4,
            ..order(1, 0, false)
        };
        assert_eq!(race_write(&cell, 15, later, |_| 0), None);
    }

    #[test]
    fn one_of_two_parallel_blocks_is_reported() {
        let start = std::sync::Barrier::new(2);
        let cells: Vec<AtomicU64> = (0..20_000).map(|_| AtomicU64::new(0)).collect();
        let (write, read) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                start.wait();
                let races = |cell| race_write(cell, 15, order(0, 0, false), |_| 0).is_some();
                cells.iter().map(races).collect::<Vec<_>>()
            });
            start.wait();
            let races = |cell| race_read(cell, 15, order(1, 0, false), |_| 0).is_some();
            let read: Vec<bool> = cells.iter().map(races).collect();
            (writer.join().expect("it ends"), read)
        });
        assert!(write.iter().zip(&read).all(|(write, read)| write ^ read));
    }

    #[test]
    fn a_write_after_another_blocks_read_conflicts() {
        let cell = AtomicU64::new(0);
        assert_eq!(race_read(&cell, 15, order(0, 0, false), |_| 0), None);
        assert_eq!(
            race_write(&cell, 15, order(1, 0, false), |_| 0),
            Some((Some(0), false))
        );
    }
}
