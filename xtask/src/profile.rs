//! `cargo xtask profile`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Parser;

use crate::{
    demo::{BOARD, image, rwkv},
    job, root, setup,
};

/// Say what an emulated board spends a token of a shipped model on
#[derive(Debug, Parser)]
pub(crate) struct Profile {
    /// The board
    #[arg(long, default_value = BOARD)]
    board: String,
    /// A folder of models/
    #[arg(long, default_value = "tunes-v7")]
    model: String,
    /// Format of the matrices
    #[arg(long, default_value = "int8")]
    weights: String,
    /// Tokens to generate after the model's prompt
    #[arg(short = 'n', default_value_t = 64)]
    tokens: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Draw a picture: section, operation, part
    #[arg(long)]
    svg: Option<PathBuf>,
}

impl Profile {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        ensure!(setup::QEMU_ARM.is_there(), "the profile is counted in QEMU");
        let image = image(&self.model, &self.weights, &["--weights", &self.weights])?;
        let prompt = root().join("models").join(&self.model).join("prompt.txt");
        let mut profile = rwkv()?;
        profile.arg("profile").arg(image).arg("--prompt-file").arg(prompt);
        profile.args(["--device", &format!("qemu:{}", self.board)]);
        profile.args(["-n", &self.tokens.to_string()]);
        if self.json {
            profile.arg("--json");
        }
        if let Some(path) = &self.svg {
            // The tool runs at the root of the repository.
            profile.arg("--svg").arg(std::path::absolute(path)?);
        }
        job::run(&mut profile)
    }
}
