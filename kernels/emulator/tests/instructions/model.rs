//! The models' arithmetic: formats, rounding, and the values that rows are fed.

use crate::common::Random;

#[derive(Clone, Copy, PartialEq)]
pub enum Feed {
    /// Integers of any width.
    Bits,
    F16,
    Bf16,
    F32,
    F64,
    /// Small shift counts and field positions.
    Count,
}
pub use Feed::{Bf16, Bits, Count, F16, F32, F64};

pub fn s(v: u64) -> i64 {
    v as u32 as i32 as i64
}
pub fn w(v: i64) -> u64 {
    v as u32 as u64
}
pub fn f(v: u64) -> f64 {
    f64::from(f32::from_bits(v as u32))
}
pub fn d(v: u64) -> f64 {
    f64::from_bits(v)
}
/// f64 to f32 bits, PTX's NaN.
pub fn r(x: f64) -> u64 {
    if x.is_nan() {
        0x7fff_ffff
    } else {
        u64::from((x as f32).to_bits())
    }
}
pub fn flush(v: u64) -> u64 {
    if v & 0x7f80_0000 == 0 {
        v & 0x8000_0000
    } else {
        v
    }
}
pub fn h(v: u64) -> f64 {
    let (e, m, sign) = (
        v >> 10 & 31,
        (v & 1023) as f64,
        if v >> 15 & 1 == 1 { -1.0 } else { 1.0 },
    );
    sign * match e {
        0 => m * 2f64.powi(-24),
        31 => {
            if m == 0.0 {
                f64::INFINITY
            } else {
                f64::NAN
            }
        }
        _ => (1024.0 + m) * 2f64.powi(e as i32 - 25),
    }
}
pub fn b(v: u64) -> f64 {
    f64::from(f32::from_bits((v as u32 & 0xffff) << 16))
}
/// f64 to the nearest value of a 16-bit format by search over its magnitudes.
pub fn narrow(x: f64, wide: fn(u64) -> f64, inf: u64) -> u64 {
    if x.is_nan() {
        return 0x7fff;
    }
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let a = x.abs();
    let (mut lo, mut hi) = (0u64, inf - 1);
    while lo < hi {
        let mid = (lo + hi).div_ceil(2);
        if wide(mid) <= a {
            lo = mid
        } else {
            hi = mid - 1
        }
    }
    // The neighbour above the largest finite value is where infinity would be were it finite.
    let step = wide(lo) - if lo == 0 { -wide(1) } else { wide(lo - 1) };
    let next = if lo == inf - 1 {
        wide(lo) + step
    } else {
        wide(lo + 1)
    };
    let (down, up) = (a - wide(lo), next - a);
    sign | if down < up || (down == up && lo & 1 == 0) {
        lo
    } else {
        lo + 1
    }
}
pub fn nh(x: f64) -> u64 {
    narrow(x, h, 0x7c00)
}
pub fn nb(x: f64) -> u64 {
    narrow(x, b, 0x7f80)
}
pub fn pick(a: f64, b: f64, less: bool) -> f64 {
    let a_first = a < b || (a == b && a.is_sign_negative());
    if a.is_nan() {
        b
    } else if b.is_nan() || a_first == less {
        a
    } else {
        b
    }
}
pub fn two(a: u64, b: u64, op: fn(u64, u64) -> u64) -> u64 {
    op(a & 0xffff, b & 0xffff) | op(a >> 16 & 0xffff, b >> 16 & 0xffff) << 16
}

pub const I2: &[(u32, Feed)] = &[(32, Bits), (32, Bits)];
pub const I3: &[(u32, Feed)] = &[(32, Bits), (32, Bits), (32, Bits)];
pub const L2: &[(u32, Feed)] = &[(64, Bits), (64, Bits)];
pub const L3: &[(u32, Feed)] = &[(64, Bits), (64, Bits), (64, Bits)];
pub const X2: &[(u32, Feed)] = &[(32, F32), (32, F32)];
pub const X3: &[(u32, Feed)] = &[(32, F32), (32, F32), (32, F32)];
pub const D2: &[(u32, Feed)] = &[(64, F64), (64, F64)];
pub const H2: &[(u32, Feed)] = &[(16, F16), (16, F16)];
pub const B2: &[(u32, Feed)] = &[(16, Bf16), (16, Bf16)];

/// The integer types: name, bits, whether signed.
pub const INTS: [(&str, u32, bool); 6] = [
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

/// A value for a source of a kind: often an awkward one.
pub fn feed(kind: Feed, width: u32, rng: &mut Random) -> u64 {
    let roll = rng.bits() % 8;
    let special = |list: &[u64], rng: &mut Random| list[rng.bits() as usize % list.len()];
    let one = |rng: &mut Random| match kind {
        Count => rng.bits() % 40,
        Bits if roll < 4 => special(
            &[
                0,
                1,
                2,
                31,
                32,
                u64::MAX,
                1 << 31,
                (1 << 31) - 1,
                1 << 63,
                (1 << 63) - 1,
                0xffff,
                0x8000,
                0x7fff,
            ],
            rng,
        ),
        F16 if roll < 4 => special(
            &[
                0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x3c00, 0xbc00, 0x7bff, 0xfbff, 0x7c00, 0xfc00,
                0x7e00, 0x3c01, 0x3800,
            ],
            rng,
        ),
        Bf16 if roll < 4 => special(
            &[
                0, 0x8000, 1, 0x80, 0x3f80, 0xbf80, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0x3f81,
                0x4000,
            ],
            rng,
        ),
        F32 if roll < 4 => special(
            &[
                0,
                1 << 31,
                1,
                0x7f_ffff,
                0x80_0000,
                0x3f80_0000,
                0xbf80_0000,
                0x7f7f_ffff,
                0x7f80_0000,
                0xff80_0000,
                0x7fc0_0000,
                0x4b00_0001,
                0x3eff_ffff,
                0x477f_f000,
                0x4f00_0000,
                0xcf00_0000,
                0x4020_0000,
            ],
            rng,
        ),
        F32 if roll < 6 => u64::from((rng.unit() * 100.0).to_bits()),
        F64 if roll < 4 => special(
            &[
                0,
                1 << 63,
                1,
                0x3ff0 << 48,
                0xbff0 << 48,
                0x7fef_ffff_ffff_ffff,
                0x7ff0 << 48,
                0xfff0 << 48,
                0x7ff8 << 48,
                0x4330_0000_0000_0001,
                0x41ef_ffff_ffff_ffff,
            ],
            rng,
        ),
        F64 if roll < 6 => (f64::from(rng.unit()) * 1e5).to_bits(),
        _ => rng.bits(),
    };
    let v = if width == 32 && matches!(kind, F16 | Bf16) {
        one(rng) & 0xffff | (one(rng) & 0xffff) << 16
    } else {
        one(rng)
    };
    if width == 64 {
        v
    } else {
        v & ((1 << width) - 1)
    }
}

/// An integer of a type as it counts.
pub fn int(v: u64, bits: u32, signed: bool) -> i128 {
    let v = i128::from(v) & ((1 << bits) - 1);
    if signed && v >> (bits - 1) == 1 {
        v - (1 << bits)
    } else {
        v
    }
}

/// Which of the directed modes, as a step from the nearest value: hi + lo is exact.
pub fn directed(hi: f64, lo: f64, mode: &str) -> u64 {
    if hi.is_nan() {
        return 0x7fff_ffff;
    }
    let x = hi as f32;
    if hi.is_infinite() {
        return u64::from(x.to_bits());
    }
    // The exact value less the candidate; a candidate beyond the largest finite value is above
    // everything.
    let above = if x.is_infinite() {
        -f64::from(x)
    } else {
        (hi - f64::from(x)) + lo
    };
    let y = match mode {
        "rn" => x,
        "rm" if above < 0.0 => x.next_down(),
        "rp" if above > 0.0 => x.next_up(),
        "rz" if above < 0.0 && x > 0.0 => x.next_down(),
        "rz" if above > 0.0 && x < 0.0 => x.next_up(),
        _ => x,
    };
    u64::from(y.to_bits())
}
