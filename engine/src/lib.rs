//! Offshoot: engine.
