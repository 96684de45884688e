//! Micro-kernels for AMX, the matrix unit of Intel's server processors since Sapphire Rapids.
//!
//! What: the products of [`tile`](super::tile) with bf16 panels, and those of
//! [`quantized`](super::quantized), for many rows at a time. One instruction multiplies 16 rows of 64 bytes
//! with a tile of 16 rows x 16 columns of 4 bytes and adds the products to 16 x 16 sums: 8,192 products of
//! bf16, twice as many of 8 bits, in 16 cycles, in which two vector units do 512 of f32.
//!
//! bf16: the unit knows no f32 inputs, so a row is split into two of bf16, what rounding leaves and its rest
//! ([`Split`]): 16 bits of every input are kept where `tile` has 24 and the weights 8. Rows are stored as
//! tiles take them, `[row / 16][k / 32][high, low][row % 16][32]`, and both are multiplied into the same sums.
//! Those of 32 rows x 2 panels (16 x 4 where rows are few) stay in four of the eight registers: six tiles are
//! read for eight products.
//!
//! int8: a group of 32 inputs is one instruction, on half a tile; its sums go through memory to the vector
//! units, which add them to the f32 sums of 16 rows as `quantized` says, bit for bit.
//!
//! Layout: panels as there; both are what the unit reads as they are.
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
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Inputs of a tile of bf16.
const INPUTS: usize = 32;

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

/// Rows of products with [`bf16`] unless they are few.
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
        #[cfg(target_arch = "x86_64")]
        {
            #[repr(align(64))]
            struct Config([u8; 64]);
            let mut config = Config([0; 64]);
            // Palette 1; from byte 16 on the bytes of a row, from 48 on the rows.
            config.0[0] = 1;
            for tile in 0..8 {
                let (rows, bytes) = match (shapes, tile) {
                    (Shapes::Int8, 4 | 5) => (rows.min(ROWS), 32),
                    (Shapes::Int8, 6 | 7) => (8, 64),
                    (Shapes::Bf16, 6 | 7) => (16, 64),
                    _ => (rows.min(ROWS), 64),
                };
                config.0[16 + 2 * tile] = bytes;
                config.0[48 + tile] = rows as u8;
            }
            // SAFETY: the unit is there, and the configuration is 64 bytes of the format it reads.
            unsafe {
                std::arch::asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly));
            }
        }
        Tiles {
            shapes,
            _thread: PhantomData,
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
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u16; INPUTS]);

/// Rows split for products with bf16 panels, in memory that is kept for the next product.
#[derive(Debug, Default)]
pub(crate) struct Split {
    lines: Vec<Line>,
    /// Tiles of [`ROWS`] rows, of both parts.
    tiles: usize,
}

impl Split {
    /// Makes room for that many rows of `k`; what was there is gone.
    fn resize(&mut self, rows: usize, k: usize) {
        self.tiles = 2 * k.div_ceil(INPUTS);
        let lines = rows.div_ceil(ROWS) * self.tiles * ROWS;
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; INPUTS]));
        }
    }

    /// Splits the first `rows` of `x`, `[.., k]`.
    pub(crate) fn fill(&mut self, workers: &Workers, x: &[f32], k: usize, rows: usize) {
        self.resize(rows, k);
        let whole = self.tiles * ROWS;
        // About ten operations an element.
        let operations = 10 * rows * k;
        workers.rows(
            &mut self.lines[..rows.div_ceil(ROWS) * whole],
            whole,
            operations,
            |tile, lines| {
                for row in tile * ROWS..rows.min((tile + 1) * ROWS) {
                    split(&x[row * k..][..k], row % ROWS, lines);
                }
            },
        );
    }

    /// Splits that many rows of `k`.
    pub(crate) fn fill_with<'a>(
        &mut self,
        rows: impl ExactSizeIterator<Item = &'a [f32]>,
        k: usize,
    ) {
        self.resize(rows.len(), k);
        let whole = self.tiles * ROWS;
        for (row, x) in rows.enumerate() {
            split(
                x,
                row % ROWS,
                &mut self.lines[row / ROWS * whole..][..whole],
            );
        }
    }

    /// The [`ROWS`] rows from `row` on.
    fn tile(&self, row: usize) -> *const u8 {
        assert!(row.is_multiple_of(ROWS), "a tile of rows at {row}");
        let lines = self.tiles * ROWS;
        self.lines[row / ROWS * lines..][..lines].as_ptr().cast()
    }
}

widest! {
    /// Splits a row into its place in a group's tiles. What rounds to more than bf16 holds is cut off
    /// instead, so that what is finite stays so.
    fn split(x: &[f32], place: usize, lines: &mut [Line]) {
        for (x, tiles) in x.chunks(INPUTS).zip(lines.chunks_exact_mut(2 * ROWS)) {
            let mut padded = [0.0; INPUTS];
            padded[..x.len()].copy_from_slice(x);
            let (high, low) = tiles.split_at_mut(ROWS);
            let (high, low) = (&mut high[place].0, &mut low[place].0);
            for ((&x, high), low) in padded.iter().zip(high).zip(low) {
                let cut = x.to_bits() & 0xffff_0000;
                let rounded = round(x);
                let infinite = rounded & 0x7f80_0000 == 0x7f80_0000;
                let kept = if infinite { cut } else { rounded };
                let rest = x - f32::from_bits(kept);
                // Infinity less infinity is no number, of which the rest must have none.
                let rest = if x.is_infinite() { 0.0 } else { rest };
                *high = (kept >> 16) as u16;
                *low = if rest.is_nan() { 0x7fc0 } else { (round(rest) >> 16) as u16 };
            }
        }
    }
}

/// The bits of a number rounded to bf16, to the nearest, ties to even.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
}

/// Rows of sums that a micro-kernel writes, of `16 * MAX_PANELS` columns.
pub(crate) type Sums = [[f32; COLS * MAX_PANELS]; MANY];

/// Computes `out[i][16 j + c]` of some rows, the first at a multiple of [`ROWS`]: of up to [`MANY`] and two
/// panels, or of up to [`ROWS`] and four.
///
/// # Safety
///
/// Each of `w` can be read for the bf16 panel of as many inputs as the rows have, padding included.
///
/// # Panics
///
/// If the registers are configured for something else, there are more rows or panels, or no such rows.
pub(crate) unsafe fn bf16(
    tiles: &Tiles,
    split: &Split,
    rows: Range<usize>,
    w: &[*const u8],
    out: &mut Sums,
) {
    assert_eq!(tiles.shapes, Shapes::Bf16);
    let first = split.tile(rows.start);
    let second = (rows.len() > ROWS).then(|| split.tile(rows.start + ROWS));
    let k = split.tiles / 2;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the unit is there; `k` pairs of tiles of every row and `k` of every panel can be read, and
    // whole tiles of sums written.
    unsafe {
        match (second, w) {
            (Some(second), &[a]) => x86::two_by_two(first, second, [a, a], k, out),
            (Some(second), &[a, b]) => x86::two_by_two(first, second, [a, b], k, out),
            (None, &[a]) => x86::one_by_two(first, [a, a], k, out),
            (None, &[a, b]) => x86::one_by_two(first, [a, b], k, out),
            (None, &[a, b, c]) => x86::one_by_four(first, [a, b, c, c], k, out),
            (None, &[a, b, c, d]) => x86::one_by_four(first, [a, b, c, d], k, out),
            _ => panic!("{} panels of {} rows at once", w.len(), rows.len()),
        }
    }
}

/// Computes `out[i][c]` of up to [`ROWS`] quantised rows and a panel of int8 in groups. Rows of sums up to the
/// next multiple of 4 are written.
///
/// # Safety
///
/// Behind `rows` there are [`ROWS`] rows of `quantized::Rows`, each `row_words` words; `w` can be read for a
/// panel of `k` inputs in int8.
///
/// # Panics
///
/// If the registers are configured for something else, or there are more rows.
pub(crate) unsafe fn int8(
    tiles: &Tiles,
    height: usize,
    rows: *const i32,
    row_words: usize,
    w: *const u8,
    k: usize,
    out: &mut Sums,
) {
    assert_eq!(tiles.shapes, Shapes::Int8);
    assert!(k.is_multiple_of(GROUP), "{k} inputs in groups of {GROUP}");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promises; the unit comes with AVX-512.
    unsafe {
        match height {
            0..=4 => x86::int8::<4>(rows, row_words, w, k, out),
            5..=8 => x86::int8::<8>(rows, row_words, w, k, out),
            9..=12 => x86::int8::<12>(rows, row_words, w, k, out),
            13..=16 => x86::int8::<16>(rows, row_words, w, k, out),
            _ => panic!("{height} rows of a tile"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use crate::Quantization;
    use crate::cpu::quantized::{avx512_scales, group_bytes};
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// Bytes from one row of sums to the next.
    const STRIDE: usize = size_of::<Sums>() / MANY;

    /// Zeroes the sums, then `$k` times the steps, each pointer going on by a tile of each part of the rows or
    /// a tile of a panel, then the stores. `{line}` and `{stride}` are the distances of a tile's rows, in
    /// memory and in the sums, which are an index register's.
    macro_rules! products {
        (
            $k:ident, $out:ident, sums $($sum:literal)+, rows $($rows:ident)+, panels $($panel:ident)+;
            $($step:expr),+;
            $($store:expr),+
        ) => {
            asm!(
                $(concat!("tilezero ", $sum),)+
                "test {k}, {k}",
                "jz 3f",
                "2:",
                $($step,)+
                $(concat!("add {", stringify!($rows), "}, 2048"),)+
                $(concat!("add {", stringify!($panel), "}, 1024"),)+
                "dec {k}",
                "jnz 2b",
                "3:",
                $($store,)+
                $($rows = inout(reg) $rows => _,)+
                $($panel = inout(reg) $panel => _,)+
                k = inout(reg) $k => _,
                out = in(reg) $out,
                line = in(reg) 64usize,
                stride = in(reg) STRIDE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            )
        };
    }

    /// Asks for the 16 lines of a tile, four tiles ahead.
    macro_rules! prefetch {
        ($panel:literal) => {
            concat!(
                ".irp line, 0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960\n",
                "prefetcht0 [{", $panel, "} + 4096 + \\line]\n",
                ".endr",
            )
        };
    }

    /// # Safety
    ///
    /// The unit is there. From `first` and `second` on `2 * k` tiles can be read, from each panel `k`.
    pub(super) unsafe fn two_by_two(
        first: *const u8,
        second: *const u8,
        [a, b]: [*const u8; 2],
        k: usize,
        out: &mut Sums,
    ) {
        const { assert!(ROWS * STRIDE == 4096, "the second tile's sums") };
        // SAFETY: the caller's promises.
        unsafe {
            products!(
                k, out, sums "tmm0" "tmm1" "tmm2" "tmm3", rows first second, panels a b;
                "tileloadd tmm4, [{first} + {line}]",
                "tileloadd tmm6, [{a} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{second} + {line}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{first} + {line} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{second} + {line} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7";
                "tilestored [{out} + {stride}], tmm0",
                "tilestored [{out} + {stride} + 64], tmm1",
                "tilestored [{out} + {stride} + 4096], tmm2",
                "tilestored [{out} + {stride} + 4160], tmm3"
            );
        }
    }

    /// # Safety
    ///
    /// As for [`two_by_two`].
    pub(super) unsafe fn one_by_two(
        first: *const u8,
        [a, b]: [*const u8; 2],
        k: usize,
        out: &mut Sums,
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            products!(
                k, out, sums "tmm0" "tmm1", rows first, panels a b;
                "tileloadd tmm4, [{first} + {line}]",
                "tileloadd tmm6, [{a} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{first} + {line} + 1024]",
                "tdpbf16ps tmm0, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm5, tmm7";
                "tilestored [{out} + {stride}], tmm0",
                "tilestored [{out} + {stride} + 64], tmm1"
            );
        }
    }

    /// # Safety
    ///
    /// As for [`two_by_two`].
    pub(super) unsafe fn one_by_four(
        first: *const u8,
        [a, b, c, d]: [*const u8; 4],
        k: usize,
        out: &mut Sums,
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            products!(
                k, out, sums "tmm0" "tmm1" "tmm2" "tmm3", rows first, panels a b c d;
                "tileloadd tmm4, [{first} + {line}]",
                "tileloadd tmm5, [{first} + {line} + 1024]",
                "tileloadd tmm6, [{a} + {line}]",
                prefetch!("a"),
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line}]",
                prefetch!("b"),
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm0, tmm5, tmm6",
                "tileloadd tmm6, [{c} + {line}]",
                prefetch!("c"),
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm5, tmm7",
                "tileloadd tmm7, [{d} + {line}]",
                prefetch!("d"),
                "tdpbf16ps tmm3, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7";
                "tilestored [{out} + {stride}], tmm0",
                "tilestored [{out} + {stride} + 64], tmm1",
                "tilestored [{out} + {stride} + 128], tmm2",
                "tilestored [{out} + {stride} + 192], tmm3"
            );
        }
    }

    /// One group's integer sums of 16 rows and columns.
    #[repr(C, align(64))]
    struct Integers([[i32; COLS]; ROWS]);

    /// Groups at once. A store of a tile is not handed on to loads before it is in the cache, which the
    /// products of the next groups hide; with more than two the stores of some would lie 4 KiB from the loads of
    /// others, which waits as well.
    const AT_ONCE: usize = 2;

    /// Multiplies a group, 16 rows `$stride` bytes apart, with sums in `$sums`.
    macro_rules! multiply {
        ($sums:tt, $rows:tt, $w:tt, $at:expr, $stride:expr, $w_at:expr, $to:expr) => {
            asm!(
                concat!("tilezero ", $sums),
                concat!("tileloadd ", $rows, ", [{at} + {stride}]"),
                concat!("tileloadd ", $w, ", [{w_at} + {line}]"),
                concat!("tdpbssd ", $sums, ", ", $rows, ", ", $w),
                concat!("tilestored [{to} + {line}], ", $sums),
                at = in(reg) $at,
                stride = in(reg) $stride,
                w_at = in(reg) $w_at,
                to = in(reg) $to,
                line = in(reg) 64usize,
                out($sums) _, out($rows) _, out($w) _,
                options(nostack),
            )
        };
    }

    /// Writes the sums of `HEIGHT` rows, of which the registers hold as many or more.
    ///
    /// # Safety
    ///
    /// As for [`int8`](super::int8), the machine having the unit.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn int8<const HEIGHT: usize>(
        rows: *const i32,
        row_words: usize,
        w: *const u8,
        k: usize,
        out: &mut Sums,
    ) {
        let (words, groups) = (k / 4, k / GROUP);
        let group_bytes = group_bytes(Quantization::Int8);
        let scales_bytes = group_bytes - GROUP * COLS;
        let mut integers = [const { [const { Integers([[0; COLS]; ROWS]) }; AT_ONCE] }; 2];
        let mut sums = [_mm512_setzero_ps(); HEIGHT];
        // SAFETY: the caller promises every pointer for exactly these ranges.
        unsafe {
            let multiply = |first: usize, to: &mut [Integers; AT_ONCE]| {
                let at = |i: usize| rows.add((first + i) * GROUP / 4);
                let w = |i: usize| w.add((first + i) * group_bytes + scales_bytes);
                let stride = row_words * 4;
                let left = groups.saturating_sub(first);
                if left > 0 {
                    multiply!("tmm0", "tmm4", "tmm6", at(0), stride, w(0), &mut to[0]);
                }
                if left > 1 {
                    multiply!("tmm1", "tmm5", "tmm7", at(1), stride, w(1), &mut to[1]);
                }
            };
            multiply(0, &mut integers[0]);
            for (turn, first) in (0..groups).step_by(AT_ONCE).enumerate() {
                // The unit works on the next groups while these ones' sums are added.
                multiply(first + AT_ONCE, &mut integers[(turn + 1) % 2]);
                for g in first..groups.min(first + AT_ONCE) {
                    let scales = avx512_scales(w.add(g * group_bytes));
                    let integers = &integers[turn % 2][g - first].0;
                    for i in 0..HEIGHT {
                        let sx = *rows.add(i * row_words + words + g);
                        let sx = _mm512_set1_ps(f32::from_bits(sx as u32));
                        let sum = _mm512_load_si512(integers[i].as_ptr().cast());
                        let scale = _mm512_mul_ps(sx, scales);
                        sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, sums[i]);
                    }
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                _mm512_storeu_ps(out.as_mut_ptr(), sum);
            }
        }
    }
}
