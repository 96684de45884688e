//! The GEMM micro-kernel that linear layers and both passes of attention share.
//!
//! What: `out[i][16 j + c] = (load ? out[i][16 j + c] : 0) + sum_k x[i][k] * w[j][k][c]` for up to
//! [`MAX_ROWS`] rows `i`, panels `j` and 16 columns `c`.
//!
//! Tiling: the sums of `rows x` [`panels_at_once`] stay in registers over all of `k`: at most 6 x 1
//! with AVX2 (12 of 16 registers), 6 x 2 with AVX-512 (12 of 32). One or two rows take several
//! panels instead, so that at least 8 independent sums hide the latency of the multiply-add units.
//! Three rows on AVX2 do not: 3 x 2 sums and the weights need one register too many.
//!
//! If few tiles share a panel, memory is idle while all tiles but the first compute. With AVX2 and
//! one panel at a time, each tile therefore prefetches its share of the next panel ([`Prefetch`]).
//! (Measured with `offshoot bench linear --layer gate-up` on one Zen 3 core: 4 rows went from 48
//! to 65 % of the read bandwidth, 16 rows from 82 to 91 % of the multiply-add peak. Not measured
//! with AVX-512, and therefore not built.)
//!
//! Layout: a *panel* is `[k][16]` in f32 or f16, and `[k / 2][16][2]` in bf16 ([`pair_offset`]):
//! two consecutive inputs of a column share a 32-bit word. A shift and a mask widen it, and
//! `tdpbf16ps` reads it as it is ([`amx`](super::amx)). Rows, panels and outputs are given as
//! pointers, each contiguous, of any alignment.
//!
//! Numerics: f32. Every element's terms are added in the order of `k`, one fused multiply-add
//! each, in every tile. So the bits depend on `x[i]` and the column alone, and splitting `k` over
//! several calls with `load` does not change them. On a machine without fused multiply-add the
//! portable path rounds before it adds. Columns never mix: garbage in one stays in it.
//!
//! Budget: `k * panels * 16 * width` bytes of weights, `2 * k * rows * panels * 16` FLOPs.
#![allow(unsafe_code)] // SIMD intrinsics on raw pointers; each function states what it needs.
#![allow(clippy::needless_range_loop)] // Constant bounds, so that the sums stay in registers.

use crate::Dtype;
use half::f16;

/// Columns of a panel.
pub(crate) const COLS: usize = 16;
/// Rows of the largest tile.
pub(crate) const MAX_ROWS: usize = 6;
/// Panels of the widest tile.
pub(crate) const MAX_PANELS: usize = 4;
/// [`Dtype`] as a const generic argument.
const F32: u8 = Dtype::F32 as u8;
const BF16: u8 = Dtype::Bf16 as u8;
const F16: u8 = Dtype::F16 as u8;

/// Index of input `k` of a column in a panel of pairs, `[k / 2][16][2]`.
pub(crate) const fn pair_offset(k: usize, column: usize) -> usize {
    (k / 2 * COLS + column) * 2 + k % 2
}

/// Inputs of a bf16 weight panel of `k` inputs, padding included: whole AMX tiles, on every
/// machine.
pub(crate) const fn padded_inputs(k: usize) -> usize {
    k.next_multiple_of(32)
}

/// Panels that a tile of `rows` rows takes at once. Does not grow with `rows`.
pub(crate) const fn panels_at_once(isa: Isa, rows: usize) -> usize {
    match (isa.vectors(), rows) {
        (_, 1) => 4,
        // A panel's 16 columns are one register.
        (Isa::Avx512, 2 | 3) => 4,
        (Isa::Avx512, _) => 2,
        (_, 2) => 2,
        _ => 1,
    }
}

/// Cuts `rows` into the fewest parts of at most `max` rows and nearly equal height that begin at
/// multiples of `unit`, a divisor of `max`; yields their `(first, count)`.
pub(crate) fn row_parts(
    rows: usize,
    max: usize,
    unit: usize,
) -> impl ExactSizeIterator<Item = (usize, usize)> + Clone {
    let parts = rows.div_ceil(max);
    let first = move |i: usize| (i * rows / parts).next_multiple_of(unit).min(rows);
    (0..parts).map(move |i| (first(i), first(i + 1) - first(i)))
}

/// The tiles of `rows` rows.
pub(crate) fn row_tiles(rows: usize) -> impl ExactSizeIterator<Item = (usize, usize)> + Clone {
    row_parts(rows, MAX_ROWS, 1)
}

/// An instruction set the CPU backend has a micro-kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, compiled for the target.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, VNNI).
    Avx512,
    /// [`Isa::Avx512`] with AMX (BF16, INT8), on Linux.
    Amx,
}

impl Isa {
    /// All instruction sets, the widest last.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Amx];

    /// The instruction set named `word`, if this machine has it.
    ///
    /// # Errors
    ///
    /// A sentence that says what was expected.
    pub fn parse(word: &str) -> Result<Isa, String> {
        let same = |isa: &Isa| isa.name().eq_ignore_ascii_case(word);
        match Isa::ALL.into_iter().find(same) {
            Some(isa) if isa.available() => Ok(isa),
            Some(isa) => Err(format!("this CPU has no {}", isa.name())),
            None => Err("expected portable, avx2, avx-512 or amx".into()),
        }
    }

    /// The vector instruction set that its code uses beside tiles: AMX comes with AVX-512.
    pub(crate) const fn vectors(self) -> Isa {
        match self {
            Isa::Amx => Isa::Avx512,
            Isa::Portable | Isa::Avx2 | Isa::Avx512 => self,
        }
    }

    /// The widest one this machine has.
    pub fn best() -> Isa {
        let mut from_best = Isa::ALL.into_iter().rev();
        from_best
            .find(|isa| isa.available())
            .unwrap_or(Isa::Portable)
    }

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Isa::Amx => Isa::Avx512.available() && super::amx::available(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => false,
        }
    }

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "AVX2",
            Isa::Avx512 => "AVX-512",
            Isa::Amx => "AMX",
        }
    }
}

/// Expands to `$run!(rows x panels, args)` with both numbers as literals.
macro_rules! for_each_tile {
    ($run:ident, $rows:expr, $panels:expr $(, $arg:expr)*) => {
        match ($rows, $panels) {
            (1, 1) => $run!(1 x 1 $(, $arg)*),
            (1, 2) => $run!(1 x 2 $(, $arg)*),
            (1, 3) => $run!(1 x 3 $(, $arg)*),
            (1, 4) => $run!(1 x 4 $(, $arg)*),
            (2, 1) => $run!(2 x 1 $(, $arg)*),
            (2, 2) => $run!(2 x 2 $(, $arg)*),
            (2, 3) => $run!(2 x 3 $(, $arg)*),
            (2, 4) => $run!(2 x 4 $(, $arg)*),
            (3, 1) => $run!(3 x 1 $(, $arg)*),
            (3, 2) => $run!(3 x 2 $(, $arg)*),
            (3, 3) => $run!(3 x 3 $(, $arg)*),
            (3, 4) => $run!(3 x 4 $(, $arg)*),
            (4, 1) => $run!(4 x 1 $(, $arg)*),
            (4, 2) => $run!(4 x 2 $(, $arg)*),
            (5, 1) => $run!(5 x 1 $(, $arg)*),
            (5, 2) => $run!(5 x 2 $(, $arg)*),
            (6, 1) => $run!(6 x 1 $(, $arg)*),
            (6, 2) => $run!(6 x 2 $(, $arg)*),
            (rows, panels) => unreachable!("no tile of {rows} rows and {panels} panels"),
        }
    };
}
pub(crate) use for_each_tile;

/// Memory that a tile prefetches while it computes: its share of the next panel. (The hardware
/// prefetchers stop at the end of a page.)
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // Only AVX2's tiles prefetch.
pub(crate) struct Prefetch {
    addr: *const u8,
    /// Bytes from one prefetch to the next.
    stride: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // Only AVX2's tiles prefetch.
impl Prefetch {
    /// The share of tile `index` of `tiles` in `panel`, each of which prefetches `count` times.
    pub(crate) fn share(panel: &[u8], count: usize, index: usize, tiles: usize) -> Prefetch {
        let stride = panel.len() / count.max(1) / tiles;
        let addr = panel.as_ptr().wrapping_add(stride * count * index);
        Prefetch { addr, stride }
    }

    /// Prefetches `addr` again and again, which costs nothing.
    pub(crate) fn nothing(addr: *const u8) -> Prefetch {
        Prefetch { addr, stride: 0 }
    }

    /// `prefetcht1` of the next address; it need not be mapped.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn next(&mut self) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch does not access memory architecturally, and x86-64 always has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(self.addr.cast()) };
        self.addr = self.addr.wrapping_add(self.stride);
    }
}

/// Prefetches of a tile of `k` inputs: one per two inputs, which are a cache line in 16-bit types.
pub(crate) const fn prefetches(k: usize) -> usize {
    k / 2
}

/// Multiplies up to [`MAX_ROWS`] rows with any number of panels, [`panels_at_once`] at a time; see
/// the file's head.
///
/// # Safety
///
/// `isa` is available. Each of `x` can be read for `k` f32, each of `w` for `k * 16` elements of
/// `dtype`, each of `out` can be written for `w.len() * 16` f32 (and read, if `load`), and no
/// other thread touches `out` meanwhile.
///
/// # Panics
///
/// If there is no tile of `x.len()` rows, or `out.len() != x.len()`.
#[allow(clippy::too_many_arguments)] // each is one of the formula's names
pub(crate) unsafe fn tile(
    isa: Isa,
    dtype: Dtype,
    x: &[*const f32],
    w: &[*const u8],
    k: usize,
    load: bool,
    out: &[*mut f32],
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused))] prefetch: Option<Prefetch>,
) {
    macro_rules! run {
        ($rows:literal x $panels:literal, $done:expr, $w:expr) => {{
            let x: &[*const f32; $rows] = x.try_into().expect("matched");
            let out: &[*mut f32; $rows] = out.try_into().expect("an output for every row");
            // SAFETY: `done` panels of 16 columns lie within every output.
            let out = &out.map(|out| unsafe { out.add($done * COLS) });
            let (w, _): (&[[*const u8; $panels]], _) = $w.as_chunks();
            // SAFETY: the caller's promises are those the variants need.
            unsafe {
                match (isa.vectors(), dtype) {
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, Dtype::F32) => {
                        avx2::<$rows, $panels, F32>(x, w, k, load, out, prefetch)
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, Dtype::Bf16) => {
                        avx2::<$rows, $panels, BF16>(x, w, k, load, out, prefetch)
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, Dtype::F16) => {
                        avx2::<$rows, $panels, F16>(x, w, k, load, out, prefetch)
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, Dtype::F32) => avx512::<$rows, $panels, F32>(x, w, k, load, out),
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, Dtype::Bf16) => {
                        avx512::<$rows, $panels, BF16>(x, w, k, load, out)
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, Dtype::F16) => avx512::<$rows, $panels, F16>(x, w, k, load, out),
                    (_, Dtype::F32) => portable::<$rows, $panels, F32>(x, w, k, load, out),
                    (_, Dtype::Bf16) => portable::<$rows, $panels, BF16>(x, w, k, load, out),
                    (_, Dtype::F16) => portable::<$rows, $panels, F16>(x, w, k, load, out),
                }
            }
        }};
    }
    let at_once = panels_at_once(isa, x.len());
    let (whole, rest) = w.split_at(w.len() / at_once * at_once);
    if !whole.is_empty() {
        for_each_tile!(run, x.len(), at_once, 0, whole);
    }
    if !rest.is_empty() {
        for_each_tile!(run, x.len(), rest.len(), whole.len(), rest);
    }
}

/// [`tile`] with AVX2, FMA and F16C.
///
/// # Safety
///
/// As for [`tile`], the machine having these.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const ROWS: usize, const PANELS: usize, const DTYPE: u8>(
    x: &[*const f32; ROWS],
    w: &[[*const u8; PANELS]],
    k: usize,
    load: bool,
    out: &[*mut f32; ROWS],
    prefetch: Option<Prefetch>,
) {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises every pointer for exactly these ranges.
    unsafe {
        for (group, w) in w.iter().enumerate() {
            let column = |j: usize| COLS * (PANELS * group + j);
            let mut sums = [[[_mm256_setzero_ps(); 2]; PANELS]; ROWS];
            if load {
                for i in 0..ROWS {
                    for j in 0..PANELS {
                        sums[i][j][0] = _mm256_loadu_ps(out[i].add(column(j)));
                        sums[i][j][1] = _mm256_loadu_ps(out[i].add(column(j) + 8));
                    }
                }
            }
            let mut multiply_add = |k: usize, odd: bool| {
                for j in 0..PANELS {
                    let [low, high] = avx2_row::<DTYPE>(w[j], k, odd);
                    for i in 0..ROWS {
                        let x = _mm256_broadcast_ss(&*x[i].add(k));
                        sums[i][j][0] = _mm256_fmadd_ps(x, low, sums[i][j][0]);
                        sums[i][j][1] = _mm256_fmadd_ps(x, high, sums[i][j][1]);
                    }
                }
            };
            let mut prefetch = prefetch.unwrap_or(Prefetch::nothing(w[0]));
            for pair in 0..k / 2 {
                // Several panels at once already saturate memory.
                if PANELS == 1 {
                    prefetch.next();
                }
                multiply_add(2 * pair, false);
                multiply_add(2 * pair + 1, true);
            }
            if k % 2 == 1 {
                multiply_add(k - 1, false);
            }
            for i in 0..ROWS {
                for j in 0..PANELS {
                    _mm256_storeu_ps(out[i].add(column(j)), sums[i][j][0]);
                    _mm256_storeu_ps(out[i].add(column(j) + 8), sums[i][j][1]);
                }
            }
        }
    }
}

/// The 16 weights of input `k` of a panel, widened to f32; `odd` is whether `k` is odd.
///
/// # Safety
///
/// `panel` can be read for more than `k` inputs, and the machine has AVX2 and F16C.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_row<const DTYPE: u8>(
    panel: *const u8,
    k: usize,
    odd: bool,
) -> [std::arch::x86_64::__m256; 2] {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises the panel.
    unsafe {
        if DTYPE == BF16 {
            let words: *const __m256i = panel.add(64 * (k / 2)).cast();
            let words = [0, 1].map(|half| _mm256_loadu_si256(words.add(half)));
            if odd {
                let odd_half = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                words.map(|w| _mm256_castsi256_ps(_mm256_and_si256(w, odd_half)))
            } else {
                words.map(|w| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(w)))
            }
        } else if DTYPE == F16 {
            let row: *const __m128i = panel.add(32 * k).cast();
            [
                _mm256_cvtph_ps(_mm_loadu_si128(row)),
                _mm256_cvtph_ps(_mm_loadu_si128(row.add(1))),
            ]
        } else {
            let row: *const f32 = panel.add(64 * k).cast();
            [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8))]
        }
    }
}

/// [`tile`] with AVX-512.
///
/// # Safety
///
/// As for [`tile`], the machine having it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROWS: usize, const PANELS: usize, const DTYPE: u8>(
    x: &[*const f32; ROWS],
    w: &[[*const u8; PANELS]],
    k: usize,
    load: bool,
    out: &[*mut f32; ROWS],
) {
    use std::arch::x86_64::*;
    let odd_half = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    // SAFETY: the caller promises every pointer for exactly these ranges.
    unsafe {
        for (group, w) in w.iter().enumerate() {
            let column = |j: usize| COLS * (PANELS * group + j);
            let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
            if load {
                for i in 0..ROWS {
                    for j in 0..PANELS {
                        sums[i][j] = _mm512_loadu_ps(out[i].add(column(j)));
                    }
                }
            }
            let mut multiply_add = |k: usize, odd: bool| {
                for j in 0..PANELS {
                    let row = if DTYPE == BF16 {
                        let words = _mm512_loadu_si512(w[j].add(64 * (k / 2)).cast());
                        _mm512_castsi512_ps(if odd {
                            _mm512_and_si512(words, odd_half)
                        } else {
                            _mm512_slli_epi32::<16>(words)
                        })
                    } else if DTYPE == F16 {
                        _mm512_cvtph_ps(_mm256_loadu_si256(w[j].add(32 * k).cast()))
                    } else {
                        _mm512_loadu_ps(w[j].add(64 * k).cast())
                    };
                    for i in 0..ROWS {
                        let x = _mm512_set1_ps(*x[i].add(k));
                        sums[i][j] = _mm512_fmadd_ps(x, row, sums[i][j]);
                    }
                }
            };
            for pair in 0..k / 2 {
                multiply_add(2 * pair, false);
                multiply_add(2 * pair + 1, true);
            }
            if k % 2 == 1 {
                multiply_add(k - 1, false);
            }
            for i in 0..ROWS {
                for j in 0..PANELS {
                    _mm512_storeu_ps(out[i].add(column(j)), sums[i][j]);
                }
            }
        }
    }
}

/// `a * b + c`, rounded once if the target has the instruction. (Without it `mul_add` would be a
/// call into the C library.)
#[inline(always)]
pub(crate) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// [`tile`] in plain Rust.
///
/// # Safety
///
/// As for [`tile`].
unsafe fn portable<const ROWS: usize, const PANELS: usize, const DTYPE: u8>(
    x: &[*const f32; ROWS],
    w: &[[*const u8; PANELS]],
    k: usize,
    load: bool,
    out: &[*mut f32; ROWS],
) {
    // SAFETY: the caller promises every pointer for exactly these ranges.
    unsafe {
        for (group, w) in w.iter().enumerate() {
            let out_ptr = |i: usize, j: usize| -> *mut [f32; COLS] {
                out[i].add(COLS * (PANELS * group + j)).cast()
            };
            let mut sums = [[[0.0f32; COLS]; PANELS]; ROWS];
            if load {
                for i in 0..ROWS {
                    for j in 0..PANELS {
                        sums[i][j] = out_ptr(i, j).read_unaligned();
                    }
                }
            }
            for k in 0..k {
                for j in 0..PANELS {
                    let row = if DTYPE == BF16 {
                        let words = w[j].add(64 * (k / 2)).cast::<[u32; COLS]>();
                        words.read_unaligned().map(|word| {
                            f32::from_bits(match k % 2 {
                                0 => word << 16,
                                _ => word & 0xffff_0000,
                            })
                        })
                    } else if DTYPE == F16 {
                        let halves = w[j].add(32 * k).cast::<[u16; COLS]>().read_unaligned();
                        halves.map(|half| f16::from_bits(half).to_f32())
                    } else {
                        w[j].add(64 * k).cast::<[f32; COLS]>().read_unaligned()
                    };
                    for i in 0..ROWS {
                        let x = *x[i].add(k);
                        for c in 0..COLS {
                            sums[i][j][c] = multiply_add(x, row[c], sums[i][j][c]);
                        }
                    }
                }
            }
            for i in 0..ROWS {
                for j in 0..PANELS {
                    out_ptr(i, j).write_unaligned(sums[i][j]);
                }
            }
        }
    }
}
