//! `rwkv generate`.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use rwkv_core::{
    Model,
    sampler::{Banned, Mask, Sampler, Tunes},
    stream::InPlace,
    tokenizer::StopStream,
};

use super::{Begun, Sampling, Start, Text};
use crate::{
    file,
    prefill::{pays_for_one, prefill},
    state::{self, Place},
    tokenizer::Tokenizer,
};

/// What a text may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Grammar {
    /// Tunes in ABC notation, whose bars have the length of their metre
    Abc,
}

impl Grammar {
    /// Where the text of these tokens ends.
    fn after<'a>(self, tokens: &[u32], tokenizer: &Tokenizer<'a>) -> anyhow::Result<Tunes<'a>> {
        let Self::Abc = self;
        let tokenizer = tokenizer.in_image().context(
            "--grammar needs a tokenizer that the image holds: convert it with --tokenizer LIST",
        )?;
        let mut tunes = Tunes::new(tokenizer);
        tokens.iter().for_each(|token| tunes.advance(*token));
        ensure!(
            tunes.tune().is_some(),
            "the prompt is not in the grammar: begin with header lines such as X:1, and leave chords out"
        );
        Ok(tunes)
    }
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    start: Start,
    /// Tokens to generate, fewer if the model ends its text or a stop text does
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 256)]
    count: usize,
    /// Stop before this text; may be given more than once
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Choose only tokens after which the text is in this grammar
    #[arg(long, value_enum)]
    grammar: Option<Grammar>,
    /// Save the state here, with the last token pending; a text of --stop that was found is in it
    #[arg(long, value_name = "OUT.state")]
    save_state: Option<PathBuf>,
    #[command(flatten)]
    sampling: Sampling,
}

pub(super) fn command(args: &GenerateArgs) -> anyhow::Result<()> {
    ensure!(
        args.count > 0 || args.save_state.is_none(),
        "--save-state needs at least one token; to save the state after a prompt: rwkv prefill"
    );
    if let Some(path) = &args.save_state {
        let image = ("image", args.image.as_path());
        file::check_output(path, args.start.inputs().chain([image]))?;
    }
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let tokenizer = args.start.tokenizer.open(&image)?;
    let begun = args.start.begin(&image, &tokenizer)?;
    let Begun { mut memory, position, tokens, pending } = begun;
    let settings = args.sampling.settings(&image, &tokenizer)?;
    let banned = Banned::new(&settings.banned)?;
    let mut sampler = Sampler::new(settings.config)?;
    ensure!(
        args.grammar.is_none() || (args.start.state.is_none() && image.header().start_offset == 0),
        "--grammar follows a text from its beginning: leave --state out, and take an image that was not baked"
    );
    let mut grammar = args.grammar.map(|grammar| grammar.after(&tokens, &tokenizer)).transpose()?;
    let stops: Vec<&[u8]> = args.stop.iter().map(|text| text.as_bytes()).collect();
    let mut stop = StopStream::new(&stops).context("--stop")?;
    let mut text = Text::default();

    let start = Instant::now();
    sampler.begin();
    prefill(&image, memory.state(&image)?, &tokens, &mut [sampler.within((banned, &grammar))])?;
    let read = start.elapsed().as_secs_f64();

    let parallel = pays_for_one(&image);
    let start = Instant::now();
    let (mut state, scratch) = memory.split(&image)?;
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch)?;
    tokens.iter().skip(pending).for_each(|token| text.push(tokenizer.decode(*token)));
    let (mut count, mut last) = (0, None);
    while count < args.count {
        if let Some(token) = last {
            sampler.begin();
            if parallel {
                let logits = sampler.within((banned, &grammar));
                prefill(&image, state.reborrow(), &[token], &mut [logits])?;
            } else {
                model.step(state.reborrow(), token, sampler.within((banned, &grammar)))?;
            }
        }
        let token = sampler.finish()?;
        grammar.advance(token);
        count += 1;
        last = Some(token);
        if last == tokenizer.end_of_text() {
            break;
        }
        let mut certain = Vec::new();
        let found = stop.push(tokenizer.decode(token), |bytes| certain.extend_from_slice(bytes));
        text.push(&certain);
        if found.is_some() {
            break;
        }
    }
    stop.finish(|bytes| text.push(bytes));
    text.finish();
    let columns = model.columns();
    let wrote = start.elapsed().as_secs_f64();
    let live = match columns.all {
        0 => String::new(),
        all => format!(
            "; {:.0} % of the columns of sparse products were needed",
            100.0 * columns.live as f64 / all as f64
        ),
    };
    eprintln!(
        "prompt: {} tokens, {:.0} tokens/s; generated: {} tokens, {:.0} tokens/s{live}",
        tokens.len(),
        tokens.len() as f64 / read,
        count,
        count.saturating_sub(1) as f64 / wrote,
    );
    if let Some(path) = &args.save_state {
        let read = (tokens.len() + count.saturating_sub(1)) as u64;
        let place = Place { position: position.saturating_add(read), pending: last };
        state::write(path, &image, &mut memory, place)?;
    }
    Ok(())
}
