//! `cargo xtask probe`: one mode of the probe on one core.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Parser;

use crate::{
    cores::{Core, Run},
    root, setup,
};

/// Run a mode of the probe on a core
#[derive(Debug, Parser)]
pub(crate) struct Probe {
    /// m0, m3, m4, m7, m33, rv32imac, rv32imafc; x86-64, avx2, avx512, neon, neon-dotprod, wasm32
    core: String,
    /// kernels, functions, suite, exactness or tokens, and a count
    #[arg(required = true)]
    mode: Vec<String>,
    /// What lies in the flash: an image; the weights of the kernels unless told
    #[arg(long)]
    image: Option<PathBuf>,
}

impl Probe {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        let core = Core::find(&self.core)?;
        let program = core.build()?;
        let window = match &self.image {
            Some(image) => image.canonicalize().with_context(|| image.display().to_string())?,
            None => weights(core.room())?,
        };
        let args: Vec<&str> = self.mode.iter().map(String::as_str).collect();
        let run = Run { program: &program, args: &args, window: Some(&window), count: true };
        print!("{}", core.probe(&run)?);
        Ok(())
    }
}

/// Bytes of weights at most: those of the largest shape as binary32.
const MOST: usize = 4 * 256 * 256;

/// A file of words whose halves are binary16 of 0.5 to 1 with any sign, and which are themselves
/// binary32 of 3e-5 to 8e-3: ordinary weights in every format.
pub(crate) fn weights(room: usize) -> anyhow::Result<PathBuf> {
    let halves = room.min(MOST) / 2;
    let mut x = 0x9E37_79B9u32;
    let mut half = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        ((x >> 16 & 0x8000) | 0x3800 | (x >> 8 & 0x3ff)) as u16
    };
    let bytes: Vec<u8> = (0..halves).flat_map(|_| half().to_le_bytes()).collect();
    let dir = root().join("target/probe");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("weights-{halves}.bin"));
    fs::write(&path, bytes)?;
    Ok(path)
}
