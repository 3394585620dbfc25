//! `rwkv fit`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rwkv_core::Image;
use serde::Serialize;

use super::{
    Alternative, BOARDS, Board, Core, Fit, Layout, Medium, Part, Place, assess, boards, fit,
    live_share, report,
};
use crate::cli;

/// Tokens that the host computes to learn how many columns are passed over.
const TOKENS: usize = 32;

/// Say whether a model fits a board, and how fast it can be at most
///
/// Without a board or part: a table of every board. Ends with 0 if it fits (of the table: any
/// board), else with 1.
#[derive(Debug, Clone, Args)]
pub struct FitArgs {
    /// The image
    pub image: PathBuf,
    /// A board of the project, such as microbit or rp2040
    #[arg(long, value_name = "BOARD", conflicts_with_all = ["flash", "ram", "core", "mips", "external"])]
    pub board: Option<String>,
    /// Bytes of a part's flash; K, M and G stand for 1024 and its powers
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "ram")]
    pub flash: Option<u64>,
    /// Bytes of its RAM
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "flash")]
    pub ram: Option<u64>,
    /// Its core [default: m4]
    #[arg(long, value_enum, requires = "flash")]
    pub core: Option<Core>,
    /// Million instructions per second
    #[arg(long, value_name = "N", requires = "flash", value_parser = positive)]
    pub mips: Option<f64>,
    /// Million bytes per second that weights are read with
    #[arg(long, value_name = "N", requires = "flash", value_parser = positive)]
    pub mbps: Option<f64>,
    /// Bytes of a flash chip or card beside it from which weights are streamed
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "mbps")]
    pub external: Option<u64>,
    /// Microseconds before the first byte of a read of the chip or card
    #[arg(long, value_name = "N", requires = "external", default_value = "0", value_parser = not_negative)]
    pub latency: f64,
    /// Bytes that the chip or card reads together: 4, or 512 of a card
    #[arg(long, value_name = "N", requires = "external", default_value = "4", value_parser = unit)]
    pub unit: u32,
    /// Buffers of a stream, as many as are of use unless told; with two, one is read into while the
    /// core computes from the other
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub buffers: Option<u8>,
    /// Bytes of the firmware instead of the least that the core needs
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub firmware: Option<u64>,
    /// Bytes of stack and static variables instead of what the agent needs
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub stack: Option<u64>,
    /// How many columns are not passed over
    #[command(flatten)]
    pub live: LiveArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The share of columns of sparse products that are not passed over: given, or measured.
#[derive(Debug, Clone, Args)]
pub struct LiveArgs {
    /// The share of columns that are not passed over, 0 to 1, instead of what the model does
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub live: Option<f64>,
    /// The text with which that is measured
    #[command(flatten)]
    pub prompt: cli::Prompt,
    /// The tokenizer
    #[command(flatten)]
    pub tokenizer: cli::TokenizerFile,
}

impl LiveArgs {
    /// That share, of an image.
    ///
    /// # Errors
    /// If the prompt is of no use, or the model cannot compute.
    pub(super) fn share(&self, image: &Image<'_>) -> anyhow::Result<f64> {
        ensure!(
            self.tokenizer.tokenizer.is_none() || self.prompt.is_given(),
            "--tokenizer is there to read a prompt; give --prompt or --prompt-file, or leave it out"
        );
        if let Some(live) = self.live {
            ensure!(
                !self.prompt.is_given(),
                "--live says what a prompt is there to measure; leave one of them out"
            );
            return Ok(live);
        }
        let prompt = if self.prompt.is_given() {
            self.prompt.tokens(image, &self.tokenizer.open(image)?)?
        } else {
            vec![u32::from(b'\n').min(image.header().dims.vocab - 1)]
        };
        live_share(image, &prompt, TOKENS.max(prompt.len()))
            .context("the model cannot compute a token on this host; give --live to go on without")
    }
}

/// A size, with a suffix or without.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number = digits.parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give bytes, or a number with K, M or G, such as 256K".to_owned())
}

fn number(text: &str, fits: impl Fn(f64) -> bool, wanted: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| fits(*number));
    number.ok_or_else(|| format!("give {wanted}"))
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, |n| n > 0.0 && n.is_finite(), "a number above 0")
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |n| n >= 0.0 && n.is_finite(), "a number that is not negative")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |n| (0.0..=1.0).contains(&n), "a number from 0 to 1")
}

fn unit(text: &str) -> Result<u32, String> {
    let unit = text.parse::<u32>().ok();
    let fits = unit.filter(|unit| unit.is_power_of_two() && (4..=4096).contains(unit));
    fits.ok_or_else(|| "give a power of two from 4 to 4096".to_owned())
}

/// What is printed as JSON of one part.
#[derive(Debug, Serialize)]
struct One<'a> {
    #[serde(flatten)]
    fit: &'a Fit,
    alternatives: &'a [Alternative],
}

/// What is printed as JSON of a board in a table.
#[derive(Debug, Serialize)]
struct OfMany<'a> {
    board: &'static str,
    chip: &'static str,
    emulated: bool,
    /// Bytes that the agent leaves to an image; `None` if the tool cannot start it.
    agent_room: Option<u64>,
    source: &'static str,
    #[serde(flatten)]
    fit: &'a Fit,
}

impl FitArgs {
    fn adjusted(&self, mut part: Part) -> Part {
        part.firmware = self.firmware.unwrap_or(part.firmware);
        part.stack = self.stack.unwrap_or(part.stack);
        part
    }

    /// The one part that is asked for, if it is one.
    fn part(&self) -> anyhow::Result<Option<Part>> {
        if let Some(name) = &self.board {
            let board = Board::find(name).with_context(|| {
                format!("there is no board `{name}`; there are: {}", boards::names())
            })?;
            return Ok(Some(self.buffered(board.into())?));
        }
        let (Some(flash), Some(ram)) = (self.flash, self.ram) else {
            ensure!(
                self.buffers.is_none(),
                "--buffers is for one part: give --board, or --flash and --ram, or leave it out"
            );
            return Ok(None);
        };
        let bandwidth = self.mbps.map(|mbps| 1e6 * mbps);
        let image = match (self.external, bandwidth) {
            (Some(room), Some(bandwidth)) => {
                let medium = Medium {
                    unit: self.unit,
                    bandwidth,
                    latency: 1e-6 * self.latency,
                    per_byte: 0.0,
                };
                Place::Streamed { name: "external", room, medium, buffers: 2 }
            }
            _ => Place::InPlace { bandwidth },
        };
        let core = self.core.unwrap_or(Core::M4);
        let part = Part {
            name: "this part".to_owned(),
            core,
            per_second: self.mips.map(|mips| 1e6 * mips),
            flash,
            runs_from_ram: false,
            ram,
            image,
            firmware: core.firmware(),
            stack: core.stack(),
            buffers: image.buffers(),
        };
        Ok(Some(self.buffered(part)?))
    }

    /// A part with the buffers that are asked for, if it can have them.
    fn buffered(&self, part: Part) -> anyhow::Result<Part> {
        let mut part = self.adjusted(part);
        let Some(buffers) = self.buffers else { return Ok(part) };
        let Place::Streamed { name, buffers: most, .. } = part.image else {
            bail!(
                "--buffers is for weights that are streamed, and {} reads them in place; leave it \
                 out, or give --external",
                part.name
            );
        };
        ensure!(
            buffers <= most,
            "the core of {} itself moves the bytes of its {name}, so that it cannot compute \
             meanwhile: give --buffers 1, or leave it out",
            part.name
        );
        part.buffers = buffers;
        Ok(part)
    }
}

/// Runs `rwkv fit`: success if the image fits.
///
/// # Errors
/// Whatever leaves no verdict.
pub fn command(args: &FitArgs) -> anyhow::Result<ExitCode> {
    let part = args.part()?;
    let file = cli::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let live = args.live.share(&image)?;
    let fits = match part {
        Some(part) => show_one(args, &image, &part, live)?,
        None => show_all(args, &Layout::of(&image), live)?,
    };
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_one(args: &FitArgs, image: &Image<'_>, part: &Part, live: f64) -> anyhow::Result<bool> {
    let (fit, alternatives) = fit(image, part, live);
    if args.json {
        let json = serde_json::to_string_pretty(&One { fit: &fit, alternatives: &alternatives })?;
        cli::show(|out| writeln!(out, "{json}"))?;
    } else {
        let board = args.board.as_deref().and_then(Board::find);
        let room = board.as_ref().and_then(Board::agent_room);
        cli::show(|out| {
            report::one(out, &fit, &alternatives)?;
            if board.as_ref().is_some_and(|board| !board.is_emulated()) {
                writeln!(out, "No emulator has this part: firmware for it is built, not run.")?;
            }
            match room.filter(|room| fit.fits && *room < fit.image_bytes) {
                Some(room) => writeln!(
                    out,
                    "The agent's firmware leaves {} bytes to an image: `rwkv validate` cannot run \
                     this one there.",
                    cli::Grouped(room)
                ),
                None => Ok(()),
            }
        })?;
    }
    Ok(fit.fits)
}

fn show_all(args: &FitArgs, layout: &Layout, live: f64) -> anyhow::Result<bool> {
    let fits = BOARDS.map(|board| (board, assess(layout, &args.adjusted(board.into()), live)));
    if args.json {
        let rows: Vec<OfMany<'_>> = fits
            .iter()
            .map(|(board, fit)| OfMany {
                board: board.name,
                chip: board.part,
                emulated: board.is_emulated(),
                agent_room: board.agent_room(),
                source: board.source,
                fit,
            })
            .collect();
        let json = serde_json::to_string_pretty(&rows)?;
        cli::show(|out| writeln!(out, "{json}"))?;
    } else {
        cli::show(|out| report::table(out, &fits))?;
    }
    Ok(fits.iter().any(|(_, fit)| fit.fits))
}
