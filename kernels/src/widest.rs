//! Plain loops compiled for the machine's widest registers.
//!
//! A loop over floats without fused multiply-add, whose sums are written in lanes, gives the same
//! bits however many lanes a register has. So such loops are written once, in plain Rust, and the
//! compiler vectorises them three times: for the target's base (SSE2), AVX2 and AVX-512.

/// Defines a function that is compiled three times and takes the widest form that this machine has.
/// What it calls should be marked `#[inline(always)]`, so that it is compiled as often.
///
/// (A macro, because the compiler may leave a closure given to a function for AVX2 outside of it, as
/// it was compiled for the base.)
macro_rules! widest {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    ) => {
        $(#[$meta])*
        #[allow(unsafe_code)] // A function compiled for AVX2 may only be called where that exists.
        $vis fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn base($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    base($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    base($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the machine has these.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the machine has AVX2.
                    return unsafe { avx2($($arg),*) };
                }
            }
            base($($arg),*)
        }
    };
}
pub(crate) use widest;

/// The largest of some numbers: in lanes, which do not change it and which the compiler vectorises. What is
/// no number is passed over; of no numbers it is minus infinity.
#[inline(always)]
pub(crate) fn maximum(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        lanes = std::array::from_fn(|c| larger(chunk[c], lanes[c]));
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |max, &v| larger(v, max))
}
