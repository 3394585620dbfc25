//! Where reading begins: at the image's start or at a saved state.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;
use rwkv_core::Image;

use super::{Prompt, TokenizerFile};
use crate::{
    file::{self, Input},
    memory::Memory,
    state::{self, Place},
    tokenizer::Tokenizer,
};

/// A saved state to go on from, and what to read then.
#[derive(Debug, Clone, Args)]
pub struct Start {
    /// Go on from this state, as `rwkv prefill` saves it, instead of from the image's start
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// What to read
    #[command(flatten)]
    pub prompt: Prompt,
    /// The tokenizer
    #[command(flatten)]
    pub tokenizer: TokenizerFile,
}

/// A state, and what it is to read.
#[derive(Debug)]
pub struct Begun {
    /// The state.
    pub memory: Memory,
    /// Tokens that the state has read.
    pub position: u64,
    /// Tokens to read.
    pub tokens: Vec<u32>,
    /// How many of them were pending, and are no news.
    pub pending: usize,
}

impl Start {
    /// The files that are read, but for the saved state.
    pub fn inputs(&self) -> impl Iterator<Item = Input<'_>> {
        self.prompt.input().into_iter().chain(self.tokenizer.input())
    }

    /// The saved state's file.
    pub fn state_input(&self) -> Option<Input<'_>> {
        self.state.as_deref().map(|path| ("saved state", path))
    }

    /// Refuses an output that is one of the files that are read, the image among them.
    ///
    /// # Errors
    /// If it is.
    pub fn check_output(&self, output: Option<&Path>, image: &Path) -> anyhow::Result<()> {
        let Some(output) = output else { return Ok(()) };
        let inputs = self.inputs().chain(self.state_input()).chain([("image", image)]);
        file::check_output(output, inputs)
    }

    /// Puts the state into memory, and the token that it awaits before the prompt: at least one
    /// token in all. A state that awaits one needs no prompt.
    ///
    /// # Errors
    /// If the state or the prompt is of no use.
    pub fn begin(&self, image: &Image<'_>, tokenizer: &Tokenizer<'_>) -> anyhow::Result<Begun> {
        let begun = self.resume(image, tokenizer)?;
        let something = !begun.tokens.is_empty();
        ensure!(something, "the state awaits no token: give a prompt to go on with");
        Ok(begun)
    }

    /// As [`Start::begin`], but there may be nothing to read.
    ///
    /// # Errors
    /// As there.
    pub fn resume(&self, image: &Image<'_>, tokenizer: &Tokenizer<'_>) -> anyhow::Result<Begun> {
        let mut memory = Memory::new(image);
        let place = match &self.state {
            Some(path) => state::read(path, image, &mut memory)?,
            None => Place::default(),
        };
        let mut tokens: Vec<u32> = place.pending.into_iter().collect();
        let pending = tokens.len();
        if self.state.is_none() || self.prompt.is_given() {
            tokens.extend(self.prompt.tokens(image, tokenizer)?);
        }
        Ok(Begun { memory, position: place.position, tokens, pending })
    }
}
