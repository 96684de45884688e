//! Whether this processor has what the hot loops are compiled for a second time.

/// Whether functions marked `avx2,fma,bmi1,bmi2,lzcnt,popcnt`, or less of these, may be called. A
/// function that asks for another feature needs it added here.
pub fn fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx2")
            && has!("fma")
            && has!("bmi1")
            && has!("bmi2")
            && has!("lzcnt")
            && has!("popcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}
