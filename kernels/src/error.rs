//! The errors of a backend, and [`Setting`], the error of every crate for a setting it cannot
//! honour.

/// A setting that cannot be honoured.
///
/// Errors of the libraries name settings, never flags, JSON fields or keywords. The interface that
/// read the setting from a user translates `name` into its own spelling (`beam_width` is
/// `--beam-width` on the command line). In the text of every error, a setting's name is in
/// backticks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is {found}; expected {expected}")]
pub struct Setting {
    /// The setting's name in snake case, the same in every interface.
    pub name: &'static str,
    /// Its value, as text.
    pub found: String,
    /// The values it may have.
    pub expected: String,
}

impl Setting {
    /// The error for setting `name` with the value found and the values it may have.
    pub fn new(name: &'static str, found: impl ToString, expected: impl Into<String>) -> Setting {
        Setting {
            name,
            found: found.to_string(),
            expected: expected.into(),
        }
    }
}

/// A failed device operation: memory, configuration or the driver. Shapes are the caller's duty and
/// are asserted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device cannot allocate the requested memory.
    #[error("{device}: cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes requested.
        bytes: usize,
        /// The purpose of the memory.
        what: &'static str,
    },
    /// Models and KV cache need more of the device's memory than they may use.
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
        /// Bytes of KV cache requested, or the minimum that is useful.
        kv: usize,
        /// Bytes both may use.
        allowed: usize,
        /// The fraction of the free memory they may use.
        fraction: f64,
        /// Bytes of free memory.
        free: usize,
    },
    /// A shape or dtype that the backend has no kernel for.
    #[error("{device}: {what} is not supported")]
    Unsupported {
        /// The device's name.
        device: String,
        /// The unsupported shape or type.
        what: String,
    },
    /// Logits from which no token can be drawn: NaN, or a maximum that is not finite.
    #[error(
        "cannot draw a token from row {row} of the logits: that of token {token} is {value}, \
         expected numbers with a finite maximum"
    )]
    BadLogits {
        /// Row of logits.
        row: usize,
        /// The first offending token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// A kernel or a driver call failed.
    #[error("{device}: {what}: {reason}")]
    Kernel {
        /// The device's name.
        device: String,
        /// The kernel with its shape, or the driver call.
        what: String,
        /// The driver's message.
        reason: String,
    },
    /// The device could not be set up.
    #[error("{device}: {reason}")]
    Setup {
        /// The device's name.
        device: String,
        /// The reason.
        reason: String,
    },
}

impl Error {
    /// Whether the names in backticks in this error's text are settings.
    pub fn names_settings(&self) -> bool {
        matches!(self, Error::DoesNotFit { .. })
    }
}

/// A number of bytes with a binary unit.
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
