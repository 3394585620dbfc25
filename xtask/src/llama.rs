//! `cargo xtask llama`: how fast the host reads and writes, beside llama.cpp, in one run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use clap::Parser;
use serde_json::Value;

use crate::{document, job, root, setup};

/// Measure the host beside llama.cpp, on the same random model of version 7
#[derive(Debug, Parser)]
pub(crate) struct Llama {
    /// A Python that has what xtask/llama/requirements.txt names; else one is made, and llama.cpp
    /// is compiled for it
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Tokens that are read
    #[arg(long, value_name = "N", default_value_t = 256)]
    read: u32,
    /// Tokens that are written
    #[arg(long, value_name = "N", default_value_t = 64)]
    write: u32,
    /// Write the table into the book
    #[arg(long)]
    bless: bool,
}

/// What is compared: the weights here and there. All inputs have 8 bits, as there.
const PAIRS: [(&str, &str); 3] = [("f16", "f16"), ("int8", "q8_0"), ("int4", "q4_0")];

/// A host has no buffers to save on, and several rows at once are faster.
const BLOCKS: [&str; 2] = ["--block-bytes", "12288"];

const THREADS: [&str; 2] = ["1", "2"];

/// llama.cpp for AVX-512: what it finds by itself may be more than the machine can run.
const CMAKE: &str = "-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON \
    -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON";

const HEAD: &str = "\
| weights | llama.cpp | threads | reading, tokens/s | llama.cpp | ratio | writing, tokens/s | llama.cpp | ratio | peak memory, MB | llama.cpp |
|---|---|---|---|---|---|---|---|---|---|---|
";

/// Tokens per second, and the most memory.
struct Speed {
    read: f64,
    write: f64,
    peak: f64,
}

impl Speed {
    /// From what a program printed, whose fields have these names.
    fn of(mut command: Command, [read, write, peak]: [&str; 3]) -> anyhow::Result<Self> {
        let text = job::output(&mut command)?;
        let json: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let field = |name: &str| json[name].as_f64().with_context(|| format!("no {name}: {text}"));
        Ok(Self { read: field(read)?, write: field(write)?, peak: field(peak)? })
    }
}

impl Llama {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let dir = root().join("target/llama");
        fs::create_dir_all(&dir)?;
        let python = match &self.python {
            Some(python) => python.clone(),
            None => environment(&dir)?,
        };
        let mut build = job::cargo(".");
        job::run(build.args(["build", "--quiet", "--release", "--package", "rwkv-host"]))?;
        let tool = root().join("target/release/rwkv");
        let peer = |args: &[&str]| {
            let mut command = Command::new(&python);
            command.arg(root().join("xtask/llama/peer.py")).args(args);
            command
        };
        let model = |name: &str| dir.join(name).to_string_lossy().into_owned();
        if !dir.join("q4_0.gguf").exists() {
            eprintln!("making a random model");
            job::run(&mut peer(&["make", &model("")]))?;
        }
        setup::vocabulary();
        let vocabulary = root().join("target/tokenizers/rwkv_vocab_v20230424.txt");
        for (weights, _) in PAIRS {
            let mut convert = Command::new(&tool);
            convert.args(["convert", &model("f16.gguf"), "-o", &model(weights)]);
            convert.arg("--tokenizer").arg(vocabulary.as_path());
            let bits: &[&str] = if weights == "f16" { &[] } else { &["--input-bits", "8"] };
            job::output(convert.args(["--weights", weights]).args(BLOCKS).args(bits))?;
        }
        let (read, write) = (self.read.to_string(), self.write.to_string());
        let mut table = HEAD.to_owned();
        for (weights, theirs) in PAIRS {
            for threads in THREADS {
                let mut bench = Command::new(&tool);
                bench.args(["bench", &model(weights), "--host", "--json", "--threads", threads]);
                bench.args(["--prompt-tokens", &read, "-n", &write]);
                let names = ["prompt_tokens_per_second", "tokens_per_second", "peak_bytes"];
                let ours = Speed::of(bench, names)?;
                let file = model(&format!("{theirs}.gguf"));
                let run = peer(&["run", &file, threads, &read, &write]);
                let peer = Speed::of(run, ["read", "write", "peak_bytes"])?;
                let pair = |a: f64, b: f64| format!("{a:.0} | {b:.0} | {:.2}", a / b);
                let row = format!(
                    "| {weights} | {} | {threads} | {} | {} | {:.0} | {:.0} |\n",
                    theirs.to_uppercase(),
                    pair(ours.read, peer.read),
                    pair(ours.write, peer.write),
                    ours.peak / 1e6,
                    peer.peak / 1e6,
                );
                print!("{row}");
                table.push_str(&row);
            }
        }
        if self.bless {
            document::replace("docs/src/performance.md", "llama", &table)
        } else {
            Ok(())
        }
    }
}

/// A virtual environment with llama.cpp, compiled for AVX-512.
fn environment(dir: &Path) -> anyhow::Result<PathBuf> {
    let python = dir.join("python/bin/python");
    if !dir.join("python/done").exists() {
        eprintln!("compiling llama.cpp, which takes a quarter of an hour");
        job::run(Command::new("python3").args(["-m", "venv"]).arg(dir.join("python")))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "-r"]);
        pip.arg(root().join("xtask/llama/requirements.txt")).env("CMAKE_ARGS", CMAKE);
        job::run(&mut pip)?;
        fs::write(dir.join("python/done"), "")?;
    }
    Ok(python)
}
