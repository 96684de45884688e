//! Lowering: the types that an instruction's decoder works with.
//!
//! [`Form`] is the instruction as written. It records which modifiers the decoder has checked and
//! refuses the others, so that none is ignored silently. [`Builder`] allocates registers, constants
//! and addresses, and collects the decoded instructions.

mod builder;
mod form;

pub use builder::{Builder, Meta, Name, PRED, Symbol};
pub use form::Form;

pub use crate::ptx::{PtxError, refuse};

/// The result of a decoder.
pub type Res<T = ()> = Result<T, PtxError>;
