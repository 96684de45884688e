//! A reserved range of zero pages.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Address space that takes memory only where it is accessed. Reads as zero until written.
pub struct Region {
    base: *mut u8,
    len: usize,
}

// SAFETY: all access goes through relaxed atomics or through copies whose races are those of the
// emulated program.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing
        // memory.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Region {
            base: p.cast(),
            len,
        })
    }

    pub fn base(&self) -> u64 {
        self.base as u64
    }

    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn pointer(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(
            offset <= self.len - 16 && bytes <= 16,
            "access outside of the reserved range"
        );
        // SAFETY: the offset was just compared with the length of the mapping.
        unsafe { self.base.add(offset) }
    }

    #[inline(always)]
    pub fn u64(&self, index: usize) -> &AtomicU64 {
        // SAFETY: in range by `at`, aligned since the base is page-aligned, and atomics may be
        // shared.
        unsafe { AtomicU64::from_ptr(self.pointer(index * 8, 8).cast()) }
    }

    #[inline(always)]
    pub fn u32(&self, index: usize) -> &AtomicU32 {
        // SAFETY: as for `u64`.
        unsafe { AtomicU32::from_ptr(self.pointer(index * 4, 4).cast()) }
    }

    #[inline(always)]
    pub fn u16(&self, index: usize) -> &AtomicU16 {
        // SAFETY: as for `u64`.
        unsafe { AtomicU16::from_ptr(self.pointer(index * 2, 2).cast()) }
    }

    #[inline(always)]
    pub fn u8(&self, index: usize) -> &AtomicU8 {
        // SAFETY: as for `u64`.
        unsafe { AtomicU8::from_ptr(self.pointer(index, 1)) }
    }

    fn span(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "span outside of the reserved range"
        );
        // SAFETY: checked above.
        unsafe { self.base.add(offset) }
    }

    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        // SAFETY: the span is inside the mapping, and a Rust slice never overlaps it but for pinned
        // memory, for which `copy` allows overlap.
        unsafe { std::ptr::copy(from.as_ptr(), self.span(offset, from.len()), from.len()) }
    }

    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        // SAFETY: as for `copy_in`.
        unsafe { std::ptr::copy(self.span(offset, to.len()), to.as_mut_ptr(), to.len()) }
    }

    pub fn copy_within(&self, from: usize, to: usize, len: usize) {
        // SAFETY: both spans are inside the mapping; `copy` allows overlap.
        unsafe { std::ptr::copy(self.span(from, len), self.span(to, len), len) }
    }

    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        // SAFETY: the span is inside the mapping.
        unsafe { std::ptr::write_bytes(self.span(offset, len), byte, len) }
    }

    /// Gives whole pages inside the span back and makes the span read as zero.
    pub fn clear(&self, offset: usize, len: usize) {
        const PAGE: usize = 4096;
        let (first, end) = (offset.next_multiple_of(PAGE), (offset + len) / PAGE * PAGE);
        if end <= first {
            return self.fill(offset, len, 0);
        }
        self.fill(offset, first - offset, 0);
        self.fill(end, offset + len - end, 0);
        // SAFETY: whole pages of our own mapping.
        unsafe {
            libc::madvise(
                self.span(first, end - first).cast(),
                end - first,
                libc::MADV_DONTNEED,
            )
        };
    }

    /// Sets bits `from .. from + count` of the region seen as a bit map.
    pub fn set_bits(&self, from: usize, count: usize) {
        let end = from + count;
        let mut bit = from;
        while bit < end {
            if bit.is_multiple_of(8) && end - bit >= 64 {
                let bytes = (end - bit) / 8;
                self.fill(bit / 8, bytes, 0xff);
                bit += bytes * 8;
                continue;
            }
            let n = (8 - bit % 8).min(end - bit);
            let mask = (((1u32 << n) - 1) << (bit % 8)) as u8;
            let cell = self.u8(bit / 8);
            if cell.load(Relaxed) & mask != mask {
                cell.fetch_or(mask, Relaxed);
            }
            bit += n;
        }
    }

    /// First clear bit in `from .. from + count`.
    pub fn first_clear(&self, from: usize, count: usize) -> Option<usize> {
        let end = from + count;
        let mut bit = from;
        while bit < end {
            if bit.is_multiple_of(64)
                && end - bit >= 64
                && self.u64(bit / 64).load(Relaxed) == u64::MAX
            {
                bit += 64;
                continue;
            }
            let n = (8 - bit % 8).min(end - bit);
            let have = u32::from(self.u8(bit / 8).load(Relaxed)) >> (bit % 8) & ((1 << n) - 1);
            if have != (1 << n) - 1 {
                return Some(bit + have.trailing_ones() as usize);
            }
            bit += n;
        }
        None
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing borrows any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}
