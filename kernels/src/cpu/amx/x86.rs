//! AMX's instructions, in inline assembly.
//!
//! Each function states what it needs; its callers in [`super`] guarantee it.

use super::*;
use crate::Quantization;
use crate::cpu::quantized::{avx512_scales, group_bytes};
use std::arch::asm;
use std::arch::x86_64::*;

/// Zeroes or loads the sums, depending on `$form`; executes the steps `$k` times, advancing every
/// pointer by 32 inputs; stores the sums. `{line}`, `{tile}` and `{stride}` are the bytes from one
/// tile row to the next (index registers of the tile loads) of the rows, the panels and the sums.
/// `{low}` is the offset of the rows' low parts.
macro_rules! gemm {
    (
        $form:ident;
        $($sum:literal at $at:literal),+;
        $($rows:ident)+, $($panel:ident)+, $($out:ident)+,
        $line:ident, $stride:ident, $k:ident $(, $($ask:ident),+; $asked:literal)?; $($step:expr),+
    ) => {{
        macro_rules! run {
            ($low:literal, $next:literal, $start:tt) => {
                asm!(
                    $(start!($start, $sum, $at),)+
                    "test {k}, {k}",
                    "jz 3f",
                    "2:",
                    $($step,)+
                    $(concat!("add {", stringify!($rows), "}, {next}"),)+
                    $(concat!("add {", stringify!($panel), "}, 1024"),)+
                    $($(concat!("add {", stringify!($ask), "}, ", $asked),)+)?
                    "dec {k}",
                    "jnz 2b",
                    "3:",
                    $(concat!("tilestored ", $at, ", ", $sum),)+
                    $($rows = inout(reg) $rows => _,)+
                    $($panel = inout(reg) $panel => _,)+
                    $($out = in(reg) $out,)+
                    $($($ask = inout(reg) $ask => _,)+)?
                    k = inout(reg) $k => _,
                    low = const $low,
                    next = const $next,
                    line = in(reg) $line,
                    tile = in(reg) 64usize,
                    stride = in(reg) $stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            };
        }
        match $form {
            GemmForm::Tiled => run!(1024, 2048, zero),
            GemmForm::TiledAccumulate => run!(1024, 2048, load),
            GemmForm::Strided => run!(64, 128, zero),
            GemmForm::StridedAccumulate => run!(64, 128, load),
        }
    }};
}

macro_rules! start {
    (zero, $sum:literal, $at:literal) => {
        concat!("tilezero ", $sum)
    };
    (load, $sum:literal, $at:literal) => {
        concat!("tileloadd ", $sum, ", ", $at)
    };
}

/// `$instruction` for the cache lines at `$offsets` from operand `$base`.
macro_rules! prefetch {
    ($instruction:literal, $base:literal, $offsets:literal) => {
        concat!(
            ".irp at, ",
            $offsets,
            "\n",
            $instruction,
            " [{",
            $base,
            "} + \\at]\n.endr"
        )
    };
}

/// Prefetches the cache lines of a tile.
pub(super) fn prefetch_tile(tile: *const u8) {
    for line in 0..ROWS {
        // SAFETY: a prefetch does not access memory architecturally.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(tile.wrapping_add(64 * line).cast()) };
    }
}

/// Two tiles of rows by two panels. Each step prefetches `lines` cache lines (0, 4, 8 or 16) from
/// `one` and from `other` on.
///
/// # Safety
///
/// As for [`gemm`](super::gemm): a tile of sums at each of `out` and at 64 bytes after it.
#[allow(clippy::too_many_arguments)] // operands of one assembly block
pub(super) unsafe fn two_by_two(
    form: GemmForm,
    [first, second]: [*const u8; 2],
    line: usize,
    [a, b]: [*const u8; 2],
    k: usize,
    ([one, other], lines): ([*const u8; 2], usize),
    [upper, lower]: [*mut f32; 2],
    stride: usize,
) {
    macro_rules! by {
        ($($bytes:literal, $first:literal, $second:literal)?) => {
            gemm!(
                form;
                "tmm0" at "[{upper} + {stride}]", "tmm1" at "[{upper} + {stride} + 64]",
                "tmm2" at "[{lower} + {stride}]", "tmm3" at "[{lower} + {stride} + 64]";
                first second, a b, upper lower, line, stride, k $(, one, other; $bytes)?;
                "tileloadd tmm4, [{first} + {line}]",
                "tileloadd tmm6, [{a} + {tile}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                $(prefetch!("prefetcht1", "one", $first),)?
                "tileloadd tmm7, [{b} + {tile}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                $(prefetch!("prefetcht1", "one", $second),)?
                "tileloadd tmm5, [{second} + {line}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                $(prefetch!("prefetcht1", "other", $first),)?
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{first} + {line} + {low}]",
                $(prefetch!("prefetcht1", "other", $second),)?
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{second} + {line} + {low}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7"
            )
        };
    }
    // SAFETY: the caller's promises; prefetches do not access memory architecturally.
    unsafe {
        match lines {
            0 => by!(),
            4 => by!("256", "0, 64", "128, 192"),
            8 => by!("512", "0, 64, 128, 192", "256, 320, 384, 448"),
            16 => by!(
                "1024",
                "0, 64, 128, 192, 256, 320, 384, 448",
                "512, 576, 640, 704, 768, 832, 896, 960"
            ),
            _ => panic!("{lines} lines at a step"),
        }
    }
}

/// One tile of rows by two panels.
///
/// # Safety
///
/// As for [`two_by_two`].
pub(super) unsafe fn one_by_two(
    form: GemmForm,
    first: *const u8,
    line: usize,
    [a, b]: [*const u8; 2],
    k: usize,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        gemm!(
            form;
            "tmm0" at "[{out} + {stride}]", "tmm1" at "[{out} + {stride} + 64]";
            first, a b, out, line, stride, k;
            "tileloadd tmm4, [{first} + {line}]",
            "tileloadd tmm6, [{a} + {tile}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {tile}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{first} + {line} + {low}]",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm7"
        );
    }
}

/// One tile of rows by four panels. If `ahead`, each panel is prefetched one tile ahead.
///
/// # Safety
///
/// As for [`two_by_two`], with four tiles of sums from `out` on.
#[allow(clippy::too_many_arguments)] // operands of one assembly block
pub(super) unsafe fn one_by_four(
    form: GemmForm,
    first: *const u8,
    line: usize,
    [a, b, c, d]: [*const u8; 4],
    k: usize,
    ahead: bool,
    out: *mut f32,
    stride: usize,
) {
    macro_rules! by {
        ($($a:expr, $b:expr, $c:expr, $d:expr)?) => {
            gemm!(
                form;
                "tmm0" at "[{out} + {stride}]", "tmm1" at "[{out} + {stride} + 64]",
                "tmm2" at "[{out} + {stride} + 128]", "tmm3" at "[{out} + {stride} + 192]";
                first, a b c d, out, line, stride, k;
                "tileloadd tmm4, [{first} + {line}]",
                "tileloadd tmm5, [{first} + {line} + {low}]",
                "tileloadd tmm6, [{a} + {tile}]",
                $($a,)?
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {tile}]",
                $($b,)?
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm0, tmm5, tmm6",
                "tileloadd tmm6, [{c} + {tile}]",
                $($c,)?
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm5, tmm7",
                "tileloadd tmm7, [{d} + {tile}]",
                $($d,)?
                "tdpbf16ps tmm3, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7"
            )
        };
    }
    macro_rules! next_tile {
        ($panel:literal) => {
            prefetch!(
                "prefetcht0",
                $panel,
                "1024, 1088, 1152, 1216, 1280, 1344, 1408, 1472, 1536, 1600, 1664, 1728, 1792, 1856, 1920, 1984"
            )
        };
    }
    // SAFETY: the caller's promises; prefetches do not access memory architecturally.
    unsafe {
        if ahead {
            by!(
                next_tile!("a"),
                next_tile!("b"),
                next_tile!("c"),
                next_tile!("d")
            );
        } else {
            by!();
        }
    }
}

/// `rounds` times eight `tdpbf16ps` on registers, with four independent sums. (A tile of zeros
/// would be multiplied faster, as it draws less power.)
///
/// # Safety
///
/// AMX is available, its registers are configured for bf16, and `numbers` points to a tile.
pub(super) unsafe fn peak_loop(numbers: *const u8, rounds: usize) {
    // SAFETY: the caller's promises.
    unsafe {
        asm!(
            "tileloadd tmm4, [{numbers} + {line}]", "tileloadd tmm6, [{numbers} + {line}]",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "test {rounds}, {rounds}",
            "jz 3f",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm4, tmm6", "tdpbf16ps tmm3, tmm4, tmm6",
            "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm4, tmm6", "tdpbf16ps tmm3, tmm4, tmm6",
            "dec {rounds}",
            "jnz 2b",
            "3:",
            rounds = inout(reg) rounds => _,
            numbers = in(reg) numbers,
            line = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm6") _,
            options(nostack, readonly),
        );
    }
}

/// One group's integer sums of 16 rows and columns.
#[repr(C, align(64))]
struct Integers([[i32; COLS]; ROWS]);

/// Groups at a time. A tile store is not forwarded to loads until it reaches the cache; multiplying
/// the next groups hides that latency. With more than two groups, stores and loads would be 4 KiB
/// apart (4K aliasing), which stalls as well.
const AT_ONCE: usize = 2;

/// Multiplies a group of 16 rows, `$stride` bytes apart, and stores the sums through `$sums`.
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

/// [`int8`](super::int8) of `HEIGHT` rows. The registers may be configured for more.
///
/// # Safety
///
/// As for [`int8`](super::int8), on a machine with AMX.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn int8<const HEIGHT: usize>(
    rows: *const i32,
    row_words: usize,
    w: *const u8,
    k: usize,
    out: &mut [f32],
    stride: usize,
) {
    let (words, groups) = (k / 4, k / GROUP);
    let group_bytes = group_bytes(Quantization::Int8);
    let scales_bytes = group_bytes - GROUP * COLS;
    let mut integers = [const { [const { Integers([[0; COLS]; ROWS]) }; AT_ONCE] }; 2];
    let mut sums = [_mm512_setzero_ps(); HEIGHT];
    // SAFETY: the caller promises every pointer for exactly these ranges.
    unsafe {
        let multiply = |first: usize, to: &mut [Integers; AT_ONCE]| {
            let x = |i: usize| rows.add((first + i) * GROUP / 4);
            let w = |i: usize| w.add((first + i) * group_bytes + scales_bytes);
            let stride = row_words * 4;
            let left = groups.saturating_sub(first);
            if left > 0 {
                multiply!("tmm0", "tmm4", "tmm6", x(0), stride, w(0), &mut to[0]);
            }
            if left > 1 {
                multiply!("tmm1", "tmm5", "tmm7", x(1), stride, w(1), &mut to[1]);
            }
        };
        multiply(0, &mut integers[0]);
        for (turn, first) in (0..groups).step_by(AT_ONCE).enumerate() {
            // AMX multiplies the next groups while the vector units add up these.
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
        for (out, sum) in out.chunks_mut(stride).zip(sums) {
            _mm512_storeu_ps(out.as_mut_ptr(), sum);
        }
    }
}
