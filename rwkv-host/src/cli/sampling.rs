//! How the next token is chosen.

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use rwkv_core::{
    Image,
    sampler::{self, MAX_CANDIDATES, SamplerConfig},
};
use rwkv_embedded::agent::protocol::{MAX_BANNED, SamplerSettings};

use crate::tokenizer::Tokenizer;

/// In which order the settings take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Temperature, top-k, top-p, min-p
    Common,
    /// Top-p, min-p, top-k, temperature, as RWKV's own package does it
    Official,
}

/// How the next token is chosen.
#[derive(Debug, Clone, Args)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Looks at the K most likely tokens only; 0 for as many as the sampler can
    #[arg(
        long, value_name = "K", default_value_t = 0,
        value_parser = clap::value_parser!(u16).range(0..=MAX_CANDIDATES as i64)
    )]
    pub top_k: u16,
    /// Looks at the fewest tokens that reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Looks at tokens that have at least this share of the largest probability
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Divides positive logits of tokens that were generated, multiplies negative ones; 1 is off
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repetition_penalty: f32,
    /// Is subtracted from the logits of tokens that were generated
    #[arg(long, value_name = "A", default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Is subtracted once more for each time that the token was generated
    #[arg(long, value_name = "A", default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
    /// What is left of each time after one more token
    #[arg(long, value_name = "D", default_value_t = 1.0, allow_negative_numbers = true)]
    pub penalty_decay: f32,
    /// Which of them takes effect first
    #[arg(long, value_enum, default_value_t = Order::Common)]
    pub order: Order,
    /// Never chooses these tokens
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    pub ban: Vec<u32>,
    /// Never chooses the token with this text; may be given more than once
    #[arg(long, value_name = "TEXT")]
    pub ban_text: Vec<String>,
    /// Same seed, same text
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

impl Sampling {
    /// The sampler's settings, for this host and for any device.
    ///
    /// # Errors
    /// A setting is out of range, a banned token is not in the vocabulary, or there are too many.
    pub fn settings(
        &self,
        image: &Image<'_>,
        tokenizer: &Tokenizer<'_>,
    ) -> anyhow::Result<SamplerSettings> {
        let config = SamplerConfig {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition: self.repetition_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            penalty_decay: self.penalty_decay,
            order: match self.order {
                Order::Common => sampler::Order::Common,
                Order::Official => sampler::Order::Official,
            },
            seed: self.seed,
        };
        config.validate().context("the sampler refuses its settings")?;
        let mut banned = self.ban.clone();
        for text in &self.ban_text {
            banned.push(only_token(text, tokenizer)?);
        }
        banned.sort_unstable();
        banned.dedup();
        let vocab = image.header().dims.vocab;
        if let Some(token) = banned.iter().find(|token| **token >= vocab) {
            anyhow::bail!(
                "token {token} cannot be banned: the model's vocabulary has {vocab} tokens"
            );
        }
        let count = banned.len();
        ensure!(
            count <= MAX_BANNED,
            "{count} tokens cannot be banned: a device takes {MAX_BANNED} at most"
        );
        Ok(SamplerSettings { config, banned: banned.into_iter().collect() })
    }
}

/// The token that is the whole text.
fn only_token(text: &str, tokenizer: &Tokenizer<'_>) -> anyhow::Result<u32> {
    let tokens = tokenizer.encode(text.as_bytes())?;
    match tokens[..] {
        [token] => Ok(token),
        _ => anyhow::bail!(
            "{text:?} cannot be banned: it is {} tokens, {tokens:?}, and not one; \
             rwkv tokens shows how a text is taken apart, and --ban takes token ids",
            tokens.len()
        ),
    }
}
