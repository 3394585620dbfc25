//! `rwkv generate`.

use std::{path::PathBuf, time::Instant};

use clap::Args;
use rwkv_core::{Model, sampler::Sampler, stream::InPlace};

use super::{Prompt, Sampling, Text, TokenizerFile};
use crate::{memory::Memory, prefill::prefill};

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    prompt: Prompt,
    #[command(flatten)]
    tokenizer: TokenizerFile,
    /// Tokens to generate
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 256)]
    count: usize,
    #[command(flatten)]
    sampling: Sampling,
}

pub(super) fn command(args: &GenerateArgs) -> anyhow::Result<()> {
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.tokenizer.open(&image)?;
    let tokens = args.prompt.tokens(&image, &tokenizer)?;
    let mut sampler = Sampler::new(args.sampling.config())?;
    let mut memory = Memory::new(&image);
    let mut text = Text::default();

    let start = Instant::now();
    sampler.begin();
    prefill(&image, memory.state(&image)?, &tokens, &mut [&mut sampler])?;
    let read = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let (mut state, scratch) = memory.split(&image)?;
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch)?;
    tokens.iter().for_each(|token| text.push(tokenizer.decode(*token)));
    for index in 0..args.count {
        let token = sampler.finish()?;
        text.push(tokenizer.decode(token));
        if index + 1 < args.count {
            sampler.begin();
            model.step(state.reborrow(), token, &mut sampler)?;
        }
    }
    text.finish();
    let columns = model.columns();
    let wrote = start.elapsed().as_secs_f64();
    eprintln!(
        "prompt: {} tokens, {:.0} tokens/s; generated: {} tokens, {:.0} tokens/s; {:.0} % of the columns of sparse products were needed",
        tokens.len(),
        tokens.len() as f64 / read,
        args.count,
        args.count.saturating_sub(1) as f64 / wrote,
        100.0 * columns.live as f64 / columns.all.max(1) as f64
    );
    Ok(())
}
