//! PTX text to a syntax tree. Knows no instruction: an opcode is its dotted words.
//!
//! Every error carries the line it was found in. The reader never panics and never recurses deeper than a
//! bracket inside an operand, whatever the text is.

mod lexer;
mod parser;
pub mod tree;

pub use parser::parse;

/// Why a PTX text was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtxError {
    /// Line in the PTX text, counted from 1.
    pub line: u32,
    /// What was found and what was expected.
    pub message: String,
}

impl std::fmt::Display for PtxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for PtxError {}

/// Shorthand for a refusal.
pub fn refuse<T>(line: u32, message: impl Into<String>) -> Result<T, PtxError> {
    Err(PtxError {
        line,
        message: message.into(),
    })
}
