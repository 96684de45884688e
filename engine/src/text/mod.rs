//! Text: between strings and token ids.
//!
//! - [`tokenizer`]: text to ids and back. [`stream`]: text that grows one token at a time.
//! - [`chat`]: chat templates: messages to the text that a model was trained on. `jinja`: the
//!   dialect they are written in.
//! - `stop`: stop strings in text that arrives in pieces.

pub mod chat;
mod jinja;
pub(crate) mod stop;
pub mod stream;
pub mod tokenizer;
