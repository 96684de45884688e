//! Offshoot: strategies.
