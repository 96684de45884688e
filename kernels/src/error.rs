//! What a backend can fail with, and [`Setting`], by which every crate says that a setting cannot be honoured.

/// A setting that cannot be honoured.
///
/// Errors of the libraries speak of settings, never of flags, JSON fields or keywords: whoever took the
/// setting from a user turns `name` into that user's spelling (`beam_width` is `--beam-width` on the command
/// line). In the text of any error, a setting's name stands in backticks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is {found}; expected {expected}")]
pub struct Setting {
    /// The setting's name in snake case, the same in every interface.
    pub name: &'static str,
    /// Its value, as text.
    pub found: String,
    /// What it may be.
    pub expected: String,
}

impl Setting {
    /// A setting with the value found and the values it may have.
    pub fn new(name: &'static str, found: impl ToString, expected: impl Into<String>) -> Setting {
        Setting {
            name,
            found: found.to_string(),
            expected: expected.into(),
        }
    }
}

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
         of the {} that are free (`gpu_memory_fraction`, `kv_memory`)",
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

impl Error {
    /// Whether the names in backticks in this error's text are those of settings.
    pub fn names_settings(&self) -> bool {
        matches!(self, Error::DoesNotFit { .. })
    }
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
