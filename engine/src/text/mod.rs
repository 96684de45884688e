//! Text: between strings and token ids.
//!
//! - [`tokenizer`]: text to ids and back. `special`: tokens from other files than its own.
//!   [`stream`]: text that grows one token at a time.
//! - [`chat`]: chat templates: messages to the text that a model was trained on. `jinja`: the
//!   dialect they are written in. `bounds`: what one rendering may build.
//! - `stop`: stop strings in text that arrives in pieces.

mod bounds;
pub mod chat;
mod jinja;
mod special;
pub(crate) mod stop;
pub mod stream;
pub mod tokenizer;
mod tokenizer_class;
