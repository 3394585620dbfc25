//! Many prompts for one command.

use std::path::PathBuf;

use clap::Args;
use rwkv_core::Image;

use super::Prompt;
use crate::{
    file::Input,
    prompts::{self, Case},
    tokenizer::Tokenizer,
};

/// A file of prompts, in the place of one.
#[derive(Debug, Clone, Args)]
pub struct Prompts {
    /// Many prompts, a line of JSON each: a string, or an object with `prompt` (or `tokens`, a list of
    /// ids), and perhaps `generate` and `name`
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["prompt", "prompt_file"])]
    pub prompts: Option<PathBuf>,
}

impl Prompts {
    /// The file that they are read from.
    pub fn input(&self) -> Option<Input<'_>> {
        self.prompts.as_deref().map(|path| ("file of prompts", path))
    }

    /// The prompts of the file, or `prompt` where there is none, which generate so many tokens each
    /// unless they say otherwise.
    ///
    /// # Errors
    /// If a file cannot be read, or a prompt is of no use.
    pub fn cases(
        &self,
        prompt: &Prompt,
        image: &Image<'_>,
        tokenizer: &Tokenizer<'_>,
        generate: u32,
    ) -> anyhow::Result<Vec<Case>> {
        let Some(path) = &self.prompts else {
            return Ok(vec![Case::numbered(0, prompt.tokens(image, tokenizer)?, generate)]);
        };
        let vocab = image.header().dims.vocab;
        prompts::read(path, vocab, generate, |text| super::tokens(text, image, tokenizer))
    }
}

/// Tokens of prompts and their continuations.
pub fn tokens_of(cases: &[Case]) -> u64 {
    cases.iter().map(|case| case.tokens.len() as u64 + u64::from(case.generate)).sum()
}
