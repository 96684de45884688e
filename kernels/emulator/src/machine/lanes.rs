//! The register file of a warp: slots of 32 lanes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// The value of one lane of a register.
pub trait Lane: Copy + 'static {
    /// The lane's bytes in the file: 4 or 8.
    type Cell: Copy + Default + 'static;
    fn from_cell(cell: Self::Cell) -> Self;
    fn to_cell(self) -> Self::Cell;
}

macro_rules! lane {
    ($t:ty, $cell:ty, $from:expr, $to:expr) => {
        impl Lane for $t {
            type Cell = $cell;
            #[inline(always)]
            fn from_cell(cell: $cell) -> $t {
                let f: fn($cell) -> $t = $from;
                f(cell)
            }
            #[inline(always)]
            fn to_cell(self) -> $cell {
                let f: fn($t) -> $cell = $to;
                f(self)
            }
        }
    };
}

lane!(u16, u32, |c| c as u16, |v| u32::from(v));
lane!(i16, u32, |c| c as u16 as i16, |v| u32::from(v as u16));
lane!(u32, u32, |c| c, |v| v);
lane!(i32, u32, |c| c as i32, |v| v as u32);
lane!(f32, u32, f32::from_bits, f32::to_bits);
lane!(u64, u64, |c| c, |v| v);
lane!(i64, u64, |c| c as i64, |v| v as u64);
lane!(f64, u64, f64::from_bits, f64::to_bits);

const SLOT: usize = 128;

/// The register file of one warp, in slots of 128 bytes. A 32-bit register takes one slot, a 64-bit
/// one two; each holds its 32 lanes one after the other. A register is named by the index of its
/// first slot.
pub struct Registers {
    view: View,
}

/// A copyable view of the file: it stays in processor registers over a loop of lanes.
#[derive(Clone, Copy)]
pub struct View {
    base: *mut u8,
    slots: usize,
}

// SAFETY: the file owns its memory and is used by one thread at a time.
unsafe impl Send for Registers {}

impl Registers {
    pub fn new(slots: usize) -> Registers {
        if slots == 0 {
            return Registers {
                view: View {
                    base: std::ptr::dangling_mut(),
                    slots,
                },
            };
        }
        let layout = layout(slots);
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Registers {
            view: View { base, slots },
        }
    }

    #[inline(always)]
    pub fn view(&mut self) -> View {
        self.view
    }

    #[inline(always)]
    pub fn get<T: Lane>(&self, reg: u32, lane: usize) -> T {
        self.view.get(reg, lane)
    }

    #[inline(always)]
    pub fn set<T: Lane>(&mut self, reg: u32, lane: usize, value: T) {
        self.view.set(reg, lane, value);
    }

    /// A lane's value zero-extended; `wide` registers have 64 bits.
    #[inline(always)]
    pub fn get_bits(&self, reg: u32, lane: usize, wide: bool) -> u64 {
        if wide {
            self.get::<u64>(reg, lane)
        } else {
            u64::from(self.get::<u32>(reg, lane))
        }
    }

    /// Sets a lane to the value's low bits.
    #[inline(always)]
    pub fn set_bits(&mut self, reg: u32, lane: usize, wide: bool, value: u64) {
        if wide {
            self.set::<u64>(reg, lane, value);
        } else {
            self.set::<u32>(reg, lane, value as u32);
        }
    }

    /// All 32 lanes of a register.
    #[inline(always)]
    pub fn all<T: Lane>(&self, reg: u32) -> [T; 32] {
        let mut out = [T::from_cell(T::Cell::default()); 32];
        for chunk in 0..4 {
            let cells = self.view.chunk::<T>(reg, chunk);
            for i in 0..8 {
                out[chunk * 8 + i] = T::from_cell(cells[i]);
            }
        }
        out
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub fn put<T: Lane>(&mut self, reg: u32, mask: u32, values: &[T; 32]) {
        let v = self.view;
        for chunk in 0..4 {
            let mut cells = if mask == !0 {
                [T::Cell::default(); 8]
            } else {
                v.chunk::<T>(reg, chunk)
            };
            for i in 0..8 {
                if mask >> (chunk * 8 + i) & 1 == 1 {
                    cells[i] = values[chunk * 8 + i].to_cell();
                }
            }
            v.set_chunk::<T>(reg, chunk, cells);
        }
    }

    /// The same value in all lanes.
    pub fn splat<T: Lane>(&mut self, reg: u32, value: T) {
        for chunk in 0..4 {
            self.view.set_chunk::<T>(reg, chunk, [value.to_cell(); 8]);
        }
    }
}

fn layout(slots: usize) -> Layout {
    match Layout::from_size_align(slots * SLOT, SLOT) {
        Ok(layout) => layout,
        Err(_) => panic!("a register file of {slots} slots is too large"),
    }
}

impl View {
    #[inline(always)]
    fn cell<T: Lane>(self, reg: u32, first: usize) -> *mut T::Cell {
        debug_assert!(
            reg as usize * SLOT + (first + 8) * size_of::<T::Cell>() <= self.slots * SLOT
        );
        // SAFETY: the builder hands out slots below `Program::slots`, for which this file was made,
        // and gives two of them to a 64-bit register; no instruction names a register that it did
        // not get from the builder.
        unsafe {
            self.base
                .add(reg as usize * SLOT)
                .cast::<T::Cell>()
                .add(first)
        }
    }

    /// Lanes `8 * chunk ..` of a register.
    #[inline(always)]
    pub fn chunk<T: Lane>(self, reg: u32, chunk: usize) -> [T::Cell; 8] {
        // SAFETY: see `at`; cells are plain integers.
        unsafe { self.cell::<T>(reg, chunk * 8).cast::<[T::Cell; 8]>().read() }
    }

    #[inline(always)]
    pub fn set_chunk<T: Lane>(self, reg: u32, chunk: usize, cells: [T::Cell; 8]) {
        // SAFETY: see `at`.
        unsafe {
            self.cell::<T>(reg, chunk * 8)
                .cast::<[T::Cell; 8]>()
                .write(cells)
        }
    }

    /// Lanes `4 * g ..` of a register.
    #[inline(always)]
    pub fn quad<T: Lane>(self, reg: u32, g: usize) -> [T::Cell; 4] {
        debug_assert!(g < 8);
        // SAFETY: see `at`; the chunk of eight holds both its quads.
        unsafe {
            self.cell::<T>(reg, g / 2 * 8)
                .add(g % 2 * 4)
                .cast::<[T::Cell; 4]>()
                .read()
        }
    }

    #[inline(always)]
    pub fn set_quad<T: Lane>(self, reg: u32, g: usize, cells: [T::Cell; 4]) {
        debug_assert!(g < 8);
        // SAFETY: see `quad`.
        unsafe {
            self.cell::<T>(reg, g / 2 * 8)
                .add(g % 2 * 4)
                .cast::<[T::Cell; 4]>()
                .write(cells)
        }
    }

    #[inline(always)]
    pub fn get<T: Lane>(self, reg: u32, lane: usize) -> T {
        debug_assert!(lane < 32);
        // SAFETY: see `at`; the lane is below 32.
        T::from_cell(unsafe { self.cell::<T>(reg, lane & 24).add(lane & 7).read() })
    }

    #[inline(always)]
    pub fn set<T: Lane>(self, reg: u32, lane: usize, value: T) {
        debug_assert!(lane < 32);
        // SAFETY: see `get`.
        unsafe {
            self.cell::<T>(reg, lane & 24)
                .add(lane & 7)
                .write(value.to_cell())
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        if self.view.slots != 0 {
            // SAFETY: allocated in `new` with the same layout.
            unsafe { dealloc(self.view.base, layout(self.view.slots)) };
        }
    }
}
