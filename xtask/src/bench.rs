//! `cargo xtask bench`: instructions per multiply-accumulate and per token on every board,
//! compared with the last ones that were blessed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::{Value, json};

use crate::{
    cores::{Core, Run},
    demo, document, job,
    probe::weights,
    root, setup,
    synthetic::Synthetic,
};

/// Count the instructions of the kernels and of tokens on every emulated board
#[derive(Debug, Parser)]
pub(crate) struct Bench {
    /// Fail where a figure has grown by more than 2 % since it was blessed
    #[arg(long)]
    check: bool,
    /// Make these figures the ones to compare with, and write them into the book
    #[arg(long, conflicts_with = "check")]
    bless: bool,
    /// Measure CMSIS-NN as well, whose sources lie there; needs arm-none-eabi-gcc
    #[arg(long, value_name = "PATH")]
    cmsis_nn: Option<PathBuf>,
    /// Measure as well what comparing blocks with their checksums costs, by a program of its own
    #[arg(long)]
    checksums: bool,
    /// Write the figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Figures by name, by core.
pub(crate) type Figures = BTreeMap<String, BTreeMap<String, f64>>;

/// The cores whose figures are shown, in the order of the tables.
pub(crate) const CORES: [&str; 7] = ["m4", "m7", "m33", "m3", "m0", "rv32imac", "rv32imafc"];

const BASELINE: &str = "tests/golden/bench.json";

/// How much a figure may grow, or shrink without a word.
const TOLERANCE: f64 = 0.02;

/// Tokens that are averaged.
const COUNT: &str = "32";

/// What the names of figures of tokens begin with; then come model and format.
pub(crate) const TOKENS: &str = "tokens ";
/// The same, where every block is compared with its checksum.
pub(crate) const CHECKED: &str = "checked ";

/// The products that are shown, by the names that the probe prints.
pub(crate) const PRODUCTS: [&str; 8] =
    ["f32", "f16", "int8", "int4", "int4-lanes", "cmsis-nn-s16", "cmsis-nn-s8", "cmsis-nn-s4"];

impl Bench {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        let path = root().join(BASELINE);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let blessed: Figures = serde_json::from_str(&text).with_context(|| BASELINE.to_owned())?;
        let mut figures = measure(self.cmsis_nn.as_deref(), self.checksums)?;
        if self.cmsis_nn.is_none() {
            keep(&blessed, &mut figures, |name| name.contains("cmsis-nn"));
        }
        if !self.checksums {
            keep(&blessed, &mut figures, |name| name.starts_with(CHECKED));
        }
        println!("{}\n{}", document::kernels(&figures), document::tokens(&figures));
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report(&figures))? + "\n";
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if self.bless {
            fs::write(&path, serde_json::to_string_pretty(&figures)? + "\n")?;
            return document::write(&figures);
        }
        let worse = compare(&blessed, &figures);
        if self.check {
            document::check(&blessed)?;
            ensure!(worse == 0, "{worse} figures are worse than in {BASELINE}, or not in it");
        }
        Ok(())
    }
}

/// Figures that are measured on request stay what they were where nobody asked.
fn keep(blessed: &Figures, figures: &mut Figures, is_kept: impl Fn(&str) -> bool) {
    for (core, old) in blessed {
        let kept = old.iter().filter(|(name, _)| is_kept(name));
        let kept = kept.map(|(name, value)| (name.clone(), *value));
        figures.entry(core.clone()).or_default().extend(kept);
    }
}

/// Every figure of every board, and those of CMSIS-NN if its sources are given.
fn measure(cmsis_nn: Option<&Path>, checksums: bool) -> anyhow::Result<Figures> {
    let library = cmsis_nn.map(Path::canonicalize).transpose().context("CMSIS-NN is not there")?;
    let mut jobs = Vec::new();
    for name in CORES {
        let core = Core::find(name)?;
        if let Some(reason) = core.missing() {
            anyhow::bail!("{name} cannot be measured, since {reason}");
        }
        let program = core.build()?;
        let weights = weights(core.room())?;
        jobs.push((core, program.clone(), "kernels".to_owned(), weights.clone()));
        if core.has_functions() {
            jobs.push((core, program.clone(), "functions".to_owned(), weights.clone()));
        }
        if let Some(library) = library.as_deref().filter(|_| core.is_cortex_m()) {
            jobs.push((core, core.build_cmsis_nn(library)?, "cmsis-nn".to_owned(), weights));
        }
        for (model, format, image) in images(&core)? {
            if checksums {
                let name = format!("{CHECKED}{model} {format}");
                jobs.push((core, core.build_verifying()?, name, image.clone()));
            }
            jobs.push((core, program.clone(), format!("{TOKENS}{model} {format}"), image));
        }
    }
    let outputs = job::parallel(&jobs, |(core, program, name, window)| {
        let is_token = name.starts_with(TOKENS) || name.starts_with(CHECKED);
        let args = if is_token { &["tokens", COUNT][..] } else { &[name.as_str()] };
        let run = Run { program, args, window: Some(window), count: true };
        core.probe(&run).with_context(|| format!("{name} on {}", core.name))
    })?;
    let mut figures = Figures::new();
    for ((core, _, name, _), output) in jobs.iter().zip(outputs) {
        let figures = figures.entry(core.name.to_owned()).or_default();
        for line in output.lines() {
            let Some((what, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let name = if what == "instructions-per-token" { name } else { what };
            figures.insert(name.to_owned(), value);
        }
    }
    Ok(figures)
}

/// The images whose tokens are counted on a core: the shipped models where they fit, in the
/// packing and with the inputs that the core likes best.
fn images(core: &Core) -> anyhow::Result<Vec<(String, &'static str, PathBuf)>> {
    let lanes: &[&str] = &["--packing", "lanes"];
    let plain: &[&str] = &["--input-bits", "8"];
    let narrow = !core.has_wide_multiply();
    let mut images = Vec::new();
    for weights in ["int8", "int4"] {
        let extra = match (narrow, weights) {
            (true, "int4") => lanes,
            (true, _) => plain,
            _ => &[],
        };
        let options = [&["--weights", weights], extra].concat();
        if core.name == "m0" {
            for version in ["4", "7"] {
                let model = Synthetic { version, tiny: true };
                let image = model.image(&format!("{weights}-8"), &options)?;
                images.push((model.name(), weights, image));
            }
        } else {
            let suffix = if narrow { "-8" } else { "" };
            for model in demo::MODELS {
                let image = demo::image(model, &format!("{weights}{suffix}"), &options)?;
                images.push((model.to_owned(), weights, image));
            }
        }
    }
    Ok(images)
}

/// Prints what differs from the blessed figures; returns how many are not the same within the
/// tolerance, new or gone.
fn compare(blessed: &Figures, figures: &Figures) -> usize {
    let mut worse = 0;
    let empty = BTreeMap::new();
    for core in CORES {
        let old = blessed.get(core).unwrap_or(&empty);
        let new = figures.get(core).unwrap_or(&empty);
        for (name, value) in new {
            let Some(last) = old.get(name) else {
                println!("new: {core} {name}: {value}");
                worse += 1;
                continue;
            };
            let change = value / last - 1.0;
            if change > TOLERANCE {
                println!("worse: {core} {name}: {last} before, now {value}");
                worse += 1;
            } else if change < -TOLERANCE {
                // Else the next change could lose it all unnoticed.
                println!("better: {core} {name}: {last} before, now {value}; see --bless");
                worse += 1;
            }
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            println!("gone: {core} {name}");
            worse += 1;
        }
    }
    worse
}

/// What is quoted of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quote {
    pub value: f64,
    bits: u8,
    /// Rows, and columns.
    pub size: u32,
}

/// The figure of a core that is quoted: the whole product of 256 x 256, or of 64 x 64 where the
/// flash does not hold that, with inputs as wide as the core likes them.
pub(crate) fn quoted(figures: &Figures, core: &str, weights: &str) -> Option<Quote> {
    let bits = match weights {
        "f32" | "f16" => 0,
        "cmsis-nn-s16" => 16,
        "cmsis-nn-s8" | "cmsis-nn-s4" => 8,
        _ if Core::find(core).ok()?.has_wide_multiply() => 15,
        _ => 8,
    };
    let figures = figures.get(core)?;
    [256, 64].into_iter().find_map(|size| {
        let value = *figures.get(&format!("rows {weights} {bits} {size}x{size}"))?;
        Some(Quote { value, bits, size })
    })
}

fn report(figures: &Figures) -> Value {
    let mut kernels = Vec::new();
    for core in CORES {
        for weights in ["f32", "f16", "int8", "int4"] {
            let name = if core == "rv32imac" { "rv32" } else { core };
            let mut found = quoted(figures, core, weights).map(|quote| (quote, "pairs"));
            if weights == "int4"
                && let Some(lanes) = quoted(figures, core, "int4-lanes")
                && found.is_none_or(|(pairs, _)| lanes.value < pairs.value)
            {
                found = Some((lanes, "lanes"));
            }
            let Some((Quote { value, bits, size }, packing)) = found else { continue };
            let mut entry = json!({
                "core": name,
                "weights": weights,
                "rows": size,
                "cols": size,
                "input_bits": bits,
                "instructions_per_mac": value,
            });
            if weights == "int4" {
                entry["packing"] = packing.into();
            }
            kernels.push(entry);
        }
    }
    let tokens: Vec<Value> = figures
        .iter()
        .flat_map(|(core, figures)| figures.iter().map(move |figure| (core, figure)))
        .filter_map(|(core, (name, value))| {
            let (model, weights) = name.strip_prefix(TOKENS)?.split_once(' ')?;
            let core = if core == "rv32imac" { "rv32" } else { core };
            Some(json!({"core": core, "model": model, "weights": weights, "instructions_per_token": value}))
        })
        .collect();
    json!({"kernels": kernels, "tokens": tokens, "figures": figures})
}
