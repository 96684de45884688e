//! Races inside a block: who touched which shared word, and what orders the touches.
//!
//! Every warp carries a vector clock. A barrier joins the clocks of the warps that meet there, `bar.warp.sync`
//! advances a warp's own. A touch is remembered with the clock of its warp; a later touch by another thread
//! conflicts when its warp's clock does not cover it. Threads of one warp are ordered by the warp's own syncs only.
//! Strong accesses (atomic, volatile, relaxed, acquire, release) never conflict with one another and hand the clock
//! on through the word, as flags and locks do.

use std::collections::HashMap;

/// What a warp knows about the progress of all warps of its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock(pub [u32; 32]);

impl Clock {
    /// The clock of a warp that has met no other.
    pub fn of(warp: usize) -> Clock {
        let mut c = Clock([0; 32]);
        c.0[warp % 32] = 1;
        c
    }

    pub fn join(&mut self, other: &Clock) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }
}

/// How an instruction touches memory.
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

/// Why a touch is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Bytes nothing wrote.
    Unwritten,
    /// Bytes an asynchronous copy is still on its way to.
    Pending,
    /// Thread that wrote before.
    AfterWrite(u32),
    /// Thread (or warp, when several of its lanes did) that read before.
    AfterRead { warp: u32, lane: Option<u32> },
}

#[derive(Clone, Copy, Default)]
struct Writer {
    clock: u32,
    thread: u16,
    bytes: u8,
    strong: bool,
    /// The execution of an instruction that wrote: lanes of one may write one word, if they agree on the value.
    instance: u32,
}

/// What is known of four bytes.
#[derive(Clone, Copy, Default)]
struct Word {
    writer: Writer,
    /// Warps whose reads a write must come after. A write of the whole word that did covers them for the next one.
    read_by: u32,
    /// Low nibble: bytes written. High nibble: bytes with an asynchronous copy under way.
    state: u8,
}

#[derive(Clone, Copy, Default)]
struct Reader(u32); // clock 22 | lane 6 (32: several) | bytes 4

const SEVERAL: u32 = 32;
const CLOCKS: u32 = 1 << 22;

/// The shadow of one block's shared memory.
pub struct SharedShadow {
    warps: usize,
    words: Vec<Word>,
    readers: Vec<Reader>,
    flags: HashMap<u32, Clock>,
    instance: u32,
}

impl SharedShadow {
    pub fn new(bytes: usize, warps: usize) -> SharedShadow {
        let words = bytes.div_ceil(4);
        SharedShadow {
            warps,
            words: vec![Word::default(); words],
            readers: vec![Reader::default(); words * warps],
            flags: HashMap::new(),
            instance: 0,
        }
    }

    /// Ready for the next block.
    pub fn reset(&mut self) {
        // Readers count only where a word says so.
        self.words.fill(Word::default());
        self.flags.clear();
    }

    /// Touches from here belong to another instruction.
    pub fn next_instruction(&mut self) {
        self.instance = self.instance.wrapping_add(1);
    }

    /// Thread `warp * 32 + lane` touches `len` bytes at `offset`. A strong touch also joins clocks.
    #[inline]
    pub fn touch(
        &mut self,
        offset: u32,
        len: u32,
        touch: Touch,
        warp: u32,
        lane: u32,
        clock: &mut Clock,
    ) -> Result<(), Conflict> {
        if len == 4 && offset.is_multiple_of(4) {
            return self.touch_word(offset as usize / 4, 15, touch, warp, lane, clock);
        }
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let word = at / 4;
            let n = (4 - at % 4).min(end - at);
            let bytes = (((1u32 << n) - 1) << (at % 4)) as u8;
            self.touch_word(word as usize, bytes, touch, warp, lane, clock)?;
            at += n;
        }
        Ok(())
    }

    #[inline]
    fn touch_word(
        &mut self,
        word: usize,
        bytes: u8,
        touch: Touch,
        warp: u32,
        lane: u32,
        clock: &mut Clock,
    ) -> Result<(), Conflict> {
        let Word {
            writer: w, state, ..
        } = self.words[word];
        if state >> 4 & bytes != 0 {
            return Err(Conflict::Pending);
        }
        if touch.reads() && state & bytes != bytes {
            return Err(Conflict::Unwritten);
        }
        let own = clock.0[warp as usize];
        if touch.strong()
            && let Some(seen) = self.flags.get(&(word as u32))
        {
            clock.join(seen);
        }
        if w.bytes & bytes != 0 && !(w.strong && touch.strong()) {
            let (other, their_lane) = (u32::from(w.thread) / 32, u32::from(w.thread) % 32);
            let raced = if other == warp {
                their_lane != lane
                    && w.clock == own
                    && !(w.instance == self.instance && touch == Touch::Write)
            } else {
                clock.0[other as usize] < w.clock
            };
            if raced {
                return Err(Conflict::AfterWrite(u32::from(w.thread)));
            }
        }
        if touch.writes() {
            if !touch.strong() || !w.strong {
                self.check_readers(word, bytes, warp, lane, clock)?;
                if bytes == 15 {
                    self.words[word].read_by = 0;
                }
            }
            self.words[word].state = state | bytes;
            let thread = (warp * 32 + lane) as u16;
            let kept = if w.thread == thread && w.clock == own {
                w.bytes
            } else {
                0
            };
            self.words[word].writer = Writer {
                clock: own,
                thread,
                bytes: kept | bytes,
                strong: touch.strong(),
                instance: self.instance,
            };
            if touch.strong() {
                let mut released = clock.clone();
                released.0[warp as usize] = own;
                match self.flags.get_mut(&(word as u32)) {
                    Some(f) => f.join(&released),
                    None => {
                        self.flags.insert(word as u32, released);
                    }
                }
                // What this thread does next is not covered by what it just released.
                clock.0[warp as usize] = own + 1;
            }
        }
        if touch == Touch::Read && own < CLOCKS {
            let slot = &mut self.readers[word * self.warps + warp as usize];
            let (c, l, b) = (slot.0 >> 10, slot.0 >> 4 & 63, slot.0 & 15);
            let fresh = self.words[word].read_by >> warp & 1 == 0;
            self.words[word].read_by |= 1 << warp;
            *slot = if !fresh && c == own {
                Reader(
                    own << 10 | (if l == lane { l } else { SEVERAL }) << 4 | b | u32::from(bytes),
                )
            } else {
                Reader(own << 10 | lane << 4 | u32::from(bytes))
            };
        }
        Ok(())
    }

    fn check_readers(
        &self,
        word: usize,
        bytes: u8,
        warp: u32,
        lane: u32,
        clock: &Clock,
    ) -> Result<(), Conflict> {
        let mut left = self.words[word].read_by;
        while left != 0 {
            let other = left.trailing_zeros() as usize;
            left &= left - 1;
            let r = self.readers[word * self.warps + other];
            let (c, l, b) = (r.0 >> 10, r.0 >> 4 & 63, r.0 & 15);
            if b & u32::from(bytes) == 0 {
                continue;
            }
            let raced = if other as u32 == warp {
                c == clock.0[other] && l != lane
            } else {
                clock.0[other] < c
            };
            if raced {
                return Err(Conflict::AfterRead {
                    warp: other as u32,
                    lane: (l != SEVERAL).then_some(l),
                });
            }
        }
        Ok(())
    }

    /// An asynchronous copy to these bytes starts: a write that lands later.
    pub fn start_copy(
        &mut self,
        offset: u32,
        len: u32,
        warp: u32,
        lane: u32,
        clock: &mut Clock,
    ) -> Result<(), Conflict> {
        self.touch(offset, len, Touch::Write, warp, lane, clock)?;
        for word in offset / 4..(offset + len).div_ceil(4) {
            self.words[word as usize].state |= 0xf0;
        }
        Ok(())
    }

    /// The copy lands, as a write at this moment.
    pub fn land_copy(&mut self, offset: u32, len: u32, warp: u32, lane: u32, clock: &Clock) {
        for word in offset / 4..(offset + len).div_ceil(4) {
            self.words[word as usize].state = 0x0f;
            self.words[word as usize].writer = Writer {
                clock: clock.0[warp as usize],
                thread: (warp * 32 + lane) as u16,
                bytes: 15,
                strong: false,
                instance: self.instance,
            };
        }
    }

    /// Writes by the hardware itself (mbarrier state): no race, but written.
    pub fn mark_written(&mut self, offset: u32, len: u32) {
        for word in offset / 4..(offset + len).div_ceil(4) {
            self.words[word as usize].state |= 0x0f;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(clocks: &mut [Clock]) {
        let mut all = clocks[0].clone();
        for c in clocks.iter() {
            all.join(c);
        }
        for (w, c) in clocks.iter_mut().enumerate() {
            *c = all.clone();
            c.0[w] += 1;
        }
    }

    #[test]
    fn a_barrier_orders_two_warps() {
        let mut s = SharedShadow::new(64, 2);
        let mut c = [Clock::of(0), Clock::of(1)];
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
        let mut c = Clock::of(0);
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
        c.0[0] += 1;
        assert_eq!(s.touch(8, 4, Touch::Read, 0, 2, &mut c), Ok(()));
    }

    #[test]
    fn unwritten_pending_and_neighbouring_bytes() {
        let mut s = SharedShadow::new(64, 1);
        let mut c = Clock::of(0);
        assert_eq!(
            s.touch(0, 4, Touch::Read, 0, 0, &mut c),
            Err(Conflict::Unwritten)
        );
        s.touch(0, 2, Touch::Write, 0, 0, &mut c).expect("low half");
        s.touch(2, 2, Touch::Write, 0, 1, &mut c)
            .expect("high half belongs to another thread");
        s.start_copy(16, 16, 0, 0, &mut c).expect("copy starts");
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
        let mut c = [Clock::of(0), Clock::of(1)];
        s.touch(0, 4, Touch::Write, 0, 0, &mut c[0]).expect("data");
        s.touch(4, 4, Touch::StrongWrite, 0, 0, &mut c[0])
            .expect("flag");
        s.touch(4, 4, Touch::StrongRead, 1, 0, &mut c[1])
            .expect("flag seen");
        assert_eq!(s.touch(0, 4, Touch::Read, 1, 0, &mut c[1]), Ok(()));
    }
}
