//! Tokenizers on the host: lists of tokens that go into an image, and the tokenizer of an image.

mod list;
mod literal;
mod section;

pub use list::{List, ListError};

#[cfg(test)]
mod tests;
