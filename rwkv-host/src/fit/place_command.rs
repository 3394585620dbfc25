//! `rwkv place`.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use rwkv_core::Image;
use rwkv_embedded::stream::PlacedRange;
use serde::Serialize;

use super::{Core, Layout, LiveArgs, Placement, Trace, command::size};
use crate::{cli, file};

/// Choose what of an image lies in memory, where only part of it fits, and write it
///
/// Firmware reads the rest from a medium that holds the whole image. What is written: the words of
/// each memory, and their places as a Rust and a C file.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// The image
    pub image: PathBuf,
    /// Bytes of internal flash that are free for weights; K, M and G stand for 1024 and its powers
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "0")]
    pub flash: u64,
    /// Bytes of RAM that are free for weights, which the firmware loads at boot
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "0")]
    pub ram: u64,
    /// The folder to write to; without it, only say what would be won
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// How many columns are not passed over
    #[command(flatten)]
    pub live: LiveArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a placement comes to.
#[derive(Debug, Serialize)]
struct Placed {
    /// Bytes per token without it.
    bytes_per_token: u64,
    /// Bytes per token that are left to the medium.
    streamed_per_token: u64,
    /// Of each memory.
    memories: Vec<InMemory>,
}

#[derive(Debug, Serialize)]
struct InMemory {
    memory: &'static str,
    bytes: u64,
    ranges: usize,
}

/// The memories in their order: names in files and in code.
const MEMORIES: [&str; 2] = ["flash", "ram"];

/// Runs `rwkv place`.
///
/// # Errors
/// If the image is of no use, there is nothing to place, or files cannot be written.
pub fn command(args: &PlaceArgs) -> anyhow::Result<()> {
    ensure!(
        args.flash + args.ram > 0,
        "there is no memory to place weights in: give --flash or --ram"
    );
    let file = cli::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let live = args.live.share(&image)?;
    let layout = Layout::of(&image);
    let placement = Placement::new(&layout, live, &[args.flash, args.ram]);
    let trace = Trace::new(&layout, &Core::M4.costs(), live);
    let bytes =
        |ranges: &[PlacedRange]| 4 * ranges.iter().map(|range| u64::from(range.words)).sum::<u64>();
    let memories = MEMORIES.into_iter().zip(&placement.memories);
    let placed = Placed {
        bytes_per_token: 4 * trace.words(),
        streamed_per_token: 4 * placement.outside(&trace).words(),
        memories: memories
            .map(|(memory, ranges)| InMemory { memory, bytes: bytes(ranges), ranges: ranges.len() })
            .collect(),
    };
    if let Some(dir) = &args.output {
        write_files(args, dir, &image, &placement)?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&placed)?;
        return cli::show(|out| writeln!(out, "{json}"));
    }
    cli::show(|out| show(out, &placed))
}

fn show(out: &mut impl Write, placed: &Placed) -> io::Result<()> {
    for InMemory { memory, bytes, ranges } in &placed.memories {
        if *bytes > 0 {
            writeln!(out, "{:>13}  bytes in {memory}, in {ranges} ranges", cli::Grouped(*bytes))?;
        }
    }
    writeln!(out, "{:>13}  bytes per token", cli::Grouped(placed.bytes_per_token))?;
    writeln!(out, "{:>13}  of them from the medium", cli::Grouped(placed.streamed_per_token))
}

/// The tables of a placement: in Rust and in C.
const TABLES: [&str; 2] = ["placement.rs", "placement.h"];

/// Writes the words of each memory and, when they are there, the tables. Files of an earlier
/// placement go first: whatever interrupts this, no table stands beside words of another.
fn write_files(
    args: &PlaceArgs,
    dir: &Path,
    image: &Image<'_>,
    placement: &Placement,
) -> anyhow::Result<()> {
    let words = MEMORIES.map(|name| dir.join(format!("{name}.bin")));
    let tables = TABLES.map(|name| dir.join(name));
    let inputs = [Some(("image", args.image.as_path())), args.live.prompt.input()];
    let inputs = inputs.into_iter().chain([args.live.tokenizer.input()]).flatten();
    for output in words.iter().chain(&tables) {
        file::check_output(output, inputs.clone())?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    for output in tables.iter().chain(&words) {
        remove(output)?;
    }
    for (index, path) in words.iter().enumerate() {
        let words = placement.words(index, image.words());
        if !words.is_empty() {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            file::write_whole(path, &bytes)?;
        }
    }
    let identity = image.identity();
    let texts = [rust(identity, placement), c(identity, placement)];
    tables.iter().zip(texts).try_for_each(|(path, text)| file::write_whole(path, text.as_bytes()))
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the old {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The table for `rwkv_embedded::stream::Placed`.
fn rust(identity: u32, placement: &Placement) -> String {
    let mut text = format!(
        "// Written by `rwkv place` for one image: compare `Image::identity` before these are used.\n\
         use rwkv_embedded::stream::PlacedRange;\n\
         pub const IDENTITY: u32 = {identity:#010x};\n"
    );
    for (name, ranges) in MEMORIES.into_iter().zip(&placement.memories) {
        let (name, count) = (name.to_uppercase(), ranges.len());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "pub const {name}: [PlacedRange; {count}] = [");
        for PlacedRange { first, words, at } in ranges {
            let _ =
                writeln!(text, "    PlacedRange {{ first: {first}, words: {words}, at: {at} }},");
        }
        text.push_str("];\n");
    }
    text
}

/// The same as a header in C: first word, words, word in the memory.
fn c(identity: u32, placement: &Placement) -> String {
    let mut text = format!(
        "/* Written by `rwkv place` for one image: compare its identity before these are used.\n   \
         First word in the image, words, word in the memory. */\n#include <stdint.h>\n\
         #define PLACED_IDENTITY {identity:#010x}u\n"
    );
    for (name, ranges) in MEMORIES.into_iter().zip(&placement.memories) {
        let _ = writeln!(text, "#define PLACED_{}_RANGES {}", name.to_uppercase(), ranges.len());
        if ranges.is_empty() {
            continue;
        }
        let _ = writeln!(text, "static const uint32_t placed_{name}[][3] = {{");
        for PlacedRange { first, words, at } in ranges {
            let _ = writeln!(text, "    {{{first}u, {words}u, {at}u}},");
        }
        text.push_str("};\n");
    }
    text
}
