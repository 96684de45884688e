//! The loops over 32 lanes that most instructions share. An instruction supplies what happens to
//! one lane.
//!
//! Each loop exists twice: for any processor, and for one with AVX2 and FMA. The decoder picks one
//! at run time.

use crate::machine::{Cx, Exec, Ins, Lane, choice, immediate};
use std::ptr::NonNull;

/// A lane function by its type alone: without captures it has no bytes.
#[inline(always)]
fn lane_fn<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "lane functions must not capture") };
    // SAFETY: reading a type of size zero touches no memory, and a value of it was handed to the
    // constructor.
    unsafe { NonNull::<F>::dangling().read() }
}

/// Makes the constructor `$name` of a shape from the loop `$body`.
macro_rules! shape {
    ($(#[$doc:meta])* $name:ident, $body:ident, <$($g:ident),+>, ($($arg:ty),+) -> $ret:ty) => {
        $(#[$doc])*
        pub fn $name<$($g: Lane,)+ F: Fn($($arg),+) -> $ret + Copy + 'static>(_: F) -> Exec {
            fn plain<$($g: Lane,)+ F: Fn($($arg),+) -> $ret + Copy + 'static>(cx: &mut Cx<'_>, i: &Ins, m: u32) {
                $body::<$($g,)+ F>(cx, i, m);
            }
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
                fn newer<$($g: Lane,)+ F: Fn($($arg),+) -> $ret + Copy + 'static>(cx: &mut Cx<'_>, i: &Ins, m: u32) {
                    $body::<$($g,)+ F>(cx, i, m);
                }
                if crate::simd::fast() {
                    return newer::<$($g,)+ F>;
                }
            }
            plain::<$($g,)+ F>
        }
    };
}

#[inline(always)]
fn keep<T: Copy>(new: &mut [T; 8], old: [T; 8], mask: u32, chunk: usize) {
    for i in 0..8 {
        if mask >> (chunk * 8 + i) & 1 == 0 {
            new[i] = old[i];
        }
    }
}

#[inline(always)]
fn un_body<A: Lane, D: Lane, F: Fn(A) -> D + Copy + 'static>(cx: &mut Cx<'_>, ins: &Ins, m: u32) {
    let (f, v) = (lane_fn::<F>(), cx.warp.regs.view());
    for c in 0..4 {
        let a = v.chunk::<A>(ins.src[0], c);
        let mut d = [D::Cell::default(); 8];
        for i in 0..8 {
            d[i] = f(A::from_cell(a[i])).to_cell();
        }
        if m != !0 {
            keep(&mut d, v.chunk::<D>(ins.dst, c), m, c);
        }
        v.set_chunk::<D>(ins.dst, c, d);
    }
}

#[inline(always)]
fn bin_body<A: Lane, B: Lane, D: Lane, F: Fn(A, B) -> D + Copy + 'static>(
    cx: &mut Cx<'_>,
    ins: &Ins,
    m: u32,
) {
    let (f, v) = (lane_fn::<F>(), cx.warp.regs.view());
    for c in 0..4 {
        let (a, b) = (v.chunk::<A>(ins.src[0], c), v.chunk::<B>(ins.src[1], c));
        let mut d = [D::Cell::default(); 8];
        for i in 0..8 {
            d[i] = f(A::from_cell(a[i]), B::from_cell(b[i])).to_cell();
        }
        if m != !0 {
            keep(&mut d, v.chunk::<D>(ins.dst, c), m, c);
        }
        v.set_chunk::<D>(ins.dst, c, d);
    }
}

#[inline(always)]
fn tri_body<A: Lane, B: Lane, C: Lane, D: Lane, F: Fn(A, B, C) -> D + Copy + 'static>(
    cx: &mut Cx<'_>,
    ins: &Ins,
    m: u32,
) {
    let (f, v) = (lane_fn::<F>(), cx.warp.regs.view());
    for k in 0..4 {
        let (a, b, c) = (
            v.chunk::<A>(ins.src[0], k),
            v.chunk::<B>(ins.src[1], k),
            v.chunk::<C>(ins.src[2], k),
        );
        let mut d = [D::Cell::default(); 8];
        for i in 0..8 {
            d[i] = f(A::from_cell(a[i]), B::from_cell(b[i]), C::from_cell(c[i])).to_cell();
        }
        if m != !0 {
            keep(&mut d, v.chunk::<D>(ins.dst, k), m, k);
        }
        v.set_chunk::<D>(ins.dst, k, d);
    }
}

/// Three registers and a constant in `imm`.
#[inline(always)]
fn tri_imm_body<A: Lane, D: Lane, F: Fn(A, A, A, u64) -> D + Copy + 'static>(
    cx: &mut Cx<'_>,
    ins: &Ins,
    m: u32,
) {
    let (f, v, imm) = (lane_fn::<F>(), cx.warp.regs.view(), ins.imm);
    for k in 0..4 {
        let (a, b, c) = (
            v.chunk::<A>(ins.src[0], k),
            v.chunk::<A>(ins.src[1], k),
            v.chunk::<A>(ins.src[2], k),
        );
        let mut d = [D::Cell::default(); 8];
        for i in 0..8 {
            d[i] = f(
                A::from_cell(a[i]),
                A::from_cell(b[i]),
                A::from_cell(c[i]),
                imm,
            )
            .to_cell();
        }
        if m != !0 {
            keep(&mut d, v.chunk::<D>(ins.dst, k), m, k);
        }
        v.set_chunk::<D>(ins.dst, k, d);
    }
}

/// Two values and two 32-bit numbers; the last register is in `list`.
#[inline(always)]
fn field_body<A: Lane, D: Lane, F: Fn(A, A, u32, u32) -> D + Copy + 'static>(
    cx: &mut Cx<'_>,
    ins: &Ins,
    m: u32,
) {
    let (f, v) = (lane_fn::<F>(), cx.warp.regs.view());
    for k in 0..4 {
        let (a, b) = (v.chunk::<A>(ins.src[0], k), v.chunk::<A>(ins.src[1], k));
        let (p, l) = (v.chunk::<u32>(ins.src[2], k), v.chunk::<u32>(ins.list, k));
        let mut d = [D::Cell::default(); 8];
        for i in 0..8 {
            d[i] = f(A::from_cell(a[i]), A::from_cell(b[i]), p[i], l[i]).to_cell();
        }
        if m != !0 {
            keep(&mut d, v.chunk::<D>(ins.dst, k), m, k);
        }
        v.set_chunk::<D>(ins.dst, k, d);
    }
}

choice! {
    /// How a comparison is combined with a third predicate.
    pub enum Combine {
        None = "",
        And = "and",
        Or = "or",
        Xor = "xor",
    }
}

immediate! {
    /// A comparison of `src[0]` and `src[1]` into predicate `dst`. All zeros is a plain one.
    pub struct Comparison {
        /// With predicate `src[2]`.
        pub combine: Combine [2],
        /// Predicate `src[2]` is negated.
        pub negate_third: bool [1],
        /// Predicate `list` takes the complement.
        pub complement: bool [1],
        /// The comparison is negated.
        pub negate: bool [1],
    }
}

#[inline(always)]
fn cmp_body<A: Lane, F: Fn(A, A) -> bool + Copy + 'static>(cx: &mut Cx<'_>, ins: &Ins, m: u32) {
    let (f, v) = (lane_fn::<F>(), cx.warp.regs.view());
    let mut bits = 0u32;
    for c in 0..4 {
        let (a, b) = (v.chunk::<A>(ins.src[0], c), v.chunk::<A>(ins.src[1], c));
        let mut part = 0u32;
        for i in 0..8 {
            part |= u32::from(f(A::from_cell(a[i]), A::from_cell(b[i]))) << i;
        }
        bits |= part << (c * 8);
    }
    if ins.imm == 0 {
        let p = &mut cx.warp.preds[ins.dst as usize];
        *p = *p & !m | bits & m;
        return;
    }
    let options = Comparison::unpack(ins.imm);
    if options.negate {
        bits = !bits;
    }
    let third = cx.warp.preds[ins.src[2] as usize] ^ if options.negate_third { !0 } else { 0 };
    let join = |x: u32| match options.combine {
        Combine::None => x,
        Combine::And => x & third,
        Combine::Or => x | third,
        Combine::Xor => x ^ third,
    };
    let p = &mut cx.warp.preds[ins.dst as usize];
    *p = *p & !m | join(bits) & m;
    if options.complement {
        let q = &mut cx.warp.preds[ins.list as usize];
        *q = *q & !m | join(!bits) & m;
    }
}

/// `src[0]` where predicate `src[2]` holds, else `src[1]`; all ones in `imm` negate the predicate.
// The lane function only names the type.
#[allow(clippy::extra_unused_type_parameters)]
#[inline(always)]
fn select_body<A: Lane, F: Fn(A) -> A + Copy + 'static>(cx: &mut Cx<'_>, ins: &Ins, m: u32) {
    let v = cx.warp.regs.view();
    let p = cx.warp.preds[ins.src[2] as usize] ^ ins.imm as u32;
    for c in 0..4 {
        let (a, b) = (v.chunk::<A>(ins.src[0], c), v.chunk::<A>(ins.src[1], c));
        let mut d = a;
        for i in 0..8 {
            if p >> (c * 8 + i) & 1 == 0 {
                d[i] = b[i];
            }
        }
        if m != !0 {
            keep(&mut d, v.chunk::<A>(ins.dst, c), m, c);
        }
        v.set_chunk::<A>(ins.dst, c, d);
    }
}

shape!(
    /// d = f(a)
    un, un_body, <A, D>, (A) -> D);
shape!(
    /// d = f(a, b)
    bin, bin_body, <A, B, D>, (A, B) -> D);
shape!(
    /// d = f(a, b, c)
    tri, tri_body, <A, B, C, D>, (A, B, C) -> D);
shape!(
    /// d = f(a, b, c, imm)
    tri_imm, tri_imm_body, <A, D>, (A, A, A, u64) -> D);
shape!(
    /// d = f(a, b, c, register in `list`)
    field, field_body, <A, D>, (A, A, u32, u32) -> D);
shape!(
    /// p = f(a, b)
    cmp, cmp_body, <A>, (A, A) -> bool);
shape!(
    /// d = p ? a : b
    select, select_body, <A>, (A) -> A);
