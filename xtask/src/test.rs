//! `cargo xtask test`: what CI runs, step by step; failures are collected and shown at the end.

use std::time::Instant;

use crate::{
    bench::Bench,
    c::{C, CAPI},
    cores::PROBE,
    demo::Demo,
    embassy::{self, EXAMPLE},
    exactness::Exactness,
    examples::{ALLOC, Examples, MINIMAL},
    formats,
    fuzz::Fuzz,
    job, panics, setup,
    suite::Suite,
};
use anyhow::Context;
use clap::Parser;

/// The agents, packages outside the root workspace, and their targets.
const BOARDS: [(&str, &str); 10] = [
    ("rwkv-embedded/boards/mps2-an386", "thumbv7em-none-eabihf"),
    ("rwkv-embedded/boards/mps2-an500", "thumbv7em-none-eabihf"),
    ("rwkv-embedded/boards/mps2-an505", "thumbv8m.main-none-eabihf"),
    ("rwkv-embedded/boards/netduinoplus2", "thumbv7em-none-eabihf"),
    ("rwkv-embedded/boards/microbit", "thumbv6m-none-eabi"),
    ("rwkv-embedded/boards/sifive_e", "riscv32imac-unknown-none-elf"),
    ("rwkv-embedded/boards/virt", "riscv32imafc-unknown-none-elf"),
    ("rwkv-embedded/boards/rp2040", "thumbv6m-none-eabi"),
    ("rwkv-embedded/boards/lm3s6965evb", "thumbv7m-none-eabi"),
    ("rwkv-embedded/boards/ast1030-evb", "thumbv7em-none-eabihf"),
];

/// Of the probe's targets, one of each kind of code that it has.
const PROBE_KINDS: [&str; 3] =
    ["thumbv7em-none-eabihf", "riscv32imac-unknown-none-elf", "wasm32-wasip1"];

type Step = (String, Box<dyn Fn() -> anyhow::Result<()>>);

fn step(name: impl Into<String>, run: impl Fn() -> anyhow::Result<()> + 'static) -> Step {
    (name.into(), Box::new(run))
}

fn cargo(dir: &'static str, args: &'static [&'static str]) -> Step {
    let place = if dir == "." { String::new() } else { format!(" in {dir}") };
    step(format!("cargo {}{place}", args.join(" ")), move || job::run(job::cargo(dir).args(args)))
}

fn lints() -> Vec<Step> {
    let mut steps = vec![
        cargo(".", &["fmt", "--all", "--check"]),
        cargo(".", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        step("cargo clippy of rwkv-host with neox", || {
            let mut clippy = job::cargo(".");
            clippy.args(["clippy", "--quiet", "--package", "rwkv-host", "--features", "neox"]);
            job::run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
        }),
    ];
    steps.push(cargo("rwkv-embedded/boards/support", &["fmt", "--check"]));
    for (board, _) in BOARDS {
        steps.push(cargo(board, &["fmt", "--check"]));
        steps.push(cargo(board, &["clippy", "--quiet", "--release", "--", "-D", "warnings"]));
    }
    steps.push(cargo(EXAMPLE, &["fmt", "--check"]));
    steps.push(cargo(EXAMPLE, &["clippy", "--quiet", "--release", "--", "-D", "warnings"]));
    for example in [MINIMAL, ALLOC] {
        steps.push(cargo(example, &["fmt", "--check"]));
    }
    // The other one needs an image to be compiled: `cargo xtask examples` makes it.
    steps.push(cargo(ALLOC, &["clippy", "--quiet", "--release", "--", "-D", "warnings"]));
    steps.push(cargo(CAPI, &["fmt", "--check"]));
    steps.push(step(format!("cargo clippy in {CAPI}"), || {
        let mut clippy = job::cargo(CAPI);
        clippy.args(["clippy", "--quiet", "--release", "--target", "thumbv7em-none-eabihf"]);
        job::run(clippy.args(["--", "-D", "warnings"]))
    }));
    steps.push(cargo(PROBE, &["fmt", "--check"]));
    for target in PROBE_KINDS {
        steps.push(step(format!("cargo clippy in {PROBE} for {target}"), move || {
            let mut clippy = job::cargo(PROBE);
            clippy.args(["clippy", "--quiet", "--release", "--target", target]);
            if target.contains("-none-") {
                clippy.args(["--features", "size"]);
            }
            job::run(clippy.args(["--", "-D", "warnings"]))
        }));
    }
    steps.push(cargo("fuzz", &["fmt", "--check"]));
    steps.push(step("every public type can be logged", formats::run));
    steps.push(step("cargo doc", || {
        let mut doc = job::cargo(".");
        doc.args(["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        job::run(&mut doc)
    }));
    steps
}

/// Runs formatting and lints.
pub(crate) fn lint_only() -> anyhow::Result<()> {
    setup::rust()?;
    all(lints())
}

/// Runs everything.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::rust()?;
    setup::vocabulary();
    let mut steps: Vec<Step> = setup::EMULATORS
        .into_iter()
        .map(|emulator| {
            step(format!("{} is there", emulator.program), move || {
                anyhow::ensure!(emulator.is_there(), "its cores cannot be tested without it");
                Ok(())
            })
        })
        .collect();
    steps.push(step("rp2040js is there", setup::rp2040js));
    steps.append(&mut lints());
    for target in setup::BARE {
        for (package, features) in [
            ("rwkv-core", ""),
            ("rwkv-core", "defmt,serde"),
            ("rwkv-embedded", "defmt"),
            ("rwkv-embedded", "alloc,defmt"),
        ] {
            let name = format!("{package} for {target} with features [{features}]");
            steps.push(step(name, move || {
                let mut build = job::cargo(".");
                build.args(["build", "--quiet", "--release", "--target", target]);
                build.args(["--package", package, "--features", features]);
                job::run(&mut build)
            }));
        }
    }
    for (board, target) in BOARDS {
        steps.push(cargo(board, &["build", "--quiet", "--release"]));
        steps.push(step(format!("no allocator in {board}"), move || no_allocator(board, target)));
        if target.ends_with("hf") || target.contains("imafc") {
            let name = format!("no software floats in {board}");
            steps.push(step(name, move || no_soft_floats(board, target)));
        }
    }
    steps.push(cargo(".", &["test", "--workspace", "--no-fail-fast"]));
    steps.push(step("cargo test of the tokenizers with neox", || {
        let mut test = job::cargo(".");
        test.args(["test", "--quiet", "--package", "rwkv-host", "--features", "neox"]);
        job::run(test.args(["--lib", "tokenizer"]))
    }));
    steps.push(step("cargo xtask demo", || Demo::try_parse_from(["demo", "-n", "64"])?.run()));
    steps.push(step("cargo xtask c", || C::try_parse_from(["c", "--check"])?.run()));
    steps.push(step("cargo xtask embassy", embassy::run));
    steps.push(step("cargo xtask examples", || {
        Examples::try_parse_from(["examples", "--check"])?.run()
    }));
    steps.push(step("cargo xtask panics", panics::run));
    steps.push(step("cargo xtask fuzz", || Fuzz::try_parse_from(["fuzz"])?.run()));
    steps.push(step("cargo xtask suite", || {
        Suite::try_parse_from(["suite", "--cases", "96", "--require"])?.run()
    }));
    steps.push(step("cargo xtask exactness", || {
        Exactness::try_parse_from(["exactness", "--tokens", "24", "--require"])?.run()
    }));
    steps.push(step("cargo xtask bench", || Bench::try_parse_from(["bench", "--check"])?.run()));
    all(steps)
}

/// The firmware links no allocator: then there is no heap, whatever it says of itself.
fn no_allocator(board: &str, target: &str) -> anyhow::Result<()> {
    links_none(board, target, &["__rust_alloc"])
}

/// The core has a floating-point unit: nothing may compute floats without it, nor in binary64,
/// which it has not.
fn no_soft_floats(board: &str, target: &str) -> anyhow::Result<()> {
    const ARITHMETIC: [&str; 13] = [
        "__aeabi_f",
        "__aeabi_d",
        "__aeabi_i2",
        "__aeabi_ui2",
        "__aeabi_l2",
        "__aeabi_ul2",
        "__addsf3",
        "__mulsf3",
        "__divsf3",
        "__adddf3",
        "__muldf3",
        "__float",
        "__fix",
    ];
    links_none(board, target, &ARITHMETIC)
}

/// No symbol of a board's firmware starts like one of these.
fn links_none(board: &str, target: &str, symbols: &[&str]) -> anyhow::Result<()> {
    let name = board.rsplit('/').next().unwrap_or(board);
    let elf = format!("rwkv-embedded/boards/target/{target}/release/{name}");
    let bytes = std::fs::read(crate::root().join(&elf)).with_context(|| elf.clone())?;
    for symbol in symbols {
        let found = bytes.windows(symbol.len()).any(|window| window == symbol.as_bytes());
        anyhow::ensure!(!found, "{elf} links {symbol}");
    }
    Ok(())
}

fn all(steps: Vec<Step>) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let total = steps.len();
    for (name, run) in steps {
        println!("== {name}");
        let start = Instant::now();
        match run() {
            Ok(()) => println!("   ok, {:.0} s", start.elapsed().as_secs_f64()),
            Err(error) => {
                println!("   FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    for name in &failed {
        println!("failed: {name}");
    }
    println!("steps: {} passed, {} failed", total - failed.len(), failed.len());
    anyhow::ensure!(failed.is_empty(), "{} of {total} steps failed", failed.len());
    Ok(())
}
