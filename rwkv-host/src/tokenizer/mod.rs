//! Tokenizers on the host: lists of tokens that go into an image, and the tokenizer of an image.

mod choice;
mod host;
mod list;
mod literal;
#[cfg(feature = "neox")]
mod neox;
mod section;

pub use choice::Choice;
pub use host::{Tokenizer, TokenizerError, name};
pub use list::{List, ListError};
#[cfg(feature = "neox")]
pub use neox::Neox;

#[cfg(test)]
mod tests;
