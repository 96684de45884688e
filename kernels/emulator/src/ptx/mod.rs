//! PTX text to a syntax tree. It contains no instruction: an opcode is its dotted words.
//!
//! Every error has its PTX line. On any text the parser does not panic, and it recurses no deeper
//! than a bracket inside an operand.

mod lexer;
mod parser;
pub mod tree;

pub use parser::parse;

/// Why a PTX text was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtxError {
    /// PTX line, counted from 1.
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

/// An error at a PTX line.
pub fn refuse<T>(line: u32, message: impl Into<String>) -> Result<T, PtxError> {
    Err(PtxError {
        line,
        message: message.into(),
    })
}
