//! `rwkv bake`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use rwkv_core::{Image, image::SectionKind};

use super::{Start, start::Begun};
use crate::{
    checkpoint::Checkpoint,
    convert::{tuned, with_start},
    file::{self, ImageFile},
    prefill::prefill,
};

#[derive(Debug, Args)]
pub(super) struct BakeArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    start: Start,
    /// A checkpoint or file with tuned states (`blocks.N.att.time_state`) to begin at
    #[arg(long, value_name = "FILE", conflicts_with_all = ["state", "prompt", "prompt_file"])]
    tuned: Option<PathBuf>,
    /// Take the start state out: the image begins where nothing was read
    #[arg(long, conflicts_with_all = ["state", "prompt", "prompt_file", "tuned"])]
    none: bool,
    /// The image to write
    #[arg(short, long, value_name = "OUT.rwkv")]
    output: PathBuf,
}

impl BakeArgs {
    /// The words to begin at, and where they come from.
    fn words(&self, image: &Image<'_>) -> anyhow::Result<(Option<Vec<f32>>, String)> {
        if self.none {
            return Ok((None, "begins where nothing was read".into()));
        }
        if let Some(path) = &self.tuned {
            let shown = path.display();
            let checkpoint = Checkpoint::open(path)?;
            let files = checkpoint.paths().map(|path| ("tuned states", path));
            file::check_output(&self.output, files)?;
            let header = image.header();
            let words = tuned(&checkpoint, header.version, &header.dims)
                .with_context(|| format!("cannot begin {} at {shown}", self.image.display()))?;
            let words = words.with_context(|| {
                format!("{shown} has no tuned states `blocks.N.att.time_state`")
            })?;
            return Ok((Some(words), format!("begins at the states of {shown}")));
        }
        let given = self.start.state.is_some() || self.start.prompt.is_given();
        ensure!(given, "nothing to begin at: give --prompt, --prompt-file, --state or --tuned");
        if self.start.state.is_none() && image.section(SectionKind::StartState).is_some() {
            let shown = self.image.display();
            eprintln!(
                "{shown} begins at a start state, and the prompt is read after it; \
                 to begin anew, take it out first: rwkv bake {shown} --none -o OUT.rwkv"
            );
        }
        let tokenizer = self.start.tokenizer.open(image)?;
        let Begun { mut memory, position, tokens, .. } = self.start.resume(image, &tokenizer)?;
        // All of it is read: nothing is pending in an image.
        prefill::<&mut [f32]>(image, memory.state(image)?, &tokens, &mut [])?;
        let read = position.saturating_add(tokens.len() as u64);
        Ok((Some(memory.state(image)?.words().concat()), format!("begins after {read} tokens")))
    }
}

pub(super) fn command(args: &BakeArgs) -> anyhow::Result<()> {
    file::check_output(&args.output, args.start.inputs().chain(args.start.state_input()))?;
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let (words, what) = args.words(&image)?;
    let baked = ImageFile::new(&with_start(&image, words.as_deref())?);
    let identity = baked.open().context("the state cannot be begun at")?.identity();
    file::write_whole(&args.output, baked.bytes())?;
    let shown = args.output.display();
    eprintln!("{shown}: image {identity:08x}, {what}; next: rwkv generate {shown}");
    Ok(())
}
