//! cvt: every pair of types by one general lane function; frequent pairs also have a vectorised
//! one.

use super::Decode;
use super::memory::Width;
use super::operands::mixed;
use super::shapes::{bin, tri_imm, un};
use crate::float::{
    self, Round, bf_to_f32, canon, f32_to_16, f32_to_bf, f32_to_half, flush, half_to_f32, integral,
    saturate,
};
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, immediate, lanes_of};
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("cvt", cvt)];

immediate! {
    /// A conversion of one value.
    #[derive(PartialEq, Eq, Debug)]
    pub struct Conversion {
        pub to: Ty [5],
        pub from: Ty [5],
        pub mode: Round [2],
        /// Round to an integral value (`.rni` and kin).
        pub integral: bool [1],
        /// `.rna`: ties away from zero.
        pub away: bool [1],
        pub ftz: bool [1],
        pub sat: bool [1],
        pub relu: bool [1],
        /// The register of the destination.
        pub width: Width [2],
    }
}

const TYPES: [Ty; 14] = [
    Ty::U8,
    Ty::U16,
    Ty::U32,
    Ty::U64,
    Ty::S8,
    Ty::S16,
    Ty::S32,
    Ty::S64,
    Ty::F16,
    Ty::Bf16,
    Ty::Tf32,
    Ty::F32,
    Ty::F64,
    Ty::B8,
];

impl Conversion {
    /// Converts the bits of one value. The result is extended to 64 bits by the sign of the
    /// destination type.
    pub fn apply(self, bits: u64) -> u64 {
        let int = match self.from {
            Ty::U8 | Ty::B8 => Some(i128::from(bits as u8)),
            Ty::U16 => Some(i128::from(bits as u16)),
            Ty::U32 => Some(i128::from(bits as u32)),
            Ty::U64 => Some(i128::from(bits)),
            Ty::S8 => Some(i128::from(bits as i8)),
            Ty::S16 => Some(i128::from(bits as i16)),
            Ty::S32 => Some(i128::from(bits as i32)),
            Ty::S64 => Some(i128::from(bits as i64)),
            _ => None,
        };
        match (int, self.range()) {
            (Some(v), Some((lo, hi))) => (if self.sat { v.clamp(lo, hi) } else { v }) as u64,
            (Some(v), None) => self.int_to_float(v),
            (None, range) => {
                let x = match self.from {
                    Ty::F16 => f64::from(half_to_f32(bits as u16)),
                    Ty::Bf16 => f64::from(bf_to_f32(bits as u16)),
                    Ty::F64 => f64::from_bits(bits),
                    _ => {
                        let x = f32::from_bits(bits as u32);
                        f64::from(if self.ftz { flush(x) } else { x })
                    }
                };
                match range {
                    Some((lo, hi)) => {
                        if x.is_nan() {
                            return 0;
                        }
                        let r = integral(x, self.mode);
                        // Out of range clamps; the casts saturate far outside of any 64-bit range.
                        (r as i128).clamp(lo, hi) as u64
                    }
                    None => self.float_to_float(x),
                }
            }
        }
    }

    /// The values an integer destination holds.
    fn range(self) -> Option<(i128, i128)> {
        Some(match self.to {
            Ty::U8 | Ty::B8 => (0, i128::from(u8::MAX)),
            Ty::U16 => (0, i128::from(u16::MAX)),
            Ty::U32 => (0, i128::from(u32::MAX)),
            Ty::U64 => (0, i128::from(u64::MAX)),
            Ty::S8 => (i128::from(i8::MIN), i128::from(i8::MAX)),
            Ty::S16 => (i128::from(i16::MIN), i128::from(i16::MAX)),
            Ty::S32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
            Ty::S64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
            _ => return None,
        })
    }

    fn int_to_float(self, v: i128) -> u64 {
        // hi + lo is v exactly: 64-bit integers need two doubles.
        let hi = v as f64;
        let lo = (v - hi as i128) as f64;
        match self.to {
            Ty::F64 => {
                let r = hi;
                let up = lo > 0.0;
                let r = match self.mode {
                    Round::Up if up => r.next_up(),
                    Round::Down if lo < 0.0 => r.next_down(),
                    Round::Zero if lo < 0.0 && r > 0.0 => r.next_down(),
                    Round::Zero if up && r < 0.0 => r.next_up(),
                    _ => r,
                };
                (if self.sat { r.clamp(0.0, 1.0) } else { r }).to_bits()
            }
            Ty::F32 => {
                let r = float::narrow32(hi, lo, self.mode);
                u64::from((if self.sat { saturate(r) } else { r }).to_bits())
            }
            _ => self.narrow(hi),
        }
    }

    fn float_to_float(self, x: f64) -> u64 {
        match self.to {
            Ty::F64 => {
                let r = if self.integral {
                    integral(x, self.mode)
                } else {
                    x
                };
                (if self.sat {
                    if r > 0.0 { r.min(1.0) } else { 0.0 }
                } else {
                    r
                })
                .to_bits()
            }
            Ty::F32 => {
                let r = if self.integral {
                    canon(integral(x, self.mode) as f32)
                } else {
                    float::f64_to_f32(x, self.mode)
                };
                let r = if self.sat { saturate(r) } else { r };
                u64::from((if self.ftz { flush(r) } else { r }).to_bits())
            }
            Ty::Tf32 => {
                let x = x as f32;
                let r = if self.away {
                    float::f32_to_tf32_away(x)
                } else {
                    float::f32_to_tf32(x)
                };
                let r = if self.relu && !r.is_nan() && r.is_sign_negative() {
                    0.0
                } else {
                    r
                };
                u64::from(r.to_bits())
            }
            _ => self.narrow(if self.integral {
                integral(x, self.mode)
            } else {
                x
            }),
        }
    }

    /// To f16 or bf16.
    fn narrow(self, x: f64) -> u64 {
        let x = if self.relu && x <= 0.0 { 0.0 } else { x };
        let x = if self.sat {
            if x > 0.0 { x.min(1.0) } else { 0.0 }
        } else {
            x
        };
        let odd = float::f64_to_f32_odd(x);
        u64::from(if self.to == Ty::F16 {
            f32_to_16(odd, self.mode, f32_to_half, half_to_f32)
        } else {
            f32_to_16(odd, self.mode, f32_to_bf, bf_to_f32)
        })
    }
}

/// Any conversion. `imm` is a [`Conversion`].
fn general(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    let c = Conversion::unpack(i.imm);
    for lane in lanes_of(mask) {
        let bits = cx.warp.regs.get_bits(i.src[0], lane, c.from.bytes() == 8);
        let mut out = c.apply(bits);
        if !c.to.signed() && c.to.bytes() < 8 {
            out &= (1 << (c.to.bytes() * 8)) - 1;
        } else if c.to.signed() {
            let shift = 64 - c.to.bytes() * 8;
            out = ((out << shift) as i64 >> shift) as u64;
        }
        if c.width == Width::Bits16 {
            out &= 0xffff;
        }
        let wide = c.width == Width::Bits64;
        cx.warp.regs.set_bits(i.dst, lane, wide, out);
    }
}

/// A vectorised lane function for a frequent conversion.
fn quick(c: Conversion) -> Option<Exec> {
    let plain = !c.ftz && !c.sat && !c.relu && !c.away;
    if !plain {
        return None;
    }
    Some(match (c.to, c.from, c.mode, c.integral) {
        (Ty::U64, Ty::U32, _, false) => un(|a: u32| u64::from(a)),
        (Ty::S64, Ty::S32, _, false) => un(|a: i32| i64::from(a)),
        (Ty::U32 | Ty::S32, Ty::U64 | Ty::S64, _, false) => un(|a: u64| a as u32),
        (Ty::F32, Ty::S32, Round::Nearest, false) => un(|a: i32| a as f32),
        (Ty::F32, Ty::U32, Round::Nearest, false) => un(|a: u32| a as f32),
        (Ty::F64, Ty::F32, _, false) => un(|a: f32| f64::from(a)),
        (Ty::F32, Ty::F64, Round::Nearest, false) => un(|a: f64| canon(a as f32)),
        (Ty::S32, Ty::F32, Round::Zero, true) => un(|a: f32| a as i32),
        (Ty::U32, Ty::F32, Round::Zero, true) => un(|a: f32| a as u32),
        (Ty::F32, Ty::F16, _, false) => un(|h: u16| canon(half_to_f32(h))),
        (Ty::F32, Ty::Bf16, _, false) => un(|h: u16| canon(bf_to_f32(h))),
        (Ty::F16, Ty::F32, Round::Nearest, false) => un(f32_to_half),
        (Ty::Bf16, Ty::F32, Round::Nearest, false) => un(f32_to_bf),
        _ => return None,
    })
}

/// Rounding mode, whether to an integral value, whether `.rna`.
fn mode_of(f: &Form) -> (Round, bool, bool) {
    const MODES: [Round; 4] = [Round::Nearest, Round::Zero, Round::Down, Round::Up];
    match f.pick(&["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna"]) {
        Some(n @ 0..4) => (MODES[n], false, false),
        Some(n @ 4..8) => (MODES[n - 4], true, false),
        Some(_) => (Round::Nearest, false, true),
        None => (Round::Nearest, false, false),
    }
}

immediate! {
    /// `cvt.pack`
    struct Pack {
        /// Of a part.
        bits: u32 [5],
        signed: bool [1],
    }
}

/// Two integers, saturated to a part each and packed, the second lowest. Parts below 16 bits are
/// followed by the low bits of the third source. `imm` is a [`Pack`].
fn pack_integers(a: u32, b: u32, c: u32, imm: u64) -> u32 {
    let Pack { bits, signed } = Pack::unpack(imm);
    let (lo, hi) = if signed {
        (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1)
    } else {
        (0, (1i64 << bits) - 1)
    };
    let part = |v: u32| (i64::from(v as i32).clamp(lo, hi) as u32) & ((1u64 << bits) - 1) as u32;
    let packed = part(a) << bits | part(b);
    if bits == 16 {
        packed
    } else {
        c << (2 * bits) | packed
    }
}

fn cvt_pack(b: &mut Builder, f: &Form) -> Res {
    f.has("sat");
    let kinds = ["u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"];
    let Some(kind) = f.pick(&kinds) else {
        return f.refuse("the type of the parts is expected");
    };
    if !f.has("s32") {
        return f.refuse("the type of the sources, .s32, is expected");
    }
    let pack = Pack {
        bits: 16 >> (kind / 2),
        signed: kind % 2 == 1,
    };
    let three = pack.bits != 16;
    if f.has("b32") != three {
        return f.refuse("parts below 16 bits take a third source, .b32");
    }
    let ops = f.operands(if three { 4 } else { 3 })?;
    let (x, y) = (b.src(f, &ops[1], Ty::S32)?, b.src(f, &ops[2], Ty::S32)?);
    let z = if three {
        b.src(f, &ops[3], Ty::B32)?
    } else {
        x
    };
    let d = b.dst(f, &ops[0], Ty::B32)?;
    b.emit(tri_imm(pack_integers), Class::Convert, |i| {
        i.dst = d;
        i.src = [x, y, z];
        i.imm = pack.pack();
    });
    Ok(())
}

fn cvt(b: &mut Builder, f: &Form) -> Res {
    if f.has("pack") {
        return cvt_pack(b, f);
    }
    let types = f.types();
    let [to, from] = types[..] else {
        return f.refuse("two types are expected");
    };
    if matches!(to, Ty::F16x2 | Ty::Bf16x2 | Ty::E4m3x2 | Ty::E5m2x2)
        || matches!(from, Ty::E4m3x2 | Ty::E5m2x2)
    {
        return packed(b, f, to, from);
    }
    let (mode, integral, away) = mode_of(f);
    let (ftz, sat, relu) = (f.has("ftz"), f.has("sat"), f.has("relu"));
    if !TYPES.contains(&to)
        || !TYPES.contains(&from)
        || to == Ty::Tf32 && from != Ty::F32
        || from == Ty::Tf32
    {
        return f.refuse("this pair of types is not supported");
    }
    let ops = f.operands(2)?;
    // Small types may sit in larger registers.
    let source = match from.bytes() {
        8 => Ty::B64,
        2 => Ty::B16,
        _ => Ty::B32,
    };
    let a = b.src(f, &ops[1], source)?;
    let d = b.dst_any(f, &ops[0])?;
    if to.bytes() == 8 && !d.wide {
        return f.refuse("the destination is too narrow");
    }
    let c = Conversion {
        to,
        from,
        mode,
        integral,
        away,
        ftz,
        sat,
        relu,
        width: Width::of(d.wide, d.short),
    };
    let exact = d.wide == (to.bytes() == 8) && to.bytes() > 1 && (to.bytes() != 2 || d.short);
    let exec = match quick(c) {
        Some(e) if exact => e,
        _ => general,
    };
    b.emit(exec, Class::Convert, |i| {
        i.dst = d.index;
        i.src[0] = a;
        i.imm = c.pack();
    });
    Ok(())
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// `cvt.rn.f16x2.f32 d, a, b`: a becomes the upper half.
fn packed(b: &mut Builder, f: &Form, to: Ty, from: Ty) -> Res {
    let (mode, _, _) = mode_of(f);
    let with_relu = f.has("relu");
    let satfinite = f.has("satfinite");
    let zero = mode == Round::Zero;
    if !matches!(mode, Round::Nearest | Round::Zero) {
        return f.refuse("only .rn and .rz exist for packed conversion");
    }
    let e: Exec = match (to, from) {
        (Ty::F16x2 | Ty::Bf16x2, Ty::F32) if satfinite => {
            return f.refuse(".satfinite is not supported for this type");
        }
        (Ty::F16x2, Ty::F32) => match (zero, with_relu) {
            (false, false) => bin(|a: f32, b: f32| pair(f32_to_half(a), f32_to_half(b))),
            (false, true) => bin(|a: f32, b: f32| pair(f32_to_half(relu(a)), f32_to_half(relu(b)))),
            (true, false) => bin(|a: f32, b: f32| pair(half_rz(a), half_rz(b))),
            (true, true) => bin(|a: f32, b: f32| pair(half_rz(relu(a)), half_rz(relu(b)))),
        },
        (Ty::Bf16x2, Ty::F32) => match (zero, with_relu) {
            (false, false) => bin(|a: f32, b: f32| pair(f32_to_bf(a), f32_to_bf(b))),
            (false, true) => bin(|a: f32, b: f32| pair(f32_to_bf(relu(a)), f32_to_bf(relu(b)))),
            (true, false) => bin(|a: f32, b: f32| pair(bf_rz(a), bf_rz(b))),
            (true, true) => bin(|a: f32, b: f32| pair(bf_rz(relu(a)), bf_rz(relu(b)))),
        },
        _ => return f.refuse("this pair of types is not supported"),
    };
    mixed(b, f, Class::Convert, e, to, &[Ty::F32, Ty::F32])
}

#[inline(always)]
fn pair(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

#[inline(always)]
fn half_rz(x: f32) -> u16 {
    f32_to_16(x, Round::Zero, f32_to_half, half_to_f32)
}

#[inline(always)]
fn bf_rz(x: f32) -> u16 {
    f32_to_16(x, Round::Zero, f32_to_bf, bf_to_f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(to: Ty, from: Ty, mode: Round, integral: bool) -> Conversion {
        Conversion {
            to,
            from,
            mode,
            integral,
            away: false,
            ftz: false,
            sat: false,
            relu: false,
            width: Width::Bits32,
        }
    }

    #[test]
    fn the_quick_conversions_agree_with_the_general_one() {
        let samples: Vec<u32> = (0..2000u32)
            .map(|i| i.wrapping_mul(0x9e37_79b9).rotate_left(i % 31))
            .chain([
                0,
                1 << 31,
                0x7f80_0000,
                0xff80_0000,
                0x7fc0_0001,
                0x4f00_0000,
                0xcf00_0001,
                0x3f00_0000,
            ])
            .collect();
        for &s in &samples {
            let x = f32::from_bits(s);
            let of = |to, from, mode, int| c(to, from, mode, int).apply(u64::from(s)) as u32;
            assert_eq!(
                of(Ty::F32, Ty::S32, Round::Nearest, false),
                (s as i32 as f32).to_bits()
            );
            assert_eq!(
                of(Ty::F32, Ty::U32, Round::Nearest, false),
                (s as f32).to_bits()
            );
            assert_eq!(of(Ty::S32, Ty::F32, Round::Zero, true), x as i32 as u32);
            assert_eq!(of(Ty::U32, Ty::F32, Round::Zero, true), x as u32);
            assert_eq!(
                of(Ty::F16, Ty::F32, Round::Nearest, false),
                u32::from(f32_to_half(x))
            );
            assert_eq!(
                of(Ty::Bf16, Ty::F32, Round::Nearest, false),
                u32::from(f32_to_bf(x))
            );
            assert_eq!(
                of(Ty::F32, Ty::F16, Round::Nearest, false),
                canon(half_to_f32(s as u16)).to_bits()
            );
        }
    }

    #[test]
    fn packing_keeps_every_field() {
        for to in TYPES {
            for from in TYPES {
                let x = Conversion {
                    to,
                    from,
                    mode: Round::Up,
                    integral: true,
                    away: true,
                    ftz: false,
                    sat: true,
                    relu: false,
                    width: Width::Bits16,
                };
                assert_eq!(Conversion::unpack(x.pack()), x);
            }
        }
    }
}
