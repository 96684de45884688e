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
    /// Models and KV cache need more than they may take of the device's memory.
    #[error(
        "{device}: the models take {} with their buffers and the KV cache {}; {} may be used, {fraction} \
         of the {} that are free (--gpu-memory-fraction, --kv-memory)",
        amount(*weights), amount(*kv), amount(*allowed), amount(*free)
    )]
    DoesNotFit {
        /// The device's name.
        device: String,
        /// Bytes of weights, tables and activations.
        weights: usize,
        /// Bytes of KV cache asked for, or the least that is of use.
        kv: usize,
        /// Bytes both may take.
        allowed: usize,
        /// Their part of the free memory.
        fraction: f64,
        /// Bytes of memory that were free.
        free: usize,
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

/// Bytes in words.
fn amount(bytes: usize) -> String {
    let mut amount = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB"] {
        if amount < 1024.0 {
            return format!("{amount:.1} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} GiB")
}
