//! Micro-kernels for AMX, the matrix unit of Intel's server processors since Sapphire Rapids.
//!
//! What: the GEMMs of [`tile`](super::tile) with bf16 panels, and those of
//! [`quantized`](super::quantized), for many rows at a time. `tdpbf16ps` and `tdpbssd` multiply 16
//! rows of 64 bytes with a tile of 16 rows x 16 columns of 4 bytes and accumulate into 16 x 16
//! sums: 8,192 multiply-adds of bf16, or twice as many of int8, in 16 cycles. Two vector units do
//! 512 of f32 in that time.
//!
//! bf16: AMX has no f32 input, so each f32 is split into its bf16 and the bf16 of its rounding
//! error (the high and the low part). That keeps 16 bits of every input, where `tile` keeps 24 and
//! the weights have 8. Both parts are multiplied into the same sums. The sums of 32 rows x 2 panels
//! (16 x 4 if rows are few) stay in four of the eight tile registers: six tile loads feed eight
//! multiplications. A linear layer stores its rows tiled,
//! `[row / 16][k / 32][high, low][row % 16][32]` ([`Split`]). Attention stores each row in cache
//! lines of its own, `[row][k / 32][high, low][32]` ([`rows`]), so that a tile may begin at any row
//! and have fewer than 16.
//!
//! int8: one `tdpbssd` multiplies a group of 32 inputs, half a tile. Its sums go through memory to
//! the vector units, which add them to the f32 sums of 16 rows as `quantized` does, bit for bit.
//!
//! Layout: the panels of `tile` and `quantized`, which AMX reads as they are. The caller gives the
//! layout of the sums.
//!
//! Numerics of bf16: within 32 inputs, `tdpbf16ps` sums the even and the odd inputs in order in
//! f32, one fused multiply-add each, adds both sums, and adds the result to the accumulator. The
//! high parts of 32 inputs come before their low parts. Rounding is to nearest even; subnormals
//! are taken as zero. Every element's bits depend on its row and column alone.
//!
//! Budget: `tile`'s bytes from memory. From the second-level cache: `4 * rows * k` bytes of rows
//! per 32 columns, `64 * k` bytes of panels per 32 rows. `4 * rows * k * columns` operations, twice
//! the GEMM's.
#![allow(unsafe_code)] // AMX's instructions take raw pointers; each function states what it needs.
#![cfg_attr(not(target_arch = "x86_64"), allow(unused))] // Other architectures never have it.

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
/// Inputs of a bf16 tile.
pub(crate) const INPUTS: usize = 32;

/// Whether this machine has AMX and the operating system lets this process use it.
pub(crate) fn available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        use std::sync::OnceLock;
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            use std::arch::x86_64::__cpuid_count;
            let has_leaf_7 = is_x86_feature_detected!("avx512f") && __cpuid_count(0, 0).eax >= 7;
            // AMX-BF16, AMX-TILE and AMX-INT8.
            let unit = 1 << 22 | 1 << 24 | 1 << 25;
            has_leaf_7 && __cpuid_count(7, 0).edx & unit == unit && permitted()
        })
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Requests the tile registers from Linux, for all threads of the process
/// (`Documentation/arch/x86/xstate.rst`).
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

/// Rows of a bf16 GEMM at a time, unless there are fewer.
pub(crate) const MANY: usize = 2 * ROWS;

/// What the tile registers `tmm0` to `tmm7` hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TileConfig {
    /// bf16: sums in 0 to 3, rows in 4 and 5 (64 bytes each), weights in 6 and 7 (16 x 64 bytes).
    Bf16,
    /// int8: sums in 0 to 3, rows of a group in 4 and 5 (16 x 32 bytes), weights in 6 and 7 (8 x 64
    /// bytes).
    Int8,
}

/// The configured tile registers of this thread; dropping releases them.
pub(crate) struct Tiles {
    config: TileConfig,
    /// Rows of a tile of rows or sums, up to [`ROWS`].
    height: usize,
    /// Registers belong to one thread: not `Send`.
    _thread: PhantomData<Cell<()>>,
}

impl Tiles {
    /// Configures the registers for GEMMs of `rows` rows; more than [`ROWS`] are several tiles.
    ///
    /// # Panics
    ///
    /// If AMX is not [`available`].
    pub(crate) fn configure(config: TileConfig, rows: usize) -> Tiles {
        assert!(available(), "this CPU has no AMX");
        let mut tiles = Tiles {
            config,
            height: 0,
            _thread: PhantomData,
        };
        tiles.set_height(rows.min(ROWS));
        tiles
    }

    /// Configures the registers for tiles of `height` rows, unless they already are.
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
            // Palette 1; bytes per row from byte 16 on, rows from byte 48 on.
            config.0[0] = 1;
            for tile in 0..8 {
                let (rows, bytes) = match (self.config, tile) {
                    (TileConfig::Int8, 4 | 5) => (height, 32),
                    (TileConfig::Int8, 6 | 7) => (8, 64),
                    (TileConfig::Bf16, 6 | 7) => (16, 64),
                    _ => (height, 64),
                };
                config.0[16 + 2 * tile] = bytes;
                config.0[48 + tile] = rows as u8;
            }
            // SAFETY: AMX is available, and the configuration is 64 bytes in the format it reads.
            unsafe {
                std::arch::asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly));
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: AMX is available, as this value exists.
        unsafe {
            std::arch::asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// A cache line: 32 bf16.
#[derive(Clone, Copy, Debug, Zeroable, Pod)]
#[repr(C, align(64))]
pub(crate) struct Line([u16; INPUTS]);

/// Grows a buffer of cache lines to at least `len` f32.
pub(crate) fn grow(lines: &mut Vec<Line>, len: usize) {
    let len = (len * size_of::<f32>()).div_ceil(size_of::<Line>());
    if lines.len() < len {
        lines.resize(len, Line::zeroed());
    }
}

/// Rows split for GEMMs with bf16 panels; the memory is reused by the next GEMM.
#[derive(Debug, Default)]
pub(crate) struct Split {
    lines: Vec<Line>,
    /// Tiles per [`ROWS`] rows, of both parts.
    tiles: usize,
}

impl Split {
    /// Splits the first `rows` of `x`, `[.., k]`.
    pub(crate) fn fill(&mut self, workers: &Workers, x: &[f32], k: usize, rows: usize) {
        self.tiles = 2 * k.div_ceil(INPUTS);
        let whole = self.tiles * ROWS;
        let lines = rows.div_ceil(ROWS) * whole;
        // An input's two parts take as much memory as an f32.
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

    /// The address of the tiles of rows `row..row + ROWS`.
    fn tile(&self, row: usize) -> *const u8 {
        assert!(row.is_multiple_of(ROWS), "a tile of rows at {row}");
        let lines = self.tiles * ROWS;
        self.lines[row / ROWS * lines..][..lines].as_ptr().cast()
    }
}

widest! {
    /// Splits a row and writes it as row `index` of tiles of `rows` rows.
    fn split(x: &[f32], index: usize, rows: usize, lines: &mut [Line]) {
        let (whole, rest) = x.as_chunks::<INPUTS>();
        let mut tiles = lines.chunks_exact_mut(2 * rows);
        for (x, tiles) in whole.iter().zip(&mut tiles) {
            [tiles[index], tiles[rows + index]] = parts(x);
        }
        if let Some(tiles) = tiles.next().filter(|_| !rest.is_empty()) {
            let mut padded = [0.0; INPUTS];
            padded[..rest.len()].copy_from_slice(rest);
            [tiles[index], tiles[rows + index]] = parts(&padded);
        }
    }
}

/// The high and the low parts of 32 inputs. An input that would round to infinity is truncated
/// instead, so that finite inputs stay finite.
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
        // Infinity minus infinity is NaN, but the low part of infinity must be 0.
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

/// Splits a row of a multiple of 32 inputs into cache lines of its own, for [`rows`].
pub(crate) fn split_row(x: &[f32], lines: &mut [Line]) {
    split(x, 0, 1, lines);
}

/// The bits of a number rounded to bf16, to nearest even.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
}

/// The next GEMM's panels, or parts of them, to prefetch.
#[derive(Clone, Copy)]
pub(crate) struct PanelPrefetch {
    panels: [*const u8; MAX_PANELS],
    /// Cache lines of each panel per 32 inputs of a GEMM of more than [`ROWS`] rows.
    lines: usize,
}

impl PanelPrefetch {
    /// The share of tile `tile` of `tiles`, each over `inputs` inputs, in as many inputs of the
    /// next panels.
    pub(crate) fn share(
        panels: [*const u8; MAX_PANELS],
        inputs: usize,
        tile: usize,
        tiles: usize,
    ) -> PanelPrefetch {
        let lines = (16 / tiles).next_power_of_two().max(4);
        let skipped = tile * lines * inputs / INPUTS * size_of::<Line>();
        PanelPrefetch {
            panels: panels.map(|panel| panel.wrapping_add(skipped)),
            lines,
        }
    }
}

/// Computes `out[i][16 j + c]` of `rows` over `inputs`: up to [`MANY`] rows and two panels, or up
/// to [`ROWS`] rows and four panels. `rows` begins at a multiple of [`ROWS`]; `inputs` begins and
/// ends at multiples of 32. If `inputs` does not begin at 0, the sums in `out` are accumulated to.
/// Whole tiles are written, of an even number of panels, `stride` f32 from one row to the next.
///
/// # Safety
///
/// Each of `w` can be read for the bf16 panel of as many inputs as the rows have, padding included.
///
/// # Panics
///
/// If the registers are configured for something else or for fewer rows; if there are more rows,
/// inputs or panels than stated; if an odd number of panels is accumulated to; or if `out` is too
/// short.
#[allow(clippy::too_many_arguments)] // each is one of the formula's names
pub(crate) unsafe fn tile(
    tiles: &Tiles,
    split: &Split,
    rows: Range<usize>,
    inputs: Range<usize>,
    w: &[*const u8],
    prefetch: PanelPrefetch,
    out: &mut [f32],
    stride: usize,
) {
    assert_eq!(tiles.config, TileConfig::Bf16);
    let steps = inputs.start / INPUTS..inputs.end / INPUTS;
    assert!(2 * steps.end <= split.tiles, "inputs to {}", inputs.end);
    let accumulate = steps.start > 0;
    assert!(
        !accumulate || w.len().is_multiple_of(2),
        "{} panels",
        w.len()
    );
    let many = rows.len() > ROWS;
    assert!(tiles.height >= rows.len().min(ROWS), "{} rows", rows.len());
    let columns = w.len().next_multiple_of(2) * COLS;
    let written = if many { MANY } else { tiles.height };
    assert!(out.len() >= (written - 1) * stride + columns, "room");
    let tile_ptr = |row: usize| {
        split
            .tile(row)
            .wrapping_add(steps.start * 2 * ROWS * size_of::<Line>())
    };
    let x = (
        tile_ptr(rows.start),
        many.then(|| tile_ptr(rows.start + ROWS)),
    );
    let mut w_ptrs = [std::ptr::null(); MAX_PANELS];
    for (ptr, w) in w_ptrs.iter_mut().zip(w) {
        *ptr = w.wrapping_add(steps.start * INPUTS * COLS * size_of::<u16>());
    }
    let form = if accumulate {
        GemmForm::TiledAccumulate
    } else {
        GemmForm::Tiled
    };
    let (k, w) = (steps.len(), &w_ptrs[..w.len()]);
    // SAFETY: a tile's rows are contiguous, with all inputs of both parts; the length of `out` was
    // asserted; the caller promises the panels.
    unsafe { gemm(form, x, 64, w, k, Some(prefetch), out.as_mut_ptr(), stride) };
}

/// Computes `out[i][16 j + c]` of any number of rows and panels of `k` inputs; `ACCUMULATE` adds to
/// the sums in `out`. `x` holds the rows split, `[row][k / 32][high, low][32]`. `strides` are the
/// f32 from one row of `x` and of `out` to the next. Panels are written in pairs: after an odd
/// number follows one of garbage.
///
/// # Safety
///
/// Each of `w` can be read for the bf16 panel of `k` inputs.
///
/// # Panics
///
/// If the registers are configured for something else, `x` or `out` is too short, 32 does not
/// divide `k`, or an odd number of panels is accumulated to.
pub(crate) unsafe fn rows<const ACCUMULATE: bool>(
    tiles: &mut Tiles,
    x: &[f32],
    count: usize,
    w: &[*const u8],
    k: usize,
    out: &mut [f32],
    strides: [usize; 2],
) {
    assert_eq!(tiles.config, TileConfig::Bf16);
    assert!(k.is_multiple_of(INPUTS), "{k} inputs in tiles of {INPUTS}");
    assert!(
        !ACCUMULATE || w.len().is_multiple_of(2),
        "{} panels",
        w.len()
    );
    let [x_stride, out_stride] = strides;
    let last = count.saturating_sub(1);
    let columns = w.len().next_multiple_of(2) * COLS;
    assert!(x.len() >= last * x_stride + k, "{count} rows of {k} inputs");
    assert!(out.len() >= last * out_stride + columns, "{count} rows out");
    let form = if ACCUMULATE {
        GemmForm::StridedAccumulate
    } else {
        GemmForm::Strided
    };
    let (mut row, row_bytes) = (0, 4 * x_stride);
    while row < count {
        let (height, at_once) = match count - row {
            MANY.. => (MANY, 2),
            left => (left.min(ROWS), MAX_PANELS),
        };
        tiles.set_height(height.min(ROWS));
        // SAFETY: `row + height <= count`, and `x` has `count` rows, as was asserted.
        let row_ptr = |row: usize| unsafe { x.as_ptr().add(row * x_stride).cast::<u8>() };
        let x = (row_ptr(row), (height > ROWS).then(|| row_ptr(row + ROWS)));
        for (w, column) in w.chunks(at_once).zip((0..).step_by(at_once * COLS)) {
            let out = out[row * out_stride + column..].as_mut_ptr();
            let k = k / INPUTS;
            // SAFETY: the rows of `x` and `out` are long enough, as was asserted; the caller
            // promises the panels.
            unsafe { gemm(form, x, row_bytes, w, k, None, out, out_stride) };
        }
        row += height;
    }
}

/// The layout of a GEMM's rows, and the initial value of its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GemmForm {
    /// Rows in tiles, as in [`Split`]; sums begin at 0.
    Tiled,
    /// Rows in tiles; sums begin with those in memory.
    TiledAccumulate,
    /// Each row in cache lines of its own; sums begin at 0.
    Strided,
    /// Each row in cache lines of its own; sums begin with those in memory.
    StridedAccumulate,
}

/// Multiplies two tiles of rows with up to two panels, or one tile with up to four.
///
/// # Safety
///
/// AMX is available, and its registers are configured for bf16. Each tile of rows can be read for
/// `k` pairs of parts in the layout of `form`, `row_bytes` from one row to the next; each panel for
/// `k` tiles. From `out` on an even number of tiles of sums can be read and written, `stride` f32
/// from one row to the next.
#[allow(clippy::too_many_arguments)] // operands of one assembly block
unsafe fn gemm(
    form: GemmForm,
    (first, second): (*const u8, Option<*const u8>),
    row_bytes: usize,
    w: &[*const u8],
    k: usize,
    prefetch: Option<PanelPrefetch>,
    out: *mut f32,
    stride: usize,
) {
    let bytes = 4 * stride;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promises.
    unsafe {
        if let Some(second) = second {
            let (x, out) = ([first, second], [out, out.add(ROWS * stride)]);
            let prefetch = prefetch.map_or(([first; 2], 0), |next| {
                ([next.panels[0], next.panels[1]], next.lines)
            });
            match *w {
                [a] => x86::two_by_two(form, x, row_bytes, [a, a], k, prefetch, out, bytes),
                [a, b] => x86::two_by_two(form, x, row_bytes, [a, b], k, prefetch, out, bytes),
                _ => panic!("{} panels of more than {ROWS} rows at once", w.len()),
            }
        } else {
            // Each panel prefetches itself a tile ahead, so only the next panels' first tiles are
            // left.
            let ahead = prefetch.is_some();
            if let Some(next) = prefetch {
                next.panels.into_iter().for_each(x86::prefetch_tile);
            }
            match *w {
                [a] => x86::one_by_two(form, first, row_bytes, [a, a], k, out, bytes),
                [a, b] => x86::one_by_two(form, first, row_bytes, [a, b], k, out, bytes),
                [a, b, c] => {
                    x86::one_by_four(form, first, row_bytes, [a, b, c, c], k, ahead, out, bytes);
                }
                [a, b, c, d] => {
                    x86::one_by_four(form, first, row_bytes, [a, b, c, d], k, ahead, out, bytes);
                }
                _ => panic!("{} panels at once", w.len()),
            }
        }
    }
}

/// Replaces the scores `s` of positions `first..visible` of a row by `p = 2^((s - max) * scale)`,
/// split for [`rows`]: the high parts of 32 positions, then their low parts. Every other position
/// up to the next multiple of 32 becomes 0. Returns the sum of the `p`.
///
/// # Panics
///
/// If there are fewer scores, or `first..visible` is empty, or AMX is not [`available`].
pub(crate) fn split_exponentials(
    scores: &mut [f32],
    first: usize,
    visible: usize,
    scale: f32,
) -> f32 {
    assert!(available(), "this CPU has no AMX");
    assert!(first < visible, "positions {first} to {visible}");
    let groups = &mut scores.as_chunks_mut::<INPUTS>().0[..visible.div_ceil(INPUTS)];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: AMX comes with AVX-512.
    return unsafe { exponentials::split(groups, first, visible, scale) };
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{} groups by {scale} without AMX", groups.len());
}

/// Computes `out[i][c]` of `height` (at most [`ROWS`]) quantised rows and an int8 panel. `height`
/// rounded up to a multiple of 4 rows of sums are written, `stride` f32 from one to the next.
///
/// # Safety
///
/// `rows` points to [`ROWS`] rows of `quantized::Rows` of `row_words` words each; `w` can be read
/// for an int8 panel of `k` inputs.
///
/// # Panics
///
/// If the registers are configured for something else, there are more rows, or `out` is too short.
#[allow(clippy::too_many_arguments)] // operands of one micro-kernel
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
    assert_eq!(tiles.config, TileConfig::Int8);
    let written = height.next_multiple_of(4);
    assert!(out.len() >= (written - 1) * stride + COLS, "room");
    assert!(k.is_multiple_of(GROUP), "{k} inputs in groups of {GROUP}");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promises; AMX comes with AVX-512.
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

/// Operations of a round of [`peak_loop`], two per multiply-add.
pub(crate) const PEAK_ROUND_OPS: usize = 8 * 2 * ROWS * COLS * INPUTS;

/// Executes `rounds` rounds of `tdpbf16ps` on registers, for measuring the peak.
///
/// # Panics
///
/// If AMX is not [`available`].
pub(crate) fn peak_loop(rounds: usize) {
    let _tiles = Tiles::configure(TileConfig::Bf16, ROWS);
    // Numbers of both signs around 1.
    let numbers: [Line; ROWS] = std::array::from_fn(|row| {
        let number = |i: usize| (i * 7 + row) % 2 * 0x8000 + 0x3f80 + (i * 37 + row * 11) % 128;
        Line(std::array::from_fn(|i| number(i) as u16))
    });
    #[cfg(target_arch = "x86_64")]
    // SAFETY: AMX is available and configured for tiles of as many cache lines.
    unsafe {
        x86::peak_loop(numbers.as_ptr().cast(), rounds);
    }
}

#[cfg(target_arch = "x86_64")]
mod exponentials;
#[cfg(target_arch = "x86_64")]
mod x86;
