//! `cargo xtask figures`: the README's table, measured.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    demo::{BOARD, MODELS, image, rwkv},
    document::{grouped, replace},
    job, root, setup,
};

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
    replace("README.md", "figures", &table)?;
    print!("{table}");
    Ok(())
}

fn row(model: &str, weights: &str) -> anyhow::Result<String> {
    let image = image(model, weights, &["--weights", weights])?;
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
