//! What the end-to-end tests share: models, images and the memory to run them.

pub mod blocks;
pub mod card;
pub mod containers;
pub mod cuda;
pub mod damage;
pub mod devices;
mod gguf;
pub mod medium;
pub mod random;
mod rwkv_cpp;
pub mod seeds;

use std::{
    iter,
    path::{Path, PathBuf},
};

use clap::Parser;
use rwkv_core::{Digest, Error, Image, Model, image::CRC, stream::InPlace};
use rwkv_host::{
    checkpoint::Checkpoint,
    cli::{self, Cli},
    convert::{Options, Packing, Weights, convert, with_start},
    file::ImageFile,
    memory::Memory,
};

/// A file of `../shared/models`, or `None` with a note: those models are not part of the project.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// The checkpoint of a model that ships.
pub fn shipped(model: &str) -> PathBuf {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    models.join(model).join(format!("{model}.safetensors"))
}

/// Runs the tool; `@` stands for the folder.
///
/// # Errors
/// The tool's.
///
/// # Panics
/// If the folder's name is not UTF-8.
pub fn rwkv(dir: &Path, args: &[&str]) -> anyhow::Result<()> {
    let path = |arg: &&str| match arg.strip_prefix('@') {
        Some(name) => dir.join(name).to_str().expect("UTF-8").to_owned(),
        None => (*arg).to_owned(),
    };
    let args = iter::once("rwkv".to_owned()).chain(args.iter().map(path));
    cli::run(Cli::try_parse_from(args)?).map(|_| ())
}

/// Every format that a conversion can choose.
pub fn formats() -> [(&'static str, Options<'static>); 6] {
    let int4 = Options::new(Weights::Int4);
    let eight = Options { input_bits: Some(8), ..int4 };
    [
        ("f32", Options::new(Weights::F32)),
        ("f16", Options::new(Weights::F16)),
        ("int8", Options::new(Weights::Int8)),
        ("int4", int4),
        ("int4 in lanes", Options { packing: Packing::Lanes, ..int4 }),
        ("int4 in lanes, 8-bit inputs", Options { packing: Packing::Lanes, ..eight }),
    ]
}

/// A checkpoint as an image.
///
/// # Panics
/// If it cannot be converted.
pub fn image(checkpoint: &Path, weights: Weights) -> ImageFile {
    image_with(checkpoint, &Options::new(weights))
}

/// A checkpoint as an image, with all that can be chosen.
///
/// # Panics
/// If it cannot be converted.
pub fn image_with(checkpoint: &Path, options: &Options<'_>) -> ImageFile {
    let checkpoint = Checkpoint::open(checkpoint).expect("checkpoint opens");
    let bytes = convert(&checkpoint, options, |_, _| {}).expect("it converts");
    ImageFile::new(&bytes)
}

/// An image that begins at the state after some tokens.
///
/// # Panics
/// If the image or the tokens are of no use.
pub fn baked(file: &ImageFile, tokens: &[u32]) -> ImageFile {
    let image = file.open().expect("it opens");
    let mut memory = Memory::new(&image);
    step(&mut memory, &image, tokens).expect("it steps");
    let words = memory.state(&image).expect("it fits").words().concat();
    ImageFile::new(&with_start(&image, Some(&words)).expect("it fits"))
}

/// Steps through `tokens`; returns the digest of each and the last logits.
///
/// # Errors
/// The model's.
pub fn step(
    memory: &mut Memory,
    image: &Image<'_>,
    tokens: &[u32],
) -> Result<(Vec<Digest>, Vec<f32>), Error> {
    let header = *image.header();
    let mut logits = vec![0.0; header.dims.vocab as usize];
    let mut digests = Vec::new();
    let (mut state, scratch) = memory.split(image)?;
    let mut model = Model::new(header, InPlace::new(image.words()), scratch)?;
    for token in tokens {
        let mut digest = Digest::default();
        model.step(state.reborrow(), *token, (&mut digest, logits.as_mut_slice()))?;
        digests.push(Digest::token(&header, &state, digest)?);
    }
    Ok((digests, logits))
}

/// Makes the CRC of the header right again after a field of it was changed.
pub fn repair_header(bytes: &mut [u8]) {
    let end = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    bytes[12..16].fill(0);
    let crc = CRC.checksum(&bytes[..end.min(bytes.len())]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// Bytes that look like text, the same every time.
pub fn text(len: usize, seed: u32) -> Vec<u32> {
    let mut next = xorshift(seed);
    (0..len).map(|_| 32 + next() % 95).collect()
}

/// Words that look random, the same for a seed.
pub fn xorshift(seed: u32) -> impl FnMut() -> u32 {
    let mut x = seed | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x
    }
}
