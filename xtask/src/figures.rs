//! `cargo xtask figures`: the README's table, measured.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    demo::{BOARD, image, rwkv},
    job, root, setup,
};

const START: &str = "<!-- figures -->";
const END: &str = "<!-- /figures -->";

/// The models that ship.
const MODELS: [&str; 2] = ["tunes-v4", "tunes-v7"];

/// Runs every model on the emulated board and puts the table into the README.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::rust()?;
    ensure!(setup::QEMU_ARM.is_there(), "the figures are measured in QEMU");
    let mut table = String::from(
        "| model | weights | board | image (flash) | firmware (flash) | state | scratch | stack | statics | instructions per token |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for model in MODELS {
        for weights in ["f32", "int8"] {
            table.push_str(&row(model, weights)?);
        }
    }
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).context("cannot read README.md")?;
    let (before, rest) = readme.split_once(START).context("README.md has no figures mark")?;
    let (_, after) = rest.split_once(END).context("README.md has no end of figures mark")?;
    fs::write(&path, format!("{before}{START}\n{table}{END}{after}"))?;
    print!("{table}");
    Ok(())
}

fn row(model: &str, weights: &str) -> anyhow::Result<String> {
    let image = image(model, weights)?;
    let size = fs::metadata(&image)?.len();
    let prompt = root().join("models").join(model).join("prompt.txt");
    let mut validate = rwkv()?;
    validate.arg("validate").arg(&image).arg("--prompt-file").arg(prompt);
    validate.args(["--device", &format!("qemu:{BOARD}"), "-n", "128", "--json"]);
    let verdict: Value = serde_json::from_str(&job::output(&mut validate)?)?;
    let field = |path: &str| -> anyhow::Result<String> {
        let number = verdict.pointer(path).and_then(Value::as_f64);
        number.map(|n| grouped(n as u64)).with_context(|| format!("no {path} in the verdict"))
    };
    Ok(format!(
        "| {model} | {weights} | {BOARD} (emulated) | {} | {} | {} | {} | {} | {} | {} |\n",
        grouped(size),
        field("/memory/flash")?,
        field("/memory/state")?,
        field("/memory/scratch")?,
        field("/memory/stack")?,
        field("/memory/statics")?,
        field("/instructions_per_token/median")?,
    ))
}

/// A number with its thousands set apart.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}
