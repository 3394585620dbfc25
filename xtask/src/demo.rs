//! `cargo xtask demo`.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::Context;
use clap::Parser;

use crate::{job, root, setup};

/// The models that ship and are measured everywhere; `tunes-16k`, for boards with 16 KB of RAM, is
/// not among them.
pub(crate) const MODELS: [&str; 2] = ["tunes-v4", "tunes-v7"];
/// The board that the demo runs it on.
pub(crate) const BOARD: &str = "mps2-an386";

/// Let an emulated board write a tune, and prove every bit of it
#[derive(Debug, Parser)]
pub(crate) struct Demo {
    /// A folder of models/
    #[arg(long, default_value = MODELS[0])]
    model: String,
    /// An emulated board, such as microbit for the model tunes-16k in int4
    #[arg(long, default_value = BOARD)]
    board: String,
    /// How the weights are stored: f32, f16, int8 or int4
    #[arg(long, default_value = "int8")]
    weights: String,
    /// Tokens to write
    #[arg(short = 'n', default_value_t = 400)]
    count: usize,
    /// Another seed, another tune
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

impl Demo {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        let device = if setup::QEMU_ARM.is_there() {
            format!("qemu:{}", self.board)
        } else {
            eprintln!(
                "going on with the simulated device, which runs the same agent in this process"
            );
            "sim".to_owned()
        };
        let image = image(&self.model, &self.weights, &["--weights", &self.weights])?;
        let prompt = root().join("models").join(&self.model).join("prompt.txt");
        eprintln!("{} on {device}:\n", self.model);
        let mut validate = rwkv()?;
        validate.arg("validate").arg(image).args(["--device", &device, "--stream"]);
        validate.arg("--prompt-file").arg(prompt);
        validate.args(["-n", &self.count.to_string(), "--seed", &self.seed.to_string()]);
        validate.args(["--temperature", "0.8", "--top-k", "40"]);
        job::run(&mut validate)
    }
}

/// Where the tool is built: as the tests build it, so that it is built once.
pub(crate) fn tool() -> PathBuf {
    root().join("target/debug/rwkv")
}

/// The tool, built once.
pub(crate) fn rwkv() -> anyhow::Result<Command> {
    static BUILT: OnceLock<()> = OnceLock::new();
    if BUILT.get().is_none() {
        let mut build = job::cargo(".");
        build.args(["build", "--quiet", "--bin", "rwkv"]).args(job::features());
        eprintln!("building: {}", job::shown(&build));
        job::run(&mut build)?;
        let _ = BUILT.set(());
    }
    let mut command = Command::new(tool());
    command.current_dir(root());
    Ok(command)
}

/// The image of a shipped model, made anew with options of `rwkv convert` that have a name.
pub(crate) fn image(model: &str, name: &str, options: &[&str]) -> anyhow::Result<PathBuf> {
    // Steps of the tests run side by side, and may want the same one.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let checkpoint = root().join("models").join(model).join(format!("{model}.safetensors"));
    let dir = root().join("target/demo");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let image = dir.join(format!("{model}-{name}.rwkv"));
    let mut convert = rwkv()?;
    convert.arg("convert").arg(checkpoint).arg("-o").arg(&image).args(options);
    job::output(&mut convert)?;
    Ok(image)
}
