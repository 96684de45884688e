//! Text: between strings and token ids.
//!
//! - [`tokenizer`]: text to ids and back.
//! - [`chat`]: chat templates: messages to the text that a model was trained on.
//! - [`stop`]: stop strings in text that arrives in pieces.

pub mod chat;
pub(crate) mod stop;
pub mod tokenizer;
