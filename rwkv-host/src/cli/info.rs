//! `rwkv info`.

use std::{fmt, path::PathBuf};

use anyhow::ensure;
use clap::Args;
use rwkv_core::{
    Image,
    image::{HEADER_BYTES, Layout, RECORD_WORDS, SECTION_BYTES, SectionKind},
};
use rwkv_embedded::stream::row_words;
use serde::Serialize;

use crate::{
    fit::{self, Core, Trace},
    trace,
};

#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// The image, or a trace of `rwkv trace`
    image: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the sizes as macros for C, for firmware that links librwkv.a
    #[arg(long, conflicts_with = "json")]
    c: bool,
}

/// What an image holds and what it needs. Sizes are in bytes.
#[derive(Debug, Serialize)]
struct Info {
    version: &'static str,
    identity: String,
    layers: u32,
    dim: u32,
    ffn: u32,
    vocab: u32,
    head_size: u32,
    group_norm_eps: f32,
    tokenizer: &'static str,
    math: String,
    parameters: u64,
    image_bytes: u32,
    state_bytes: usize,
    /// In the image; 0 if it begins where nothing was read.
    start_state_bytes: usize,
    scratch_bytes: u64,
    block_bytes: u64,
    /// The shortest buffer of a streaming device: longer blocks come in pieces.
    least_buffer_bytes: usize,
    /// Read for every token.
    fixed_bytes_per_token: u64,
    /// Read on top for every input of a sparse product that is not zero, all layers together.
    column_bytes: u64,
    columns: u64,
    /// If every column is alive.
    max_bytes_per_token: u64,
    sections: Vec<Section>,
}

#[derive(Debug, Serialize)]
struct Section {
    kind: String,
    index: u16,
    offset: u32,
    bytes: u32,
    records: Vec<Record>,
}

#[derive(Debug, Serialize)]
struct Record {
    name: String,
    format: String,
    rows: u32,
    cols: u32,
    input_bits: u8,
    bytes: usize,
}

impl Info {
    fn of(image: &Image<'_>) -> anyhow::Result<Self> {
        let header = image.header();
        let d = header.dims;
        let mut sections: Vec<Section> = image
            .sections()
            .map(|s| Section {
                kind: format!("{:?}", s.kind).to_lowercase(),
                index: s.index,
                offset: s.offset,
                bytes: s.length,
                records: Vec::new(),
            })
            .collect();
        let (mut columns, mut column_bytes) = (0, 0);
        let mut at = 0;
        let mut first = true;
        image.walk(|request, found| {
            at += usize::from(request.opens_section && !first);
            first = false;
            let record = found.record;
            if record.layout == Layout::InputMajor {
                columns += u64::from(record.cols);
                column_bytes = 4 * (1 + record.line_words()) as u64;
            }
            if let Some(section) = sections.get_mut(at) {
                section.records.push(Record {
                    name: format!("{:?}", record.id),
                    format: format!("{:?}", record.format).to_lowercase(),
                    rows: record.rows,
                    cols: record.cols,
                    input_bits: record.bits,
                    bytes: 4 * (RECORD_WORDS + found.payload.len()),
                });
            }
            Ok(())
        })?;
        let fixed = Trace::new(&fit::Layout::of(image), &Core::M4.costs(), 0.0);
        let fixed = 4 * fixed.words();
        let metadata = image.section(SectionKind::Metadata).unwrap_or(b"{}");
        let metadata: serde_json::Value = serde_json::from_slice(metadata).unwrap_or_default();
        Ok(Self {
            version: header.version.name(),
            identity: format!("{:08x}", image.identity()),
            layers: d.layers,
            dim: d.dim,
            ffn: d.ffn,
            vocab: d.vocab,
            head_size: d.head_size,
            group_norm_eps: d.group_norm_eps,
            tokenizer: crate::tokenizer::name(header.tokenizer),
            math: format!("{:?}", header.math).to_lowercase(),
            parameters: metadata["parameters"].as_u64().unwrap_or_default(),
            image_bytes: header.bytes(),
            state_bytes: 4 * header.state_words(),
            start_state_bytes: image.section(SectionKind::StartState).map_or(0, <[u8]>::len),
            scratch_bytes: 4 * u64::from(header.scratch_words),
            block_bytes: 4 * u64::from(header.block_words),
            least_buffer_bytes: 4 * image.least_room()?,
            fixed_bytes_per_token: fixed,
            column_bytes,
            columns,
            max_bytes_per_token: fixed + columns * column_bytes,
            sections,
        })
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = super::bytes;
        writeln!(f, "RWKV-{}, image {}", self.version, self.identity)?;
        let heads = match self.head_size {
            0 => String::new(),
            n => format!(
                ", {} heads of {n} (group norm eps {:e})",
                self.dim / n,
                self.group_norm_eps
            ),
        };
        writeln!(f, "  {} layers of {}, ffn {}{heads}", self.layers, self.dim, self.ffn)?;
        writeln!(f, "  {} tokens ({} tokenizer)", self.vocab, self.tokenizer)?;
        if self.math != "exact" {
            writeln!(f, "  gates by {}", self.math)?;
        }
        writeln!(f, "  {} parameters", self.parameters)?;
        if self.start_state_bytes > 0 {
            writeln!(
                f,
                "  begins at a start state of {}",
                super::bytes(self.start_state_bytes as u64)
            )?;
        }
        writeln!(f)?;
        writeln!(f, "{:>12}  image (flash)", b(self.image_bytes.into()))?;
        writeln!(f, "{:>12}  state (RAM)", b(self.state_bytes as u64))?;
        writeln!(f, "{:>12}  scratch (RAM)", b(self.scratch_bytes))?;
        writeln!(
            f,
            "{:>12}  largest block (buffer of a streaming device; {} at least, with rows in pieces)",
            b(self.block_bytes),
            b(self.least_buffer_bytes as u64)
        )?;
        writeln!(
            f,
            "{:>12}  read per token, plus {} for each of {} columns that is not skipped",
            b(self.fixed_bytes_per_token),
            b(self.column_bytes),
            self.columns
        )?;
        writeln!(f)?;
        write!(f, "     offset       bytes  section")?;
        for s in &self.sections {
            let mut formats: Vec<&str> = s.records.iter().map(|r| r.format.as_str()).collect();
            formats.sort_unstable();
            formats.dedup();
            let name = match s.kind.as_str() {
                "layer" => format!("layer {}", s.index),
                "startstate" => "start state".into(),
                kind => kind.into(),
            };
            let formats = formats.join(", ");
            let line = format!("{:>11} {:>11}  {name:<11} {formats}", s.offset, s.bytes);
            write!(f, "\n{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The sizes that a firmware in C is built with.
fn macros(image: &Image<'_>) -> anyhow::Result<String> {
    let (header, dims) = (image.header(), &image.header().dims);
    let table = HEADER_BYTES + usize::from(header.section_count()) * SECTION_BYTES;
    let table = table as u32 / 4;
    let sizes = [
        ("LAYERS", dims.layers),
        ("DIM", dims.dim),
        ("WIDTH", header.state_width()),
        ("VOCAB", dims.vocab),
        ("SCRATCH_WORDS", header.scratch_words),
        ("BUFFER_WORDS", header.block_words.max(table)),
        ("LEAST_BUFFER_WORDS", table.max(image.least_room()? as u32)),
        ("ROW_WORDS", row_words(header, 4) as u32),
    ];
    let line = |(name, size)| format!("#define IMAGE_{name} {size}u\n");
    let identity = image.identity();
    Ok(sizes.map(line).concat() + &format!("#define IMAGE_IDENTITY 0x{identity:08x}u\n"))
}

pub(super) fn command(args: &InfoArgs) -> anyhow::Result<()> {
    let file = super::read_image(&args.image)?;
    if trace::is_trace(file.bytes()) {
        ensure!(!args.c, "{} is a trace: --c is for an image", args.image.display());
        return super::print(&trace::Trace::read(&args.image)?, args.json);
    }
    let image = file.open_named(&args.image)?;
    if args.c {
        print!("{}", macros(&image)?);
        return Ok(());
    }
    let info = Info::of(&image)?;
    super::print(&info, args.json)
}
