//! Offshoot: bench.
