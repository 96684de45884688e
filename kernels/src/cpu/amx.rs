//! Micro-kernels for AMX, the matrix unit of Intel's server processors since Sapphire Rapids.
//!
//! What: the products of [`tile`](super::tile) with bf16 panels, and those of
//! [`quantized`](super::quantized), for many rows at a time. One instruction multiplies 16 rows of 64 bytes
//! with a tile of 16 rows x 16 columns of 4 bytes and adds the products to 16 x 16 sums: 8,192 products of
//! bf16, twice as many of 8 bits, in 16 cycles, in which two vector units do 512 of f32.
//!
//! bf16: the unit knows no f32 inputs, so a row is split into two of bf16, what rounding leaves and its rest:
//! 16 bits of every input are kept where `tile` has 24 and the weights 8. Both are multiplied into the same sums.
//! Those of 32 rows x 2 panels (16 x 4 where rows are few) stay in four of the eight registers: six tiles are
//! read for eight products. Rows of a linear layer are stored as tiles take them,
//! `[row / 16][k / 32][high, low][row % 16][32]` ([`Split`]); those of attention in lines of their own,
//! `[row][k / 32][high, low][32]` ([`rows`]), so that a tile may begin at any of them and have fewer than 16.
//!
//! int8: a group of 32 inputs is one instruction, on half a tile; its sums go through memory to the vector
//! units, which add them to the f32 sums of 16 rows as `quantized` says, bit for bit.
//!
//! Layout: panels as there; both are what the unit reads as they are. Who multiplies says where sums go.
//!
//! Numerics of bf16: of every 32 inputs the products of even and of odd places are summed in their order in
//! f32, one fused multiply-add each, both sums are added, then that to the sums so far; the high parts of 32
//! inputs come before their low parts. To the nearest, ties to even, numbers too small for a normal f32 taken
//! as 0. Every element's bits depend on its row and column alone.
//!
//! Budget: `tile`'s bytes; of the rows `4 * rows * k` bytes for every 32 columns, of the panels `64 * k` for
//! every 32 rows, from the second-level cache; `4 * rows * k * columns` operations, twice what is wanted.
#![allow(unsafe_code)] // The unit's instructions take raw pointers; each function states what it needs.
#![cfg_attr(not(target_arch = "x86_64"), allow(unused))] // Elsewhere it is never there.

use super::tile::{COLS, MAX_PANELS};
use super::workers::Workers;
use crate::quant::GROUP;
use crate::widest::widest;
use bytemuck::{Pod, Zeroable};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Inputs of a tile of bf16.
pub(crate) const INPUTS: usize = 32;

/// Whether this machine has the unit, and the operating system lets this process use it.
pub(crate) fn available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        use std::sync::OnceLock;
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            use std::arch::x86_64::__cpuid_count;
            let told = is_x86_feature_detected!("avx512f") && __cpuid_count(0, 0).eax >= 7;
            // AMX-BF16, AMX-TILE and AMX-INT8.
            let unit = 1 << 22 | 1 << 24 | 1 << 25;
            told && __cpuid_count(7, 0).edx & unit == unit && permitted()
        })
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Asks Linux for the registers, for all threads of the process (`Documentation/arch/x86/xstate.rst`).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the system call takes two numbers and touches no memory of this process.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Rows of products of bf16 unless they are few.
pub(crate) const MANY: usize = 2 * ROWS;

/// What the tile registers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shapes {
    /// Of bf16: sums in 0 to 3, rows in 4 and 5 (64 bytes each), weights in 6 and 7 (16 x 64 bytes).
    Bf16,
    /// Of int8: sums in 0 to 3, rows of a group in 4 and 5 (16 x 32 bytes), weights in 6 and 7 (8 x 64 bytes).
    Int8,
}

/// The tile registers of this thread, configured; released when dropped.
pub(crate) struct Tiles {
    shapes: Shapes,
    /// Rows of a tile of rows or sums, up to [`ROWS`].
    height: usize,
    /// Registers are the thread's.
    _thread: PhantomData<Cell<()>>,
}

impl Tiles {
    /// Configures the registers for products of `rows` rows; more than [`ROWS`] are several tiles.
    ///
    /// # Panics
    ///
    /// If the unit is not [`available`].
    pub(crate) fn configure(shapes: Shapes, rows: usize) -> Tiles {
        assert!(available(), "this CPU has no AMX");
        let mut tiles = Tiles {
            shapes,
            height: 0,
            _thread: PhantomData,
        };
        tiles.set_height(rows.min(ROWS));
        tiles
    }

    /// Configures the registers for tiles of that many rows, if they are not.
    fn set_height(&mut self, height: usize) {
        if self.height == height {
            return;
        }
        self.height = height;
        #[cfg(target_arch = "x86_64")]
        {
            #[repr(align(64))]
            struct Config([u8; 64]);
            let mut config = Config([0; 64]);
            // Palette 1; from byte 16 on the bytes of a row, from 48 on the rows.
            config.0[0] = 1;
            for tile in 0..8 {
                let (rows, bytes) = match (self.shapes, tile) {
                    (Shapes::Int8, 4 | 5) => (height, 32),
                    (Shapes::Int8, 6 | 7) => (8, 64),
                    (Shapes::Bf16, 6 | 7) => (16, 64),
                    _ => (height, 64),
                };
                config.0[16 + 2 * tile] = bytes;
                config.0[48 + tile] = rows as u8;
            }
            // SAFETY: the unit is there, and the configuration is 64 bytes of the format it reads.
            unsafe {
                std::arch::asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly));
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the unit is there, as the value was made.
        unsafe {
            std::arch::asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// A line of memory: 32 bf16.
#[derive(Clone, Copy, Debug, Zeroable, Pod)]
#[repr(C, align(64))]
pub(crate) struct Line([u16; INPUTS]);

/// Makes memory of lines hold `len` numbers or more.
pub(crate) fn grow(lines: &mut Vec<Line>, len: usize) {
    let len = (len * size_of::<f32>()).div_ceil(size_of::<Line>());
    if lines.len() < len {
        lines.resize(len, Line::zeroed());
    }
}

/// Rows split for products with bf16 panels, in memory that is kept for the next product.
#[derive(Debug, Default)]
pub(crate) struct Split {
    lines: Vec<Line>,
    /// Tiles of [`ROWS`] rows, of both parts.
    tiles: usize,
}

impl Split {
    /// Splits the first `rows` of `x`, `[.., k]`.
    pub(crate) fn fill(&mut self, workers: &Workers, x: &[f32], k: usize, rows: usize) {
        self.tiles = 2 * k.div_ceil(INPUTS);
        let whole = self.tiles * ROWS;
        let lines = rows.div_ceil(ROWS) * whole;
        // An input's two parts take the room of an f32.
        grow(
            &mut self.lines,
            rows.next_multiple_of(ROWS) * k.next_multiple_of(INPUTS),
        );
        // About ten operations an element.
        let operations = 10 * rows * k;
        workers.rows(
            &mut self.lines[..lines],
            whole,
            operations,
            |tile, lines| {
                for row in tile * ROWS..rows.min((tile + 1) * ROWS) {
                    split(&x[row * k..][..k], row % ROWS, ROWS, lines);
                }
            },
        );
    }

    /// The [`ROWS`] rows from `row` on.
    fn tile(&self, row: usize) -> *const u8 {
        assert!(row.is_multiple_of(ROWS), "a tile of rows at {row}");
        let lines = self.tiles * ROWS;
        self.lines[row / ROWS * lines..][..lines].as_ptr().cast()
    }
}

widest! {
    /// Splits a row into its place in tiles of `rows` rows.
    fn split(x: &[f32], place: usize, rows: usize, lines: &mut [Line]) {
        let (whole, rest) = x.as_chunks::<INPUTS>();
        let mut tiles = lines.chunks_exact_mut(2 * rows);
        for (x, tiles) in whole.iter().zip(&mut tiles) {
            [tiles[place], tiles[rows + place]] = parts(x);
        }
        if let Some(tiles) = tiles.next().filter(|_| !rest.is_empty()) {
            let mut padded = [0.0; INPUTS];
            padded[..rest.len()].copy_from_slice(rest);
            [tiles[place], tiles[rows + place]] = parts(&padded);
        }
    }
}

/// The high and the low parts of 32 inputs. What rounds to more than bf16 holds is cut off instead, so that what
/// is finite stays so.
#[inline(always)]
fn parts(x: &[f32; INPUTS]) -> [Line; 2] {
    let mut lines = [Line::zeroed(); 2];
    let [high, low] = &mut lines;
    for ((&x, high), low) in x.iter().zip(&mut high.0).zip(&mut low.0) {
        let cut = x.to_bits() & 0xffff_0000;
        let rounded = round(x);
        let infinite = rounded & 0x7f80_0000 == 0x7f80_0000;
        let kept = if infinite { cut } else { rounded };
        let rest = x - f32::from_bits(kept);
        // Infinity less infinity is no number, of which the rest must have none.
        let rest = if x.is_infinite() { 0.0 } else { rest };
        *high = (kept >> 16) as u16;
        *low = if rest.is_nan() {
            0x7fc0
        } else {
            (round(rest) >> 16) as u16
        };
    }
    lines
}

/// Splits a row of multiples of 32 inputs into lines of its own, for [`rows`].
pub(crate) fn split_row(x: &[f32], lines: &mut [Line]) {
    split(x, 0, 1, lines);
}

/// The bits of a number rounded to bf16, to the nearest, ties to even.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
}

/// The panels of the next product, or parts of them, to ask for ahead of time.
#[derive(Clone, Copy)]
pub(crate) struct Ask {
    from: [*const u8; MAX_PANELS],
    /// Lines of each for every 32 inputs of a product of more than [`ROWS`] rows.
    lines: usize,
}

impl Ask {
    /// The share that the product of that index of `tiles` over `inputs` has in as many inputs of the next panels.
    pub(crate) fn share(
        panels: [*const u8; MAX_PANELS],
        inputs: usize,
        tile: usize,
        tiles: usize,
    ) -> Ask {
        let lines = (16 / tiles).next_power_of_two().max(4);
        let skipped = tile * lines * inputs / INPUTS * size_of::<Line>();
        Ask {
            from: panels.map(|panel| panel.wrapping_add(skipped)),
            lines,
        }
    }
}

/// Computes `out[i][16 j + c]` of some rows, the first at a multiple of [`ROWS`], over some of their inputs, both
/// ends multiples of 32: of up to [`MANY`] and two panels, or of up to [`ROWS`] and four. If the inputs are not
/// the first, goes on with the sums. Whole tiles are written, of an even number of panels. Few rows ask for their
/// panels ahead of time.
///
/// # Safety
///
/// Each of `w` can be read for the bf16 panel of as many inputs as the rows have, padding included.
///
/// # Panics
///
/// If the registers are configured for something else or fewer rows, there are more rows, inputs or panels, no such
/// rows, an odd number of panels to add to, or too little room in `out`, `stride` from one row to the next.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn tile(
    tiles: &Tiles,
    split: &Split,
    rows: Range<usize>,
    inputs: Range<usize>,
    w: &[*const u8],
    ask: Ask,
    out: &mut [f32],
    stride: usize,
) {
    assert_eq!(tiles.shapes, Shapes::Bf16);
    let steps = inputs.start / INPUTS..inputs.end / INPUTS;
    assert!(2 * steps.end <= split.tiles, "inputs to {}", inputs.end);
    let added = steps.start > 0;
    assert!(!added || w.len().is_multiple_of(2), "{} panels", w.len());
    let many = rows.len() > ROWS;
    assert!(tiles.height >= rows.len().min(ROWS), "{} rows", rows.len());
    let columns = w.len().next_multiple_of(2) * COLS;
    let written = if many { MANY } else { tiles.height };
    assert!(out.len() >= (written - 1) * stride + columns, "room");
    let at = |row: usize| {
        split
            .tile(row)
            .wrapping_add(steps.start * 2 * ROWS * size_of::<Line>())
    };
    let x = (at(rows.start), many.then(|| at(rows.start + ROWS)));
    let mut w_at = [std::ptr::null(); MAX_PANELS];
    for (at, w) in w_at.iter_mut().zip(w) {
        *at = w.wrapping_add(steps.start * INPUTS * COLS * size_of::<u16>());
    }
    let form = if added { Form::TilesAdded } else { Form::Tiles };
    let (k, w) = (steps.len(), &w_at[..w.len()]);
    // SAFETY: a tile's rows lie one after the other, all inputs of both parts; the room for sums was asserted;
    // the caller promises the panels.
    unsafe { products(form, x, 64, w, k, Some(ask), out.as_mut_ptr(), stride) };
}

/// Computes `out[i][16 j + c]`, or to `ADD` goes on with those sums, of any number of rows and of panels of `k`
/// inputs. The rows are `x`, of every 32 inputs the high, then the low parts. `strides` are the numbers from one
/// row of `x` and of `out` to the next. Panels are written in pairs: behind an odd number comes rubbish.
///
/// # Safety
///
/// Each of `w` can be read for the bf16 panel of `k` inputs.
///
/// # Panics
///
/// If the registers are configured for something else, there are too few numbers in `x` or `out`, 32 does not
/// divide `k`, or there is an odd number of panels to add to.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn rows<const ADD: bool>(
    tiles: &mut Tiles,
    x: &[f32],
    count: usize,
    w: &[*const u8],
    k: usize,
    out: &mut [f32],
    strides: [usize; 2],
) {
    assert_eq!(tiles.shapes, Shapes::Bf16);
    assert!(k.is_multiple_of(INPUTS), "{k} inputs in tiles of {INPUTS}");
    assert!(!ADD || w.len().is_multiple_of(2), "{} panels", w.len());
    let [x_stride, out_stride] = strides;
    let last = count.saturating_sub(1);
    let columns = w.len().next_multiple_of(2) * COLS;
    assert!(x.len() >= last * x_stride + k, "{count} rows of {k} inputs");
    assert!(out.len() >= last * out_stride + columns, "{count} rows out");
    let form = if ADD { Form::LinesAdded } else { Form::Lines };
    let (mut row, line) = (0, 4 * x_stride);
    while row < count {
        let (height, at_once) = match count - row {
            MANY.. => (MANY, 2),
            left => (left.min(ROWS), MAX_PANELS),
        };
        tiles.set_height(height.min(ROWS));
        // SAFETY: that many rows are there, as was asserted; a second tile's if there are twice as many.
        let at = |row: usize| unsafe { x.as_ptr().add(row * x_stride).cast::<u8>() };
        let x = (at(row), (height > ROWS).then(|| at(row + ROWS)));
        for (w, column) in w.chunks(at_once).zip((0..).step_by(at_once * COLS)) {
            let out = out[row * out_stride + column..].as_mut_ptr();
            let k = k / INPUTS;
            // SAFETY: of all these rows the inputs and the columns are there, as was asserted; the caller
            // promises the panels.
            unsafe {
                products(form, x, line, w, k, None, out, out_stride);
            }
        }
        row += height;
    }
}

/// How the rows of a product lie, and what its sums begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// In tiles, as [`Split`] has them; from 0.
    Tiles,
    /// In tiles; from the sums in memory.
    TilesAdded,
    /// Each row in lines of its own; from 0.
    Lines,
    /// In lines; from the sums in memory.
    LinesAdded,
}

/// Multiplies one or two tiles of rows with up to four or two panels.
///
/// # Safety
///
/// The unit is there, and its registers configured for bf16. Of every tile `k` pairs can be read as `form` says,
/// a tile's rows `line` bytes from one another; of every panel `k` tiles; and tiles of sums, `stride` numbers
/// from row to row, can be read and written from `out` on, in pairs.
#[allow(clippy::too_many_arguments)]
unsafe fn products(
    form: Form,
    (first, second): (*const u8, Option<*const u8>),
    line: usize,
    w: &[*const u8],
    k: usize,
    ask: Option<Ask>,
    out: *mut f32,
    stride: usize,
) {
    let bytes = 4 * stride;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promises.
    unsafe {
        if let Some(second) = second {
            let (x, out) = ([first, second], [out, out.add(ROWS * stride)]);
            let ask = ask.map_or(([first; 2], 0), |ask| {
                ([ask.from[0], ask.from[1]], ask.lines)
            });
            match *w {
                [a] => x86::two_by_two(form, x, line, [a, a], k, ask, out, bytes),
                [a, b] => x86::two_by_two(form, x, line, [a, b], k, ask, out, bytes),
                _ => panic!("{} panels of more than {ROWS} rows at once", w.len()),
            }
        } else {
            let far = ask.is_some();
            if let Some(ask) = ask {
                // Each panel asks for itself but for its beginning.
                ask.from.into_iter().for_each(x86::ask_for_tile);
            }
            match *w {
                [a] => x86::one_by_two(form, first, line, [a, a], k, out, bytes),
                [a, b] => x86::one_by_two(form, first, line, [a, b], k, out, bytes),
                [a, b, c] => {
                    x86::one_by_four(form, first, line, [a, b, c, c], k, far, out, bytes);
                }
                [a, b, c, d] => {
                    x86::one_by_four(form, first, line, [a, b, c, d], k, far, out, bytes);
                }
                _ => panic!("{} panels at once", w.len()),
            }
        }
    }
}

/// Replaces the scores `s` of the positions `first..visible` of a row by `p = 2^((s - max) * scale)`, of every 32
/// positions the high parts, then the low parts, as [`rows`] takes them; all others of these 32 are 0.
/// Returns the sum of the `p`.
///
/// # Panics
///
/// If there are fewer scores or no position, or the unit is not [`available`].
pub(crate) fn halved_exponentials(
    scores: &mut [f32],
    first: usize,
    visible: usize,
    scale: f32,
) -> f32 {
    assert!(available(), "this CPU has no AMX");
    assert!(first < visible, "positions {first} to {visible}");
    let groups = &mut scores.as_chunks_mut::<INPUTS>().0[..visible.div_ceil(INPUTS)];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the unit comes with AVX-512.
    return unsafe { exponentials::halved(groups, first, visible, scale) };
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{} groups by {scale} without the unit", groups.len());
}

/// Computes `out[i][c]` of up to [`ROWS`] quantised rows and a panel of int8 in groups. Rows of sums up to the
/// next multiple of 4 are written, `stride` from one to the next.
///
/// # Safety
///
/// Behind `rows` there are [`ROWS`] rows of `quantized::Rows`, each `row_words` words; `w` can be read for a
/// panel of `k` inputs in int8.
///
/// # Panics
///
/// If the registers are configured for something else, there are more rows, or too little room in `out`.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn int8(
    tiles: &Tiles,
    height: usize,
    rows: *const i32,
    row_words: usize,
    w: *const u8,
    k: usize,
    out: &mut [f32],
    stride: usize,
) {
    assert_eq!(tiles.shapes, Shapes::Int8);
    let written = height.next_multiple_of(4);
    assert!(out.len() >= (written - 1) * stride + COLS, "room");
    assert!(k.is_multiple_of(GROUP), "{k} inputs in groups of {GROUP}");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promises; the unit comes with AVX-512.
    unsafe {
        match height {
            0..=4 => x86::int8::<4>(rows, row_words, w, k, out, stride),
            5..=8 => x86::int8::<8>(rows, row_words, w, k, out, stride),
            9..=12 => x86::int8::<12>(rows, row_words, w, k, out, stride),
            13..=16 => x86::int8::<16>(rows, row_words, w, k, out, stride),
            _ => panic!("{height} rows of a tile"),
        }
    }
}

/// Operations of a round of [`burn`], two to a product and sum.
pub(crate) const BURNT: usize = 8 * 2 * ROWS * COLS * INPUTS;

/// Does `rounds` rounds of products of bf16 on registers.
///
/// # Panics
///
/// If the unit is not [`available`].
pub(crate) fn burn(rounds: usize) {
    let _tiles = Tiles::configure(Shapes::Bf16, ROWS);
    // Numbers of both signs around 1.
    let numbers: [Line; ROWS] = std::array::from_fn(|row| {
        let number = |i: usize| (i * 7 + row) % 2 * 0x8000 + 0x3f80 + (i * 37 + row * 11) % 128;
        Line(std::array::from_fn(|i| number(i) as u16))
    });
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the unit is there and configured, for tiles of as many lines.
    unsafe {
        x86::burn(numbers.as_ptr().cast(), rounds);
    }
}

#[cfg(target_arch = "x86_64")]
mod exponentials;
#[cfg(target_arch = "x86_64")]
mod x86;
