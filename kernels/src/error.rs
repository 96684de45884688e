//! What a backend can fail with.

/// A failed device operation. Shapes are checked by the callers' construction and asserted;
/// what remains is memory and configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device cannot give the memory asked for.
    #[error("{device}: cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes asked for.
        bytes: usize,
        /// What the memory was for.
        what: &'static str,
    },
    /// A shape or dtype this backend has no kernel for.
    #[error("{device}: {what} is not supported")]
    Unsupported {
        /// The device's name.
        device: String,
        /// What was asked for.
        what: String,
    },
    /// Logits that no token can be drawn from: NaN, or a maximum that is not finite.
    #[error(
        "cannot draw a token from row {row} of the logits: that of token {token} is {value}, \
         expected numbers with a finite maximum"
    )]
    BadLogits {
        /// Row of the logits.
        row: usize,
        /// The first offending token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// The device failed at something it was asked to do.
    #[error("{device}: {what}: {reason}")]
    Kernel {
        /// The device's name.
        device: String,
        /// The kernel and its shape, or another operation.
        what: String,
        /// What the driver said.
        reason: String,
    },
    /// The device could not be set up.
    #[error("{device}: {reason}")]
    Setup {
        /// The device's name.
        device: String,
        /// Why.
        reason: String,
    },
}
