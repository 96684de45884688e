//! Plain loops compiled for the machine's widest registers.
//!
//! A loop over floats without fused multiply-add, whose sums are written in lanes, gives the same
//! bits however many lanes a register has. So such loops are written once, in plain Rust, and the
//! compiler vectorises them twice: for the target's base (SSE2) and for AVX2.
#![allow(unsafe_code)] // A function compiled for AVX2 may only be called where it exists.

/// Calls `work`, compiled for AVX2 if this machine has it. `work` should be marked
/// `#[inline(always)]` where it is a function, so that its loops are compiled here.
#[inline(always)]
pub(crate) fn widest<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has AVX2.
            return unsafe { avx2(work) };
        }
    }
    work()
}
