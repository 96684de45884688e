//! From syntax to instructions: what an instruction's decoder works with.
//!
//! [`Form`] is the instruction as written and remembers which of its modifiers somebody asked for: what nobody
//! asked for is refused, so nothing is ignored in silence. [`Builder`] hands out registers, constants and
//! addresses, and collects the decoded instructions.

mod builder;
mod form;

pub use builder::{Builder, Meta, Name, PRED, Symbol};
pub use form::Form;

pub use crate::ptx::{PtxError, refuse};

/// What a decoder returns.
pub type Res<T = ()> = Result<T, PtxError>;
