//! Offshoot: kernels.
