//! `cargo xtask demo`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::Context;
use clap::Parser;

use crate::{job, root, setup};

/// Two of the models that ship, one of each architecture, which are measured everywhere.
pub(crate) const MODELS: [&str; 2] = ["tunes-v4", "tunes-v7"];
/// The board that the demo runs it on.
pub(crate) const BOARD: &str = "mps2-an386";

/// Let an emulated board write a tune, and prove every bit of it
#[derive(Debug, Parser)]
pub(crate) struct Demo {
    /// A folder of models/; the best one for the board unless told
    #[arg(long)]
    model: Option<String>,
    /// An emulated board, such as microbit
    #[arg(long, default_value = BOARD)]
    board: String,
    /// How the weights are stored: f32, f16, int8 or int4
    #[arg(long, default_value = "int4")]
    weights: String,
    /// Tokens to write
    #[arg(short = 'n', default_value_t = 400)]
    count: usize,
    /// Another seed, another tune
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// The best model that a board has room for.
fn best(board: &str) -> &'static str {
    match board {
        // 16 KB of RAM.
        "microbit" | "sifive_e" => "tunes-16k",
        // 64 KB, most of which the agent has.
        "lm3s6965evb" => "tunes-v4",
        _ => "tunes-m4",
    }
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
        let model = self.model.as_deref().unwrap_or_else(|| best(&self.board));
        let image = image(model, &self.weights, &["--weights", &self.weights])?;
        eprintln!("{model} on {device}:\n");
        let mut validate = rwkv()?;
        validate.arg("validate").arg(&image).args(["--device", &device, "--stream"]);
        self.choose(model, &mut validate);
        job::run(&mut validate)?;
        if model.starts_with("tunes") && setup::ENGRAVER.is_installed() {
            self.engrave(model, &image)?;
        }
        Ok(())
    }

    /// What is read, and how tokens are chosen.
    fn choose(&self, model: &str, command: &mut Command) {
        command.arg("--prompt-file").arg(root().join("models").join(model).join("prompt.txt"));
        command.args(["-n", &self.count.to_string(), "--seed", &self.seed.to_string()]);
        command.args(["--temperature", "0.8", "--top-k", "40"]);
    }

    /// The same tune as notes. The host writes it once more: its bits were those of the board.
    fn engrave(&self, model: &str, image: &Path) -> anyhow::Result<()> {
        let mut generate = rwkv()?;
        generate.arg("generate").arg(image).args(["--stop", "\n\n"]);
        self.choose(model, &mut generate);
        let tune = job::output(&mut generate)?;
        let dir = root().join("target/demo");
        let (text, notes) = (dir.join("tune.abc"), dir.join("tune.svg"));
        fs::write(&text, tune).with_context(|| format!("cannot write {}", text.display()))?;
        let mut engraver = Command::new(setup::ENGRAVER.program);
        engraver.args(["-q", "-g", "--bgcolor", "white", "-O"]).arg(&notes).arg(&text);
        job::output(&mut engraver)?;
        // It numbers the tunes of a file.
        fs::rename(dir.join("tune001.svg"), &notes).context("abcm2ps made no picture")?;
        eprintln!("the tune as notes: {}", notes.display());
        Ok(())
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
    let folder = root().join("models").join(model);
    let checkpoint = folder.join(format!("{model}.safetensors"));
    let dir = root().join("target/demo");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let image = dir.join(format!("{model}-{name}.rwkv"));
    let mut convert = rwkv()?;
    convert.arg("convert").arg(checkpoint).arg("-o").arg(&image).args(options);
    let vocabulary = folder.join("vocabulary.txt");
    if vocabulary.exists() {
        convert.arg("--tokenizer").arg(vocabulary);
    }
    job::output(&mut convert)?;
    Ok(image)
}
