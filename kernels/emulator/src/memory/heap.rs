//! Allocations and their shadows.

use super::region::Region;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PAGE: u64 = 4096;
/// Unmapped space after every allocation, wide enough to catch an index that is off by a few tiles.
const GUARD: u64 = 64 << 10;
/// Address space of one device: more than any card has, so that freed ranges are reused late.
const RESERVED: u64 = 512 << 30;
const MAX_EXTENTS: usize = 1 << 22;

/// What an allocation is for; shown in reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Device,
    Pinned,
    Managed,
    Variable(String),
}

/// The valid bytes of one allocation, `base .. end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub base: u64,
    pub end: u64,
}

struct Allocation {
    size: u64,
    kind: Kind,
    id: u32,
    read_only: bool,
}

#[derive(Default)]
struct Book {
    live: BTreeMap<u64, Allocation>,
    freed: BTreeMap<u64, (u64, Kind)>,
    next: u64,
    used: u64,
    free_ids: Vec<u32>,
    last_id: u32,
}

/// The memory of one device.
pub struct Heap {
    data: Region,
    /// Page number to allocation id; 0 is none.
    pages: Region,
    /// Allocation id to base and end.
    extents: Region,
    /// One bit per byte: it was written.
    written: Region,
    /// One word per four bytes for the race check.
    races: Region,
    checks: bool,
    capacity: u64,
    book: Mutex<Book>,
}

impl Heap {
    /// A device with `capacity` bytes. Without `checks` accesses are not recorded.
    pub fn new(capacity: u64, checks: bool) -> io::Result<Heap> {
        let n = RESERVED as usize;
        let shadow = if checks { n } else { 4096 };
        Ok(Heap {
            data: Region::new(n)?,
            pages: Region::new(n / PAGE as usize * 4 + 4096)?,
            extents: Region::new(MAX_EXTENTS * 16 + 4096)?,
            written: Region::new(shadow / 8 + 4096)?,
            races: Region::new(shadow * 2 + 4096)?,
            checks,
            capacity,
            book: Mutex::new(Book {
                next: PAGE,
                ..Book::default()
            }),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn checks(&self) -> bool {
        self.checks
    }

    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    pub fn used(&self) -> u64 {
        self.book().used
    }

    /// `None` when the device is full.
    pub fn alloc(&self, size: u64, kind: Kind) -> Option<u64> {
        let mut book = self.book();
        if book.used.checked_add(size)? > self.capacity || size == 0 {
            return None;
        }
        let span = size.next_multiple_of(PAGE) + GUARD;
        let offset = if book.next + span <= RESERVED {
            book.next
        } else {
            gap(&book.live, self.data.base(), span)?
        };
        if offset == book.next {
            book.next += span;
        }
        let id = match book.free_ids.pop() {
            Some(id) => id,
            None => {
                book.last_id += 1;
                book.last_id
            }
        };
        if id as usize >= MAX_EXTENTS {
            return None;
        }
        let base = self.data.base() + offset;
        let reused: Vec<u64> = book
            .freed
            .range(..base + span)
            .rev()
            .take_while(|(b, f)| *b + f.0 > base)
            .map(|(b, _)| *b)
            .collect();
        for b in reused {
            book.freed.remove(&b);
        }
        self.extents.u64(id as usize * 2).store(base, Relaxed);
        self.extents
            .u64(id as usize * 2 + 1)
            .store(base + size, Relaxed);
        for page in offset / PAGE..(offset + size).div_ceil(PAGE) {
            self.pages.u32(page as usize).store(id, Relaxed);
        }
        book.used += size;
        book.live.insert(
            base,
            Allocation {
                size,
                kind,
                id,
                read_only: false,
            },
        );
        Some(base)
    }

    /// False when `base` is not the start of a live allocation.
    pub fn free(&self, base: u64) -> bool {
        let mut book = self.book();
        let Some(a) = book.live.remove(&base) else {
            return false;
        };
        let offset = base - self.data.base();
        for page in offset / PAGE..(offset + a.size).div_ceil(PAGE) {
            self.pages.u32(page as usize).store(0, Relaxed);
        }
        self.extents.u64(a.id as usize * 2 + 1).store(0, Relaxed);
        self.data.clear(offset as usize, a.size as usize);
        if self.checks {
            // Allocations start on pages, so the shadow bits of one never share a byte with
            // another's.
            self.written
                .clear(offset as usize / 8, (a.size as usize).div_ceil(8));
            self.races.clear(offset as usize * 2, a.size as usize * 2);
        }
        book.used -= a.size;
        book.free_ids.push(a.id);
        book.freed.insert(base, (a.size, a.kind));
        if book.freed.len() > 1 << 16 {
            book.freed.pop_first();
        }
        true
    }

    /// Makes kernels' writes to the allocation at `base` a fault: constant memory.
    pub fn set_read_only(&self, base: u64) {
        if let Some(a) = self.book().live.get_mut(&base) {
            a.read_only = true;
        }
    }

    /// Starts of the allocations that kernels must not write.
    pub fn read_only(&self) -> Vec<u64> {
        self.book()
            .live
            .iter()
            .filter(|(_, a)| a.read_only)
            .map(|(b, _)| *b)
            .collect()
    }

    /// The live allocation that holds `addr`.
    #[inline]
    pub fn find(&self, addr: u64) -> Option<Extent> {
        let offset = addr.wrapping_sub(self.data.base());
        if offset >= RESERVED {
            return None;
        }
        let id = self.pages.u32((offset / PAGE) as usize).load(Relaxed) as usize;
        if id == 0 {
            return None;
        }
        let e = Extent {
            base: self.extents.u64(id * 2).load(Relaxed),
            end: self.extents.u64(id * 2 + 1).load(Relaxed),
        };
        (addr >= e.base && addr < e.end).then_some(e)
    }

    /// Whether an access at `addr` stays inside the emulated device.
    #[inline(always)]
    pub fn reserved(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.data.base()) < RESERVED - 16
    }

    /// Kind and size of the live allocation at or around `addr`.
    pub fn lookup(&self, addr: u64) -> Option<(u64, u64, Kind)> {
        let book = self.book();
        let (base, a) = book.live.range(..=addr).next_back()?;
        (addr < base + a.size).then(|| (*base, a.size, a.kind.clone()))
    }

    /// All live allocations: base, size, kind.
    pub fn live(&self) -> Vec<(u64, u64, Kind)> {
        self.book()
            .live
            .iter()
            .map(|(b, a)| (*b, a.size, a.kind.clone()))
            .collect()
    }

    /// Where `addr` lies, in words, for a report.
    pub fn describe(&self, addr: u64) -> String {
        let book = self.book();
        let name = |kind: &Kind, size: u64| match kind {
            Kind::Variable(v) => format!("variable {v:?} of {size} bytes"),
            Kind::Device => format!("an allocation of {size} bytes"),
            Kind::Pinned => format!("pinned host memory of {size} bytes"),
            Kind::Managed => format!("managed memory of {size} bytes"),
        };
        let before = book.live.range(..=addr).next_back();
        if let Some((base, a)) = before
            && addr < base + a.size
        {
            return format!("byte {} of {}", addr - base, name(&a.kind, a.size));
        }
        if let Some((base, (size, kind))) = book.freed.range(..=addr).next_back()
            && addr < base + size
        {
            return format!(
                "byte {} of {}, which was freed",
                addr - base,
                name(kind, *size)
            );
        }
        let after = book.live.range(addr..).next();
        let near_before = before.map(|(b, a)| (addr - (b + a.size), a));
        match (near_before, after) {
            (Some((past, a)), _) if past < GUARD => {
                format!("{} bytes past the end of {}", past, name(&a.kind, a.size))
            }
            (_, Some((b, a))) if b - addr < GUARD => {
                format!("{} bytes before {}", b - addr, name(&a.kind, a.size))
            }
            _ => "no allocation is near".to_owned(),
        }
    }

    #[inline(always)]
    fn offset(&self, addr: u64) -> usize {
        addr.wrapping_sub(self.data.base()) as usize
    }

    /// A load of 1, 2, 4 or 8 bytes. The address must be aligned and [`reserved`](Self::reserved).
    #[inline(always)]
    pub fn load(&self, addr: u64, bytes: u32) -> u64 {
        let o = self.offset(addr);
        match bytes {
            1 => u64::from(self.data.u8(o).load(Relaxed)),
            2 => u64::from(self.data.u16(o / 2).load(Relaxed)),
            4 => u64::from(self.data.u32(o / 4).load(Relaxed)),
            _ => self.data.u64(o / 8).load(Relaxed),
        }
    }

    /// A store of 1, 2, 4 or 8 bytes; see [`load`](Self::load).
    #[inline(always)]
    pub fn store(&self, addr: u64, bytes: u32, value: u64) {
        let o = self.offset(addr);
        match bytes {
            1 => self.data.u8(o).store(value as u8, Relaxed),
            2 => self.data.u16(o / 2).store(value as u16, Relaxed),
            4 => self.data.u32(o / 4).store(value as u32, Relaxed),
            _ => self.data.u64(o / 8).store(value, Relaxed),
        }
    }

    /// A word for each lane of a full warp, from consecutive addresses; see [`load`](Self::load).
    #[inline(always)]
    pub fn load_words(&self, addr: u64, to: &mut [u32; 32]) {
        let first = self.offset(addr) / 4;
        for (k, word) in to.iter_mut().enumerate() {
            *word = self.data.u32(first + k).load(Relaxed);
        }
    }

    /// The opposite of [`load_words`](Self::load_words).
    #[inline(always)]
    pub fn store_words(&self, addr: u64, from: &[u32; 32]) {
        let first = self.offset(addr) / 4;
        for (k, word) in from.iter().enumerate() {
            self.data.u32(first + k).store(*word, Relaxed);
        }
    }

    /// An atomic read-modify-write of 2, 4 or 8 bytes; returns the old value.
    #[inline]
    pub fn update(&self, addr: u64, bytes: u32, f: &dyn Fn(u64) -> u64) -> u64 {
        use std::sync::atomic::Ordering::SeqCst;
        let o = self.offset(addr);
        match bytes {
            2 => {
                let (Ok(v) | Err(v)) = self
                    .data
                    .u16(o / 2)
                    .fetch_update(SeqCst, SeqCst, |v| Some(f(u64::from(v)) as u16));
                u64::from(v)
            }
            4 => {
                let (Ok(v) | Err(v)) = self
                    .data
                    .u32(o / 4)
                    .fetch_update(SeqCst, SeqCst, |v| Some(f(u64::from(v)) as u32));
                u64::from(v)
            }
            _ => {
                let (Ok(v) | Err(v)) = self
                    .data
                    .u64(o / 8)
                    .fetch_update(SeqCst, SeqCst, |v| Some(f(v)));
                v
            }
        }
    }

    /// Records that `len` bytes at `addr` were written.
    #[inline]
    pub fn mark_written(&self, addr: u64, len: u64) {
        if self.checks {
            self.written.set_bits(self.offset(addr), len as usize);
        }
    }

    /// First byte in the range that was never written.
    #[inline]
    pub fn first_unwritten(&self, addr: u64, len: u64) -> Option<u64> {
        self.written
            .first_clear(self.offset(addr), len as usize)
            .map(|o| o as u64 + self.data.base())
    }

    /// The race word of the four bytes around `addr`.
    #[inline(always)]
    pub fn race(&self, addr: u64) -> &std::sync::atomic::AtomicU64 {
        self.races.u64(self.offset(addr) / 4)
    }

    /// Forgets all recorded accesses.
    pub fn forget_races(&self) {
        if self.checks {
            self.races.clear(0, self.races.len());
        }
    }

    /// Host to device. The range must lie inside one allocation.
    pub fn copy_in(&self, addr: u64, from: &[u8]) {
        self.data.copy_in(self.offset(addr), from);
        self.mark_written(addr, from.len() as u64);
    }

    /// Device to host.
    pub fn copy_out(&self, addr: u64, to: &mut [u8]) {
        self.data.copy_out(self.offset(addr), to);
    }

    /// Device to device; unwritten bytes of the source count as written at the destination.
    pub fn copy(&self, from: u64, to: u64, len: u64) {
        self.data
            .copy_within(self.offset(from), self.offset(to), len as usize);
        self.mark_written(to, len);
    }

    pub fn fill(&self, addr: u64, len: u64, byte: u8) {
        self.data.fill(self.offset(addr), len as usize, byte);
        self.mark_written(addr, len);
    }
}

/// First gap of `span` bytes between live allocations, as an offset.
fn gap(live: &BTreeMap<u64, Allocation>, base: u64, span: u64) -> Option<u64> {
    let mut free = PAGE;
    for (start, a) in live {
        let offset = start - base;
        if offset >= free + span {
            return Some(free);
        }
        free = (offset + a.size).next_multiple_of(PAGE) + GUARD;
    }
    (free + span <= RESERVED).then_some(free)
}
