//! Multiversioning: plain loops compiled for every vector width.
//!
//! A float loop without fused multiply-add whose sums are written in lanes gives the same bits for
//! every register width. Such loops are written once, in plain Rust. The compiler vectorises them
//! three times: for the target's baseline (SSE2), AVX2 and AVX-512.

/// Defines a function that is compiled three times and dispatches to the widest version that this
/// machine supports. Mark its callees `#[inline(always)]`, so that they are compiled as often.
///
/// (A macro and not a higher-order function: the compiler may not inline a closure, compiled for
/// the baseline, into a function for AVX2.)
macro_rules! widest {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    ) => {
        $(#[$meta])*
        #[allow(unsafe_code)] // Calls a function compiled for AVX2 only on a machine with AVX2.
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
                    // SAFETY: the features were detected.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: AVX2 was detected.
                    return unsafe { avx2($($arg),*) };
                }
            }
            base($($arg),*)
        }
    };
}
pub(crate) use widest;

/// The maximum, NaN ignored; minus infinity if there are no numbers. (Lanes do not change it, and
/// let the compiler vectorise the loop.)
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
