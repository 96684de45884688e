//! Races inside a block: which threads accessed which shared word, and what orders the accesses.
//!
//! Every warp carries a vector clock. A barrier joins the clocks of the warps that meet there,
//! `bar.warp.sync` advances a warp's own. An access is recorded with the clock of its warp; a later
//! access by another thread conflicts if its warp's clock does not cover the record. Threads of one
//! warp are ordered by the warp's own syncs only. Strong accesses (atomic, volatile, relaxed,
//! acquire, release) never conflict with one another and pass the clock on through the word: that
//! is how flags and locks order threads.

use super::clock::{Clock, WarpClock};
use std::collections::HashMap;

/// How an instruction accesses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    Read,
    Write,
    /// A load or store that orders: volatile, relaxed, acquire, release.
    StrongRead,
    StrongWrite,
    Atomic,
}

impl Touch {
    pub fn writes(self) -> bool {
        matches!(self, Touch::Write | Touch::StrongWrite | Touch::Atomic)
    }

    pub fn reads(self) -> bool {
        matches!(self, Touch::Read | Touch::StrongRead | Touch::Atomic)
    }

    pub fn strong(self) -> bool {
        matches!(self, Touch::StrongRead | Touch::StrongWrite | Touch::Atomic)
    }
}

/// Why an access is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Bytes that were never written.
    Unwritten,
    /// Bytes that an asynchronous copy has not landed in yet.
    Pending,
    /// The thread that wrote before.
    AfterWrite(u32),
    /// The thread that read before (or the warp, when several of its lanes did).
    AfterRead { warp: u32, lane: Option<u32> },
}

/// The last write of a word and the state of its bytes: clock 22 | instance 19 | strong 1 | bytes
/// written then 4 | thread 10 | bytes ever written 4 | bytes with an asynchronous copy under way 4.
#[derive(Clone, Copy, Default)]
struct Writer(u64);

impl Writer {
    #[inline(always)]
    fn new(clock: u32, instance: u32, strong: bool, bytes: u8, thread: u32) -> Writer {
        Writer(
            u64::from(clock) << 42
                | u64::from(instance & INSTANCES) << 23
                | u64::from(strong) << 22
                | u64::from(bytes) << 18
                | u64::from(thread) << 8,
        )
    }
    #[inline(always)]
    fn with_state(self, state: u8) -> Writer {
        Writer(self.0 & !0xff | u64::from(state))
    }
    #[inline(always)]
    fn clock(self) -> u32 {
        (self.0 >> 42) as u32
    }
    /// Which execution of an instruction wrote: its lanes may write one word if they write one
    /// value.
    fn instance(self) -> u32 {
        (self.0 >> 23) as u32 & INSTANCES
    }
    fn strong(self) -> bool {
        self.0 >> 22 & 1 == 1
    }
    fn bytes(self) -> u8 {
        (self.0 >> 18) as u8 & 15
    }
    fn thread(self) -> u32 {
        (self.0 >> 8) as u32 & 1023
    }
    /// High nibble: bytes ever written. Low nibble: bytes with a copy under way.
    #[inline(always)]
    fn state(self) -> u8 {
        self.0 as u8
    }
}

const INSTANCES: u32 = (1 << 19) - 1;
/// A word that was written and has no copy under way.
const WHOLE: u8 = 0xf0;

/// The last read of a word by one warp: clock 22 | lane 6 (32: several) | bytes 4.
#[derive(Clone, Copy, Default)]
struct Reader(u32);

const SEVERAL: u32 = 32;
/// Clocks from here on are not recorded: a race could be missed, but none is reported wrongly.
const CLOCKS: u32 = 1 << 22;

/// The shadow of one block's shared memory. Records of earlier blocks are not cleared: the clocks
/// of a new block start above theirs.
pub struct SharedShadow {
    warps: usize,
    writers: Vec<Writer>,
    /// By word: the latest clock of a read. A write of the whole word that came after all reads
    /// resets it to 0.
    reads: Vec<u32>,
    /// By warp, then by word.
    readers: Vec<Reader>,
    flags: HashMap<u32, Clock>,
    instance: u32,
    /// Clocks up to here belong to earlier blocks.
    base: u32,
    latest: u32,
    /// Several lanes of the current instruction have written one word.
    pub overlap: bool,
}

impl SharedShadow {
    pub fn new(bytes: usize, warps: usize) -> SharedShadow {
        let words = bytes.div_ceil(4);
        SharedShadow {
            warps,
            writers: vec![Writer::default(); words],
            reads: vec![0; words],
            readers: vec![Reader::default(); words * warps],
            flags: HashMap::new(),
            instance: 0,
            base: 0,
            latest: 0,
            overlap: false,
        }
    }

    /// Prepares for the next block; returns the base of its clocks.
    pub fn reset(&mut self) -> u32 {
        for w in &mut self.writers {
            *w = w.with_state(0);
        }
        self.flags.clear();
        self.base = self.latest + 1;
        if self.base > CLOCKS / 2 {
            self.writers.fill(Writer::default());
            self.reads.fill(0);
            self.readers.fill(Reader::default());
            self.base = 0;
        }
        self.latest = self.base;
        self.base
    }

    /// A warp instruction with the lanes of `mask` accesses `len` bytes at each address, all inside
    /// shared memory. The error names the lane.
    pub fn touch_lanes(
        &mut self,
        addrs: &[u64; 32],
        mask: u32,
        len: u32,
        touch: Touch,
        warp: u32,
        clock: &mut WarpClock,
    ) -> Result<(), (usize, Conflict)> {
        self.next_instruction();
        let words = if len.is_multiple_of(4) { len / 4 } else { 0 };
        let plain = matches!(touch, Touch::Read | Touch::Write) && clock.own() < CLOCKS;
        let mut slow = mask;
        if plain && matches!(words, 1 | 2 | 4) {
            self.latest = self.latest.max(clock.own());
            slow = self.settled(addrs, mask, words, touch == Touch::Write, warp, clock);
        }
        for lane in lanes(slow) {
            self.touch(addrs[lane] as u32, len, touch, warp, lane as u32, clock)
                .map_err(|c| (lane, c))?;
        }
        Ok(())
    }

    /// Records the accesses to whole words that are certainly in order: barriers lie between them
    /// and earlier ones. Returns the lanes left over, which need the full check.
    fn settled(
        &mut self,
        addrs: &[u64; 32],
        mask: u32,
        words: u32,
        write: bool,
        warp: u32,
        clock: &WarpClock,
    ) -> u32 {
        #[cfg(target_arch = "x86_64")]
        if crate::simd::fast() {
            // SAFETY: the processor has the features that the function requires.
            return unsafe { self.settled_newer(addrs, mask, words, write, warp, clock) };
        }
        self.settled_body(addrs, mask, words, write, warp, clock)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn settled_newer(
        &mut self,
        addrs: &[u64; 32],
        mask: u32,
        words: u32,
        write: bool,
        warp: u32,
        clock: &WarpClock,
    ) -> u32 {
        self.settled_body(addrs, mask, words, write, warp, clock)
    }

    #[inline(always)]
    fn settled_body(
        &mut self,
        addrs: &[u64; 32],
        mask: u32,
        words: u32,
        write: bool,
        warp: u32,
        clock: &WarpClock,
    ) -> u32 {
        match (words, write) {
            (1, false) => self.units::<1, false>(addrs, mask, warp, clock),
            (2, false) => self.units::<2, false>(addrs, mask, warp, clock),
            (_, false) => self.units::<4, false>(addrs, mask, warp, clock),
            (1, true) => self.units::<1, true>(addrs, mask, warp, clock),
            (2, true) => self.units::<2, true>(addrs, mask, warp, clock),
            (_, true) => self.units::<4, true>(addrs, mask, warp, clock),
        }
    }

    /// `N` words for each lane, by fours where four lie side by side.
    #[inline(always)]
    fn units<const N: usize, const WRITE: bool>(
        &mut self,
        addrs: &[u64; 32],
        mask: u32,
        warp: u32,
        clock: &WarpClock,
    ) -> u32 {
        let mut slow = 0;
        let lanes = 4 / N;
        for first in (0..32).step_by(lanes) {
            let part = ((1u32 << lanes) - 1) << first;
            let mut together = mask & part == part;
            for k in 1..lanes {
                together &= addrs[first + k] == addrs[first] + (k * N * 4) as u64;
            }
            if together {
                if !self.unit::<4, N, WRITE>(addrs[first] as usize / 4, first, warp, clock) {
                    slow |= part;
                }
                continue;
            }
            for (k, addr) in addrs[first..first + lanes].iter().enumerate() {
                let lane = first + k;
                if mask >> lane & 1 == 1
                    && !self.unit::<N, N, WRITE>(*addr as usize / 4, lane, warp, clock)
                {
                    slow |= 1 << lane;
                }
            }
        }
        slow
    }

    /// `W` words from `word` on, `N` to a lane. False, with nothing recorded, when order is not
    /// certain.
    #[inline(always)]
    fn unit<const W: usize, const N: usize, const WRITE: bool>(
        &mut self,
        word: usize,
        lane: usize,
        warp: u32,
        clock: &WarpClock,
    ) -> bool {
        let (own, low) = (clock.own(), clock.low());
        let slots = self
            .readers
            .get_mut(warp as usize * self.writers.len() + word..)
            .and_then(|r| r.first_chunk_mut::<W>());
        let (Some(writers), Some(reads), Some(slots)) = (
            self.writers
                .get_mut(word..)
                .and_then(|w| w.first_chunk_mut::<W>()),
            self.reads
                .get_mut(word..)
                .and_then(|r| r.first_chunk_mut::<W>()),
            slots,
        ) else {
            return false;
        };
        let mut certain = true;
        for k in 0..W {
            certain &= writers[k].0 >> 42 <= u64::from(low);
            if WRITE {
                certain &= writers[k].0 & 15 == 0 && reads[k] <= low;
            } else {
                certain &= writers[k].0 & 255 == u64::from(WHOLE);
            }
        }
        if !certain {
            return false;
        }
        let base = Writer::new(own, self.instance, false, 15, warp * 32).with_state(WHOLE);
        for k in 0..W {
            let lane = (lane + k / N) as u32;
            if WRITE {
                writers[k] = Writer(base.0 + (u64::from(lane) << 8));
                reads[k] = 0;
            } else {
                reads[k] = reads[k].max(own);
                slots[k] = noted(slots[k], own, lane, 15);
            }
        }
        true
    }

    /// Later accesses belong to another instruction.
    fn next_instruction(&mut self) {
        self.instance = self.instance.wrapping_add(1);
        self.overlap = false;
    }

    /// Thread `warp * 32 + lane` accesses `len` bytes at `offset`. A strong access also joins
    /// clocks.
    fn touch(
        &mut self,
        offset: u32,
        len: u32,
        touch: Touch,
        warp: u32,
        lane: u32,
        clock: &mut WarpClock,
    ) -> Result<(), Conflict> {
        let mut addr = offset;
        let end = offset + len;
        while addr < end {
            let n = (4 - addr % 4).min(end - addr);
            let bytes = (((1u32 << n) - 1) << (addr % 4)) as u8;
            self.touch_word(addr as usize / 4, bytes, touch, warp, lane, clock)?;
            addr += n;
        }
        Ok(())
    }

    fn touch_word(
        &mut self,
        word: usize,
        bytes: u8,
        touch: Touch,
        warp: u32,
        lane: u32,
        clock: &mut WarpClock,
    ) -> Result<(), Conflict> {
        let w = self.writers[word];
        if w.state() & bytes != 0 {
            return Err(Conflict::Pending);
        }
        if touch.reads() && w.state() >> 4 & bytes != bytes {
            return Err(Conflict::Unwritten);
        }
        let own = clock.own();
        self.latest = self.latest.max(own.min(CLOCKS));
        if touch.strong()
            && let Some(seen) = self.flags.get(&(word as u32))
        {
            clock.learn(seen);
        }
        let thread = warp * 32 + lane;
        let same_time = w.clock() == own && w.thread() / 32 == warp;
        if w.bytes() & bytes != 0
            && !(w.strong() && touch.strong())
            && w.thread() != thread
            && !clock.covers(w.thread() / 32, w.clock())
        {
            let one_instruction =
                same_time && w.instance() == self.instance & INSTANCES && touch == Touch::Write;
            if !one_instruction {
                return Err(Conflict::AfterWrite(w.thread()));
            }
        }
        if touch.writes() {
            if same_time && w.instance() == self.instance & INSTANCES && w.thread() != thread {
                self.overlap = true;
            }
            if !touch.strong() || !w.strong() {
                self.check_readers(word, bytes, warp, lane, clock)?;
                if bytes == 15 {
                    self.reads[word] = 0;
                }
            }
            self.note_write(word, bytes, touch, thread, clock);
        }
        if touch == Touch::Read && own < CLOCKS {
            let slot = &mut self.readers[warp as usize * self.writers.len() + word];
            *slot = noted(*slot, own, lane, bytes);
            self.reads[word] = self.reads[word].max(own);
        }
        Ok(())
    }

    /// Records the writer of a word; a strong write also passes its clock on.
    #[inline(always)]
    fn note_write(
        &mut self,
        word: usize,
        bytes: u8,
        touch: Touch,
        thread: u32,
        clock: &mut WarpClock,
    ) {
        let (w, own) = (self.writers[word], clock.own());
        let kept = if w.thread() == thread && w.clock() == own {
            w.bytes()
        } else {
            0
        };
        let new = if own < CLOCKS {
            Writer::new(own, self.instance, touch.strong(), kept | bytes, thread)
        } else {
            w
        };
        self.writers[word] = new.with_state(w.state() | bytes << 4);
        if touch.strong() {
            match self.flags.get_mut(&(word as u32)) {
                Some(f) => f.join(clock.shared()),
                None => {
                    self.flags.insert(word as u32, clock.shared().clone());
                }
            }
            // Later accesses of this thread are not covered by the clock it just released.
            clock.advance();
        }
    }

    fn check_readers(
        &self,
        word: usize,
        bytes: u8,
        warp: u32,
        lane: u32,
        clock: &WarpClock,
    ) -> Result<(), Conflict> {
        if self.reads[word] <= clock.low() {
            return Ok(());
        }
        for other in 0..self.warps as u32 {
            let r = self.readers[other as usize * self.writers.len() + word];
            let (c, l, b) = (r.0 >> 10, r.0 >> 4 & 63, r.0 & 15);
            if b & u32::from(bytes) == 0 || c <= self.base {
                continue;
            }
            if !(clock.covers(other, c) || other == warp && l == lane) {
                return Err(Conflict::AfterRead {
                    warp: other,
                    lane: (l != SEVERAL).then_some(l),
                });
            }
        }
        Ok(())
    }

    /// Asynchronous copies of `len` bytes, a multiple of 4, start: writes that land later.
    pub fn start_copies(
        &mut self,
        addrs: &[u64; 32],
        mask: u32,
        len: u32,
        warp: u32,
        clock: &mut WarpClock,
    ) -> Result<(), (usize, Conflict)> {
        self.touch_lanes(addrs, mask, len, Touch::Write, warp, clock)?;
        // Two copies of one instruction to one address are not ordered either.
        let overlap = self.overlap;
        for lane in lanes(mask) {
            let first = addrs[lane] as usize / 4;
            if overlap && self.writers[first].thread() != warp * 32 + lane as u32 {
                return Err((lane, Conflict::Pending));
            }
            for w in &mut self.writers[first..first + len as usize / 4] {
                w.0 |= 15;
            }
        }
        Ok(())
    }

    /// The copy lands: a write at this moment.
    pub fn land_copy(&mut self, offset: u32, len: u32, warp: u32, lane: u32, clock: &WarpClock) {
        let own = clock.own().min(CLOCKS - 1);
        self.latest = self.latest.max(own);
        let writer = Writer::new(own, self.instance, false, 15, warp * 32 + lane).with_state(WHOLE);
        let words = offset as usize / 4..(offset + len).div_ceil(4) as usize;
        self.writers[words].fill(writer);
    }

    /// Writes by the hardware itself (mbarrier state): no race, but written.
    pub fn mark_written(&mut self, offset: u32, len: u32) {
        for word in offset / 4..(offset + len).div_ceil(4) {
            self.writers[word as usize].0 |= u64::from(WHOLE);
        }
    }
}

/// The record of a warp's reads with one more at time `own`. Reads at one time belong to one block.
#[inline(always)]
fn noted(old: Reader, own: u32, lane: u32, bytes: u8) -> Reader {
    let fresh = own << 10 | lane << 4 | u32::from(bytes);
    let one = if old.0 >> 4 & 63 == lane {
        lane
    } else {
        SEVERAL
    };
    let merged = own << 10 | one << 4 | old.0 & 15 | u32::from(bytes);
    Reader(if old.0 >> 10 == own { merged } else { fresh })
}

/// Lanes of a mask, lowest first.
#[inline(always)]
fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(clocks: &mut [WarpClock]) {
        let mut all = Clock::nothing();
        for c in clocks.iter() {
            all.join(c.shared());
        }
        let n = clocks.len() as u32;
        for c in clocks.iter_mut() {
            c.leave_barrier(&all, 0..n);
        }
    }

    #[test]
    fn a_barrier_orders_two_warps() {
        let mut s = SharedShadow::new(64, 2);
        let mut c = [WarpClock::new(0, 2, 0), WarpClock::new(1, 2, 0)];
        s.touch(0, 4, Touch::Write, 0, 5, &mut c[0])
            .expect("first write");
        assert_eq!(
            s.touch(0, 4, Touch::Read, 1, 0, &mut c[1]),
            Err(Conflict::AfterWrite(5))
        );
        barrier(&mut c);
        assert_eq!(s.touch(0, 4, Touch::Read, 1, 0, &mut c[1]), Ok(()));
        assert_eq!(
            s.touch(0, 4, Touch::Write, 0, 5, &mut c[0]),
            Err(Conflict::AfterRead {
                warp: 1,
                lane: Some(0)
            })
        );
        barrier(&mut c);
        assert_eq!(s.touch(0, 4, Touch::Write, 0, 5, &mut c[0]), Ok(()));
    }

    #[test]
    fn lanes_of_a_warp_need_a_warp_sync() {
        let mut s = SharedShadow::new(64, 1);
        let mut c = WarpClock::new(0, 1, 0);
        s.next_instruction();
        s.touch(8, 4, Touch::Write, 0, 1, &mut c)
            .expect("first write");
        assert_eq!(
            s.touch(8, 4, Touch::Read, 0, 1, &mut c),
            Ok(()),
            "a thread sees its own write"
        );
        assert_eq!(
            s.touch(8, 4, Touch::Read, 0, 2, &mut c),
            Err(Conflict::AfterWrite(1))
        );
        c.advance();
        assert_eq!(s.touch(8, 4, Touch::Read, 0, 2, &mut c), Ok(()));
    }

    #[test]
    fn unwritten_pending_and_neighbouring_bytes() {
        let mut s = SharedShadow::new(64, 1);
        let mut c = WarpClock::new(0, 1, 0);
        assert_eq!(
            s.touch(0, 4, Touch::Read, 0, 0, &mut c),
            Err(Conflict::Unwritten)
        );
        s.touch(0, 2, Touch::Write, 0, 0, &mut c).expect("low half");
        s.touch(2, 2, Touch::Write, 0, 1, &mut c)
            .expect("high half belongs to another thread");
        s.start_copies(&[16; 32], 1, 16, 0, &mut c)
            .expect("copy starts");
        assert_eq!(
            s.touch(20, 4, Touch::Read, 0, 0, &mut c),
            Err(Conflict::Pending)
        );
        s.land_copy(16, 16, 0, 0, &c);
        assert_eq!(s.touch(20, 4, Touch::Read, 0, 0, &mut c), Ok(()));
    }

    #[test]
    fn a_flag_hands_the_clock_on() {
        let mut s = SharedShadow::new(64, 2);
        let mut c = [WarpClock::new(0, 2, 0), WarpClock::new(1, 2, 0)];
        s.touch(0, 4, Touch::Write, 0, 0, &mut c[0]).expect("data");
        s.touch(4, 4, Touch::StrongWrite, 0, 0, &mut c[0])
            .expect("flag");
        s.touch(4, 4, Touch::StrongRead, 1, 0, &mut c[1])
            .expect("flag seen");
        assert_eq!(s.touch(0, 4, Touch::Read, 1, 0, &mut c[1]), Ok(()));
    }
}
