//! `rwkv validate`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use chrono::Utc;
use rwkv_core::Image;
use rwkv_embedded::agent::protocol::Token;

use super::{Begin, Expected, Host, Report, Validation, bisect::is_written, validate_all};
use crate::{
    cli,
    device::{Device, Fault, Flip},
    file::{self, Input},
    prefill::Backend,
    prompts::Case,
    tokenizer::Tokenizer,
    trace::Trace,
};

/// Prove that a device computes the same bits as the host, or as a golden trace has them
#[derive(Debug, Clone, clap::Args)]
pub struct ValidateArgs {
    /// The image; a board on a serial port that is held to a trace needs none here
    #[arg(required_unless_present = "golden")]
    pub image: Option<PathBuf>,
    /// The device
    #[command(flatten)]
    pub at: cli::OnDevice,
    /// Where both begin, and the prompt
    #[command(flatten)]
    pub start: cli::Start,
    /// Many prompts
    #[command(flatten)]
    pub prompts: cli::Prompts,
    /// Where the host computes; the bits are the same
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Tokens to generate after each prompt that does not say how many
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 64)]
    pub tokens: u32,
    /// How the following tokens are chosen, on both sides
    #[command(flatten)]
    pub sampling: cli::Sampling,
    /// Hold the device to this trace, as `rwkv trace` records it, instead of what the host computes
    #[arg(
        long,
        value_name = "TRACE",
        conflicts_with_all = ["state", "Prompt", "Prompts", "TokenizerFile", "Sampling", "tokens"]
    )]
    pub golden: Option<PathBuf>,
    /// Write what was found as a page of HTML, with pictures
    #[arg(long, value_name = "OUT.html")]
    pub report: Option<PathBuf>,
    /// Print the text as the device produces it
    #[arg(long, conflicts_with_all = ["json", "prompts", "golden"])]
    pub stream: bool,
    /// Print the verdict as JSON
    #[arg(long)]
    pub json: bool,
    /// Flip a bit of the simulated device's flash after the image was checked
    #[arg(long, value_name = "OFFSET[:BIT]")]
    pub sim_flip_bit: Option<Flip>,
    /// Have the simulated device compute a bit wrong, of every token or of the one with a number;
    /// sections are 0 for the embedding, then the layers from 1 on, then the head, and the bit is 0
    /// if none is given
    #[arg(long, value_name = "[TOKEN@]SECTION:OPERATION:ELEMENT[:BIT]")]
    pub sim_fault: Option<Fault>,
    /// Show what the device printed
    #[arg(long)]
    pub device_log: bool,
}

/// Runs `rwkv validate`: success if all bits are equal.
///
/// # Errors
/// Whatever leaves no verdict.
pub fn command(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.report {
        file::check_output(path, args.inputs())?;
    }
    let file = match &args.image {
        Some(path) => Some((path, cli::read_image(path)?)),
        None => None,
    };
    let image = file.as_ref().map(|(path, file)| file.open_named(path)).transpose()?;
    let found = match (&args.golden, &image) {
        (Some(path), image) => args.held_to_trace(image.as_ref(), &Trace::read(path)?)?,
        (None, Some(image)) => args.held_to_host(image)?,
        (None, None) => anyhow::bail!("there is nothing to hold the device to: give the image"),
    };
    let is_one = args.prompts.prompts.is_none() && args.golden.is_none();
    match found.single().filter(|_| is_one) {
        Some(single) => cli::print(&single, args.json)?,
        None => cli::print(&found, args.json)?,
    }
    if let Some(path) = &args.report {
        let tokenizer = image.as_ref().and_then(|image| args.start.tokenizer.open(image).ok());
        let (image, tokenizer) = (image.as_ref(), tokenizer.as_ref());
        let report = Report { found: &found, image, tokenizer, date: Utc::now() };
        file::write_whole(path, report.to_string().as_bytes())?;
    }
    if found.is_equal() && (args.sim_fault.is_some() || args.sim_flip_bit.is_some()) {
        eprintln!("what was planted in the device made no difference: no token came to use it");
    }
    Ok(if found.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl ValidateArgs {
    /// The files that are read.
    fn inputs(&self) -> impl Iterator<Item = Input<'_>> {
        let files = self.start.inputs().chain(self.start.state_input());
        let more = [("image", &self.image), ("trace", &self.golden)];
        let more = more.into_iter().filter_map(|(what, path)| Some((what, path.as_deref()?)));
        files.chain(self.prompts.input()).chain(self.at.input()).chain(more)
    }

    fn held_to_host(&self, image: &Image<'_>) -> anyhow::Result<Validation> {
        let tokenizer = self.start.tokenizer.open(image)?;
        let cli::Begun { mut memory, tokens, pending, .. } =
            self.start.resume(image, &tokenizer)?;
        let words = memory.state(image)?.words().concat();
        let cases = match &self.prompts.prompts {
            Some(_) => {
                let mut cases =
                    self.prompts.cases(&self.start.prompt, image, &tokenizer, self.tokens)?;
                let pending = tokens.get(..pending).unwrap_or_default();
                cases.iter_mut().for_each(|case| drop(case.tokens.splice(..0, pending.to_vec())));
                cases
            }
            None => vec![Case::numbered(0, tokens, self.tokens)],
        };
        let nothing = cases.iter().any(|case| case.tokens.is_empty());
        ensure!(!nothing, "the state awaits no token: give a prompt to go on with");
        let sampler = self.sampling.settings(image, &tokenizer)?;
        let mut host = Host::on(cli::runner(self.backend, image)?, image, sampler.clone())?;
        let state = self.start.state.is_some().then_some(&words[..]);
        let begin = Begin { sampler, state };
        let mut device = self.started(image)?;
        let expected = Expected::Computed { host: &mut host, begin, cases: &cases };
        self.run(&mut device, expected, cli::tokens_of(&cases), Some(&tokenizer))
            .map(|found| ended(device, found))
    }

    fn held_to_trace(
        &self,
        image: Option<&Image<'_>>,
        trace: &Trace,
    ) -> anyhow::Result<Validation> {
        let mut host = match image {
            Some(image) => {
                trace.check_image(image).context("give the image that the trace is of")?;
                let runner = cli::runner(self.backend, image)?;
                Some(Host::on(runner, image, trace.sampler.clone())?)
            }
            None => {
                let is_default = self.backend == Backend::default();
                ensure!(is_default, "--backend is for the host's side, which needs the image");
                None
            }
        };
        let mut device = match image {
            Some(image) => self.started(image)?,
            None => self.at.attach(&trace.image, self.sim_flip_bit, self.sim_fault)?,
        };
        let expected = Expected::Golden { trace, host: host.as_mut() };
        self.run(&mut device, expected, trace.tokens() as u64, None)
            .map(|found| ended(device, found))
    }

    /// The device, with an image.
    fn started(&self, image: &Image<'_>) -> anyhow::Result<Device> {
        if let Some(Fault { written, element, .. }) = self.sim_fault {
            let name = format!("{}:{}:{element}", written.section, written.operation);
            ensure!(
                is_written(image, written, element)?,
                "a token of this image writes no value {name}: sections are 0 to {}, and operations and elements count from 0",
                image.header().dims.layers + 1
            );
        }
        self.at.open(image, self.sim_flip_bit, self.sim_fault)
    }

    fn run(
        &self,
        device: &mut Device,
        expected: Expected<'_, '_>,
        tokens: u64,
        tokenizer: Option<&Tokenizer<'_>>,
    ) -> anyhow::Result<Validation> {
        let bar = cli::progress(tokens, "validating");
        let mut text = cli::Text::default();
        let found = validate_all(device, expected, |token: &Token| match tokenizer {
            Some(tokenizer) if self.stream => text.push(tokenizer.decode(token.token)),
            _ => bar.inc(1),
        });
        bar.finish_and_clear();
        text.finish();
        if self.device_log {
            eprint!("{}", device.log().0);
        }
        found
    }
}

/// The verdict stands, however the device ends.
fn ended(device: Device, found: Validation) -> Validation {
    let _ = device.halt();
    found
}
