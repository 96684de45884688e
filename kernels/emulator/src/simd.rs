//! Whether this processor has the features of the hot loops' second variant.

/// Whether functions marked with `avx2,fma,bmi1,bmi2,lzcnt,popcnt`, or some of these, may be
/// called. A feature that another function needs must be added here.
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
