//! Against a model in integers, which shares nothing with the f64 of the module.

use super::{Accumulator, Columns, Factors, TensorCore, add_products, exponent};

const CORES: [TensorCore; 2] = [
    TensorCore {
        products: 8,
        fraction_bits: 24,
    },
    TensorCore {
        products: 16,
        fraction_bits: 25,
    },
];

/// A binary format: bits of exponent and of fraction.
#[derive(Clone, Copy, Debug)]
struct Format {
    exponent: u32,
    fraction: u32,
}

const BF16: Format = Format {
    exponent: 8,
    fraction: 7,
};
const F16: Format = Format {
    exponent: 5,
    fraction: 10,
};
const TF32: Format = Format {
    exponent: 8,
    fraction: 10,
};
const F32: Format = Format {
    exponent: 8,
    fraction: 23,
};

/// A finite number in a format: sign, significand and exponent. The significand counts units of
/// 2^(exponent - fraction).
#[derive(Clone, Copy)]
struct Number {
    negative: bool,
    significand: u128,
    exponent: i32,
}

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    fn least(self) -> i32 {
        1 - self.bias()
    }

    fn decode(self, bits: u32) -> Number {
        let stored = bits >> self.fraction & ((1 << self.exponent) - 1);
        let hidden = u32::from(stored != 0) << self.fraction;
        Number {
            negative: bits >> (self.exponent + self.fraction) & 1 == 1,
            significand: u128::from(bits & ((1 << self.fraction) - 1) | hidden),
            exponent: stored.max(1) as i32 - self.bias(),
        }
    }

    fn value(self, bits: u32) -> f64 {
        let n = self.decode(bits);
        let x = n.significand as f64 * 2f64.powi(n.exponent - self.fraction as i32);
        if n.negative { -x } else { x }
    }
}

/// One step of the model: f32 bits in and out.
fn step(core: TensorCore, format: Format, a: &[u32], b: &[u32], c: u32) -> u32 {
    if c & 0x7f80_0000 == 0x7f80_0000 {
        // An infinite sum stays so: the factors are finite.
        return c;
    }
    // A number, and the bits of its significand behind the point.
    let mut terms = vec![(F32.decode(c), F32.fraction)];
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (format.decode(a), format.decode(b));
        let product = Number {
            negative: a.negative != b.negative,
            significand: a.significand * b.significand,
            exponent: a.exponent + b.exponent,
        };
        terms.push((product, 2 * format.fraction));
    }
    terms.retain(|(n, _)| n.significand != 0);
    let Some(top) = terms.iter().map(|(n, _)| n.exponent).max() else {
        return 0;
    };
    // In units of 2^(top - fraction_bits).
    let mut sum = 0i128;
    for (n, behind) in terms {
        let shift = core.fraction_bits as i32 - behind as i32 + n.exponent - top;
        let magnitude = match shift {
            0.. => n.significand << shift,
            -127..0 => n.significand >> -shift,
            _ => 0,
        };
        sum += if n.negative {
            -(magnitude as i128)
        } else {
            magnitude as i128
        };
    }
    if sum == 0 {
        return 0;
    }
    let sign = u32::from(sum < 0) << 31;
    let magnitude = sum.unsigned_abs();
    let unit = top - core.fraction_bits as i32;
    let first = magnitude.ilog2() as i32 + unit;
    if first > 127 {
        return sign | 0x7f80_0000;
    }
    // In units of the result's last bit.
    let last = (first.max(-126)) - 23;
    let cut = match unit - last {
        shift @ 0.. => magnitude << shift,
        shift @ -127..0 => magnitude >> -shift,
        _ => 0,
    } as u32;
    let stored = if cut >> 23 == 0 { 0 } else { first + 127 } as u32;
    sign | stored << 23 | cut & 0x7f_ffff
}

fn model(core: TensorCore, format: Format, a: &[u32], b: &[u32], c: u32) -> u32 {
    let products = if format.fraction == TF32.fraction && format.exponent == TF32.exponent {
        core.products / 2
    } else {
        core.products
    } as usize;
    (a.chunks(products).zip(b.chunks(products)))
        .fold(c, |sum, (a, b)| step(core, format, a, b, sum))
}

/// The module's own answer, in the first of eight columns; the others have other factors.
fn found(core: TensorCore, format: Format, a: &[u32], b: &[u32], c: u32) -> u32 {
    let tf32 = format.exponent == 8 && format.fraction == 10;
    let products = core.products as usize / if tf32 { 2 } else { 1 };
    let values: Vec<f64> = a.iter().map(|&x| format.value(x)).collect();
    let columns: Vec<Columns<f64>> = (b.iter().enumerate())
        .map(|(k, &x)| {
            std::array::from_fn(|j| {
                if j == 0 {
                    format.value(x)
                } else {
                    (j + k) as f64
                }
            })
        })
        .collect();
    let least = format.least();
    let a_exponents: Vec<i32> = values.iter().map(|&x| exponent(x, least)).collect();
    let b_exponents: Vec<Columns<i32>> = (columns.iter())
        .map(|x| x.map(|x| exponent(x, least)))
        .collect();
    let factors = Factors {
        a: &values,
        a_exponents: &a_exponents,
        b: &columns,
        b_exponents: &b_exponents,
    };
    let mut sums = [0.0; 8];
    sums[0] = F32.value(c);
    add_products(core, products, factors, Accumulator::F32, &mut sums);
    (sums[0] as f32).to_bits()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A finite number whose exponent lies at most `spread` below that of 1 or above it, or anywhere.
    fn number(&mut self, format: Format, spread: u64) -> u32 {
        let all = (1u64 << format.exponent) - 1;
        let near =
            (self.bits() % (2 * spread + 1)) as i64 - spread as i64 + i64::from(format.bias());
        let stored = match self.bits() % 16 {
            0 => 0,
            1 => self.bits() % all,
            _ => near.clamp(0, all as i64 - 1) as u64,
        };
        let fraction = self.bits() & ((1 << format.fraction) - 1);
        let sign = self.bits() & 1;
        (sign << (format.exponent + format.fraction) | stored << format.fraction | fraction) as u32
    }
}

#[test]
fn sums_are_those_of_a_model_in_integers() {
    let mut random = Random(7);
    let mut differs_from_nearest = 0;
    for round in 0..60_000 {
        let core = CORES[round % 2];
        let format = [BF16, F16, TF32][round / 2 % 3];
        let k = [4, 8, 16][round / 6 % 3];
        let spread = [1, 4, 14, 130][round / 18 % 4];
        let row: Vec<u32> = (0..k).map(|_| random.number(format, spread)).collect();
        let column: Vec<u32> = (0..k).map(|_| random.number(format, spread)).collect();
        let mut c = random.number(F32, 2 * spread);
        if round % 5 == 0 {
            // Cancels the first product, but for what lies below.
            let product = format.value(row[0]) * format.value(column[0]);
            let near = -product as f32;
            if near.is_finite() {
                c = near.to_bits();
            }
        }
        let expected = model(core, format, &row, &column, c);
        let got = found(core, format, &row, &column, c);
        // The model knows no sign of zero.
        assert_eq!(
            got, expected,
            "{core:?} {format:?} {row:x?} {column:x?} {c:x}"
        );
        let plain = (row.iter().zip(&column)).fold(F32.value(c), |s, (a, b)| {
            s + format.value(*a) * format.value(*b)
        });
        differs_from_nearest += usize::from((plain as f32).to_bits() != expected);
    }
    assert!(differs_from_nearest > 10_000, "{differs_from_nearest}");
}

#[test]
fn a_sum_and_its_negative_have_the_same_bits_but_for_the_sign() {
    let mut random = Random(9);
    for round in 0..2_000 {
        let core = CORES[round % 2];
        let row: Vec<u32> = (0..16).map(|_| random.number(BF16, 5)).collect();
        let column: Vec<u32> = (0..16).map(|_| random.number(BF16, 5)).collect();
        let c = random.number(F32, 8);
        let negated: Vec<u32> = row.iter().map(|x| x ^ 0x8000).collect();
        let sum = found(core, BF16, &row, &column, c);
        let other = found(core, BF16, &negated, &column, c ^ 1 << 31);
        let same = other == sum ^ 1 << 31 || sum == 0 && other == 0;
        assert!(same, "{sum:x} {other:x}");
    }
}
