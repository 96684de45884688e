//! The GEMM micro-kernel for quantised weights.
//!
//! What: `out[i][16 j + c] = sum_g sx[i][g] * sw[j][g][c] * sum_{k in g} q[i][k] * w[j][k][c]`, for
//! up to [`MAX_ROWS`](super::tile::MAX_ROWS) rows `i`, panels `j` and 16 columns `c`; `g` are the
//! groups of 32 of [`quant`](crate::quant).
//!
//! Tiling: as in [`tile`](super::tile). The integer sums of `rows x panels` stay in registers for
//! one group. The f32 sums are kept in `out`, in the first-level cache, and are updated once per
//! group. The next panel is prefetched as in `tile`, except for int4 of more than four rows, which
//! reads too little to gain from it.
//!
//! Layout: a panel is a sequence of groups. A group is its 16 scales (bf16, in the order of
//! [`scale_offset`]) and its integers ([`Packing`]):
//! - int8, `[k / 2][c][2]`: `vpmaddwd` multiplies and adds two inputs of one column.
//! - int8 for AVX-512 and AMX, `[k / 4][c][4]`: `vpdpbusd` and `tdpbssd` multiply and add four
//!   inputs of one column. For `vpdpbusd` the weights are biased by 128: it takes one unsigned and
//!   one signed operand.
//! - int4, biased by 8, `[k / 4][c % 8][4]` bytes, `c < 8` in the low half, `c >= 8` in the high
//!   half: `vpmaddubsw` adds four inputs of one column to two 16-bit sums, `vpdpbusd` to one 32-bit
//!   sum.
//!
//! A row is its `q` (i16 for weights in pairs, else i8), its scales, and its group sums times the
//! weights' bias, which are subtracted once per group.
//!
//! Numerics: a group's sum is an exact integer below 2^20; the 16-bit sums of int4 stay below
//! `8 * 2 * 15 * 127` = 30,480. Groups are added in order, each with one fused multiply-add of its
//! sum and the rounded product of both scales. So the bits depend on the row and the column alone. The
//! portable path differs from AVX2 only on machines without fused multiply-add.
//!
//! Budget: `34 / 32` (int8) or `18 / 32` (int4) bytes a weight; `2 * k * rows * panels * 16`
//! operations. One instruction multiplies 8 pairs of f32, 16 of int8 (`vpmaddwd`), 32 of int4
//! (`vpmaddubsw`), or 64 of either (VNNI). Those without a fused addition are followed by one.
#![allow(unsafe_code)] // SIMD intrinsics on raw pointers; each function states what it needs.
#![allow(clippy::needless_range_loop)] // Constant bounds, so that the sums stay in registers.

use super::amx;
use super::tile::{COLS, Isa, Prefetch, multiply_add};
use super::workers::Workers;
use crate::quant::{GROUP, Quantization, Quantized, quantize_row};
use crate::widest::widest;

/// [`Quantization`] as a const generic argument.
const INT8: u8 = Quantization::Int8 as u8;
const INT4: u8 = Quantization::Int4 as u8;

/// The layout of a group's integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// int8, `[k / 2][c][2]`.
    Pairs,
    /// int8, `[k / 4][c][4]`.
    Fours,
    /// int4 biased by 8, `[k / 4][c % 8][4]`, two to a byte.
    Nibbles,
}

impl Packing {
    const fn of(isa: Isa, kind: Quantization) -> Packing {
        match (isa.vectors(), kind) {
            (_, Quantization::Int4) => Packing::Nibbles,
            (Isa::Avx512, Quantization::Int8) => Packing::Fours,
            (_, Quantization::Int8) => Packing::Pairs,
        }
    }

    /// Added to every weight that the vector units multiply.
    const fn bias(self) -> i32 {
        match self {
            Packing::Pairs => 0,
            Packing::Fours => 128,
            Packing::Nibbles => 8,
        }
    }

    /// 32-bit words of a row's `q`.
    const fn value_words(self, k: usize) -> usize {
        match self {
            Packing::Pairs => k / 2,
            Packing::Fours | Packing::Nibbles => k / 4,
        }
    }

    /// Words of a row.
    const fn row_words(self, k: usize) -> usize {
        self.value_words(k) + 2 * (k / GROUP)
    }
}

/// Index of column `c`'s scale among the group's. The columns are in the order 0, 8, 1, 9, ..., 7,
/// 15, so that one shift and one mask widen all 16 scales.
const fn scale_offset(column: usize) -> usize {
    2 * (column % 8) + column / 8
}

/// Widens 16 scales in the order of [`scale_offset`]: columns 0 to 7, and 8 to 15.
///
/// # Safety
///
/// `row` can be read for 32 bytes, and the machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn avx2_scales(row: *const u8) -> [std::arch::x86_64::__m256; 2] {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises the bytes.
    let words = unsafe { _mm256_loadu_si256(row.cast()) };
    // Each 32-bit word holds column c in its low half and column c + 8 in its high half.
    let above = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    [
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)),
        _mm256_castsi256_ps(_mm256_and_si256(words, above)),
    ]
}

/// [`avx2_scales`] in one register.
///
/// # Safety
///
/// `row` can be read for 32 bytes, and the machine has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn avx512_scales(row: *const u8) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise, and AVX-512 comes with AVX2.
    let [low, high] = unsafe { avx2_scales(row) };
    let low = _mm512_castpd256_pd512(_mm256_castps_pd(low));
    _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, _mm256_castps_pd(high)))
}

/// Bytes of a group's scales.
const SCALE_BYTES: usize = COLS * 2;

/// Bytes of one group of a panel.
pub(crate) const fn group_bytes(kind: Quantization) -> usize {
    SCALE_BYTES + GROUP * COLS * kind.bits() / 8
}

/// Writes one output feature (`row` of `matrix`) into its column of a panel.
pub(crate) fn pack_column(
    isa: Isa,
    matrix: &Quantized<'_>,
    row: usize,
    column: usize,
    panel: &mut [u8],
) {
    let packing = Packing::of(isa, matrix.kind);
    for (g, group) in panel.chunks_exact_mut(group_bytes(matrix.kind)).enumerate() {
        let (scales, values) = group.split_at_mut(SCALE_BYTES);
        scales[2 * scale_offset(column)..][..2]
            .copy_from_slice(&matrix.scale(row, g).to_le_bytes());
        for k in 0..GROUP {
            let value = matrix.value(row, g * GROUP + k);
            match packing {
                Packing::Pairs => values[(k / 2 * COLS + column) * 2 + k % 2] = value as u8,
                Packing::Fours => values[(k / 4 * COLS + column) * 4 + k % 4] = value as u8,
                Packing::Nibbles => {
                    let biased = (value + 8) as u8;
                    values[(k / 4 * 8 + column % 8) * 4 + k % 4] |= biased << (column / 8 * 4);
                }
            }
        }
    }
}

widest! {
    /// Widens an int4 panel to int8 in [`Packing::Fours`].
    pub(crate) fn widen_panel(panel: &[u8], out: &mut Vec<u8>) {
        let (narrow, wide) = (group_bytes(Quantization::Int4), group_bytes(Quantization::Int8));
        let len = panel.len() / narrow * wide;
        if out.len() < len {
            out.resize(len, 0);
        }
        for (from, to) in panel.chunks_exact(narrow).zip(out.chunks_exact_mut(wide)) {
            let (scales, values) = from.split_at(SCALE_BYTES);
            let (to_scales, to_values) = to.split_at_mut(SCALE_BYTES);
            to_scales.copy_from_slice(scales);
            // Four inputs of all columns: columns 0 to 7 in the low halves, 8 to 15 in the high
            // ones.
            for (from, to) in values.chunks_exact(32).zip(to_values.chunks_exact_mut(64)) {
                let (low, high) = to.split_at_mut(32);
                for ((&from, low), high) in from.iter().zip(low).zip(high) {
                    *low = (from & 15).wrapping_sub(8);
                    *high = (from >> 4).wrapping_sub(8);
                }
            }
        }
    }
}

/// Quantised rows; the memory is reused by the next GEMM. A row is 32-bit words: its `q`, its
/// `k / GROUP` scales (f32), and as many sums of `q` (i32, times the weights' bias).
#[derive(Debug, Default)]
pub(crate) struct Rows {
    words: Vec<i32>,
    row_words: usize,
}

impl Rows {
    /// Quantises the first `rows` rows of `x`, `[.., k]`, for weights of `kind`.
    pub(crate) fn fill(
        &mut self,
        workers: &Workers,
        (isa, kind): (Isa, Quantization),
        x: &[f32],
        k: usize,
        rows: usize,
    ) {
        let packing = Packing::of(isa, kind);
        let words = packing.row_words(k);
        self.row_words = words;
        // AMX reads whole tiles of rows.
        let room = rows.next_multiple_of(amx::ROWS) * words;
        if self.words.len() < room {
            self.words.resize(room, 0);
        }
        // About eight operations an element.
        let operations = 8 * rows * k;
        workers.rows(
            &mut self.words[..rows * words],
            words,
            operations,
            |i, row| {
                let (values, others) = row.split_at_mut(packing.value_words(k));
                let (scales, sums) = others.split_at_mut(k / GROUP);
                let (x, scales) = (&x[i * k..][..k], bytemuck::cast_slice_mut(scales));
                if packing == Packing::Pairs {
                    let values: &mut [i16] = bytemuck::cast_slice_mut(values);
                    let mut q = [0i8; GROUP];
                    for (g, values) in values.chunks_exact_mut(GROUP).enumerate() {
                        let x = &x[g * GROUP..][..GROUP];
                        quantize_row(x, &mut q, &mut scales[g..=g], &mut sums[g..=g]);
                        values.iter_mut().zip(q).for_each(|(v, q)| *v = q.into());
                    }
                } else {
                    quantize_row(x, bytemuck::cast_slice_mut(values), scales, sums);
                }
                sums.iter_mut().for_each(|sum| *sum *= packing.bias());
            },
        );
    }

    /// The words of row `i` and of all rows after it.
    pub(crate) fn row(&self, i: usize) -> &[i32] {
        &self.words[i * self.row_words..]
    }

    /// Words of each row.
    pub(crate) fn row_words(&self) -> usize {
        self.row_words
    }
}

/// Multiplies up to [`MAX_ROWS`](super::tile::MAX_ROWS) rows with some panels; see the file's head.
///
/// # Safety
///
/// `isa` is available. Each of `x` is a row of [`Rows`] for this `isa`, kind and `k`, each of `w`
/// can be read for `k / GROUP * group_bytes(kind)` bytes, each of `out` can be written for
/// `w.len() * 16` f32, and no other thread touches `out` meanwhile.
///
/// # Panics
///
/// If there is no tile of `x.len()` rows and `w.len()` panels, or `out.len() != x.len()`.
pub(crate) unsafe fn tile(
    isa: Isa,
    kind: Quantization,
    x: &[*const i32],
    w: &[*const u8],
    k: usize,
    out: &[*mut f32],
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused))] prefetch: Option<Prefetch>,
) {
    macro_rules! run {
        ($rows:literal x $panels:literal) => {{
            let x: &[*const i32; $rows] = x.try_into().expect("matched");
            let w: &[*const u8; $panels] = w.try_into().expect("matched");
            let out: &[*mut f32; $rows] = out.try_into().expect("an output for every row");
            // SAFETY: the caller's promises are those the variants need.
            unsafe {
                match (isa.vectors(), kind) {
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, Quantization::Int8) => {
                        avx2::<$rows, $panels, INT8>(x, w, k, out, prefetch)
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, Quantization::Int4) => {
                        avx2::<$rows, $panels, INT4>(x, w, k, out, prefetch)
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, Quantization::Int8) => {
                        avx512::<$rows, $panels, INT8>(x, w, k, out);
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, Quantization::Int4) => {
                        avx512::<$rows, $panels, INT4>(x, w, k, out);
                    }
                    (_, Quantization::Int8) => portable::<$rows, $panels, INT8>(x, w, k, out),
                    (_, Quantization::Int4) => portable::<$rows, $panels, INT4>(x, w, k, out),
                }
            }
        }};
    }
    super::tile::for_each_tile!(run, x.len(), w.len());
}

/// Loads of a group with AVX2, each of 32 bytes of a panel and one word of a row: two inputs of
/// int8, or four of int4.
const fn loads(kind: Quantization) -> usize {
    match kind {
        Quantization::Int8 => GROUP / 2,
        Quantization::Int4 => GROUP / 4,
    }
}

/// Prefetches of a tile of `k` inputs: one per two loads, which are a cache line.
pub(crate) const fn prefetches(kind: Quantization, k: usize) -> usize {
    k / GROUP * loads(kind) / 2
}

/// `sum += a * b` as two named instructions. (The compiler may reorder integer sums, and does so
/// until it spills registers.)
#[cfg(target_arch = "x86_64")]
macro_rules! multiply_add {
    ($multiply:literal, $add:literal, $sum:expr, $a:expr, $b:expr) => {
        std::arch::asm!(
            concat!($multiply, " {t}, {a}, {b}"),
            concat!($add, " {sum}, {sum}, {t}"),
            t = out(ymm_reg) _,
            a = in(ymm_reg) $a,
            b = in(ymm_reg) $b,
            sum = inout(ymm_reg) $sum,
            options(pure, nomem, nostack, preserves_flags),
        )
    };
}

/// [`tile`] with AVX2 and FMA.
///
/// # Safety
///
/// As for [`tile`], the machine having these.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize, const PANELS: usize, const KIND: u8>(
    x: &[*const i32; ROWS],
    w: &[*const u8; PANELS],
    k: usize,
    out: &[*mut f32; ROWS],
    prefetch: Option<Prefetch>,
) {
    use std::arch::x86_64::*;
    let kind = match KIND {
        INT4 => Quantization::Int4,
        _ => Quantization::Int8,
    };
    let loads = loads(kind);
    let groups = k / GROUP;
    let words = groups * loads;
    // More rows leave no register for prefetches between the loads.
    let between = ROWS <= 4;
    let mut prefetch = prefetch.unwrap_or(Prefetch::nothing(w[0]));
    // SAFETY: the caller promises every pointer for exactly these ranges.
    unsafe {
        for i in 0..ROWS {
            for c in 0..2 * PANELS {
                _mm256_storeu_ps(out[i].add(8 * c), _mm256_setzero_ps());
            }
        }
        for g in 0..groups {
            let mut sums = [[[_mm256_setzero_si256(); 2]; PANELS]; ROWS];
            let group = w.map(|w| w.add(g * group_bytes(kind)));
            if PANELS == 1 && !between && KIND == INT8 {
                for _ in 0..loads / 2 {
                    prefetch.next();
                }
            }
            for load in 0..loads {
                if PANELS == 1 && between && load % 2 == 0 {
                    prefetch.next();
                }
                for j in 0..PANELS {
                    let [low, high] = avx2_weights::<KIND>(group[j].add(SCALE_BYTES + 32 * load));
                    for i in 0..ROWS {
                        let x = _mm256_set1_epi32(*x[i].add(g * loads + load));
                        let [a, b] = &mut sums[i][j];
                        if KIND == INT4 {
                            multiply_add!("vpmaddubsw", "vpaddw", *a, low, x);
                            multiply_add!("vpmaddubsw", "vpaddw", *b, high, x);
                        } else {
                            multiply_add!("vpmaddwd", "vpaddd", *a, low, x);
                            multiply_add!("vpmaddwd", "vpaddd", *b, high, x);
                        }
                    }
                }
            }
            for j in 0..PANELS {
                let scales = avx2_scales(group[j]);
                for i in 0..ROWS {
                    let sx = f32::from_bits(*x[i].add(words + g) as u32);
                    let bias = *x[i].add(words + groups + g);
                    avx2_add_group::<KIND>(sums[i][j], sx, scales, bias, out[i].add(16 * j));
                }
            }
        }
    }
}

/// The weights of columns 0 to 7 and 8 to 15 in one load: two inputs as i16, or four as u8 for
/// int4.
///
/// # Safety
///
/// `values` can be read for 32 bytes, and the machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_weights<const KIND: u8>(values: *const u8) -> [std::arch::x86_64::__m256i; 2] {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises the bytes.
    unsafe {
        if KIND == INT4 {
            let nibble = _mm256_set1_epi8(15);
            let both = _mm256_loadu_si256(values.cast());
            [both, _mm256_srli_epi16::<4>(both)].map(|half| _mm256_and_si256(half, nibble))
        } else {
            let values: *const __m128i = values.cast();
            [
                _mm256_cvtepi8_epi16(_mm_loadu_si128(values)),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(values.add(1))),
            ]
        }
    }
}

/// Adds a group's integer sums of 16 columns, less `bias` for int4, times both scales to `out`.
///
/// # Safety
///
/// `out` can be read and written for 16 f32; the machine has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_add_group<const KIND: u8>(
    sums: [std::arch::x86_64::__m256i; 2],
    sx: f32,
    scales: [std::arch::x86_64::__m256; 2],
    bias: i32,
    out: *mut f32,
) {
    use std::arch::x86_64::*;
    let (sx, bias) = (_mm256_set1_ps(sx), _mm256_set1_epi32(bias));
    for c in 0..2 {
        let mut sum = sums[c];
        if KIND == INT4 {
            sum = _mm256_sub_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), bias);
        }
        let scale = _mm256_mul_ps(sx, scales[c]);
        // SAFETY: the caller promises 16 numbers.
        unsafe {
            let out = out.add(8 * c);
            let old = _mm256_loadu_ps(out);
            _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, old));
        }
    }
}

/// [`tile`] with AVX-512 and VNNI, int8 in [`Packing::Fours`].
///
/// # Safety
///
/// As for [`tile`], the machine having these.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn avx512<const ROWS: usize, const PANELS: usize, const KIND: u8>(
    x: &[*const i32; ROWS],
    w: &[*const u8; PANELS],
    k: usize,
    out: &[*mut f32; ROWS],
) {
    use std::arch::x86_64::*;
    let kind = match KIND {
        INT4 => Quantization::Int4,
        _ => Quantization::Int8,
    };
    let (words, groups) = (k / 4, k / GROUP);
    // SAFETY: the caller promises every pointer for exactly these ranges.
    unsafe {
        for i in 0..ROWS {
            for j in 0..PANELS {
                _mm512_storeu_ps(out[i].add(16 * j), _mm512_setzero_ps());
            }
        }
        for g in 0..groups {
            let mut sums = [[_mm512_setzero_si512(); PANELS]; ROWS];
            let group = w.map(|w| w.add(g * group_bytes(kind)));
            for four in 0..GROUP / 4 {
                for j in 0..PANELS {
                    let values = group[j].add(SCALE_BYTES);
                    let w = if KIND == INT4 {
                        let both = _mm256_loadu_si256(values.add(32 * four).cast());
                        let nibble = _mm256_set1_epi8(15);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), nibble);
                        let low = _mm512_castsi256_si512(_mm256_and_si256(both, nibble));
                        _mm512_inserti64x4::<1>(low, high)
                    } else {
                        let values = _mm512_loadu_si512(values.add(64 * four).cast());
                        _mm512_xor_si512(values, _mm512_set1_epi8(-128))
                    };
                    for i in 0..ROWS {
                        let x = _mm512_set1_epi32(*x[i].add(g * GROUP / 4 + four));
                        sums[i][j] = _mm512_dpbusd_epi32(sums[i][j], w, x);
                    }
                }
            }
            for j in 0..PANELS {
                let scales = avx512_scales(group[j]);
                for i in 0..ROWS {
                    let sx = _mm512_set1_ps(f32::from_bits(*x[i].add(words + g) as u32));
                    let bias = _mm512_set1_epi32(*x[i].add(words + groups + g));
                    let out = out[i].add(16 * j);
                    let sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[i][j], bias));
                    let scale = _mm512_mul_ps(sx, scales);
                    _mm512_storeu_ps(out, _mm512_fmadd_ps(sum, scale, _mm512_loadu_ps(out)));
                }
            }
        }
    }
}

/// [`tile`] in plain Rust.
///
/// # Safety
///
/// As for [`tile`].
unsafe fn portable<const ROWS: usize, const PANELS: usize, const KIND: u8>(
    x: &[*const i32; ROWS],
    w: &[*const u8; PANELS],
    k: usize,
    out: &[*mut f32; ROWS],
) {
    let kind = match KIND {
        INT4 => Quantization::Int4,
        _ => Quantization::Int8,
    };
    let (words, groups) = (Packing::of(Isa::Portable, kind).value_words(k), k / GROUP);
    for i in 0..ROWS {
        for j in 0..PANELS {
            let mut out_sums = [0.0f32; COLS];
            for g in 0..groups {
                // SAFETY: the caller promises every pointer for exactly these ranges.
                let (sx, bias, scales) = unsafe {
                    let group = w[j].add(g * group_bytes(kind));
                    let scales: [u16; COLS] = group.cast::<[u16; COLS]>().read_unaligned();
                    let sx = f32::from_bits(*x[i].add(words + g) as u32);
                    (sx, *x[i].add(words + groups + g), scales)
                };
                let mut sums = [0i32; COLS];
                for k in 0..GROUP {
                    // SAFETY: as above.
                    unsafe {
                        let values = w[j].add(g * group_bytes(kind) + SCALE_BYTES);
                        for (c, sum) in sums.iter_mut().enumerate() {
                            let (x, w) = if KIND == INT4 {
                                let byte = *values.add((k / 4 * 8 + c % 8) * 4 + k % 4);
                                let x = *x[i].cast::<i8>().add(g * GROUP + k);
                                (i32::from(x), i32::from(byte >> (c / 8 * 4) & 15))
                            } else {
                                let w = *values.cast::<i8>().add((k / 2 * COLS + c) * 2 + k % 2);
                                let x = *x[i].cast::<i16>().add(g * GROUP + k);
                                (i32::from(x), i32::from(w))
                            };
                            *sum += x * w;
                        }
                    }
                }
                for (c, (out, sum)) in out_sums.iter_mut().zip(sums).enumerate() {
                    let sum = (if KIND == INT4 { sum - bias } else { sum }) as f32;
                    let scale = f32::from_bits(u32::from(scales[scale_offset(c)]) << 16) * sx;
                    *out = multiply_add(sum, scale, *out);
                }
            }
            // SAFETY: as above.
            unsafe {
                out[i]
                    .add(COLS * j)
                    .cast::<[f32; COLS]>()
                    .write_unaligned(out_sums);
            }
        }
    }
}
