//! `cargo xtask test`: what CI runs, step by step; failures are collected and shown at the end.
//!
//! Steps that build in the root workspace and steps that build elsewhere run side by side: much of
//! what compilers and emulators do takes a single core.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use crate::{
    bench::Bench,
    c::{C, CAPI},
    cores::PROBE,
    cuda::{self, Cuda},
    demo::Demo,
    embassy::{self, EXAMPLE},
    exactness::Exactness,
    examples::{ALLOC, Examples, MINIMAL},
    formats,
    fuzz::{self, Fuzz},
    job, panics, setup,
    suite::Suite,
};
use anyhow::Context;
use clap::Parser;
use object::{Object, ObjectSymbol};

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

/// Programs for chips that no emulator here has: they are built, not run.
const BUILT: [&str; 3] = [
    "rwkv-embedded/boards/rp2040-embassy",
    "rwkv-embedded/boards/rp2350",
    "rwkv-embedded/boards/esp32-c3",
];

/// Of the probe's targets, one of each kind of code that it has.
const PROBE_KINDS: [&str; 3] =
    ["thumbv7em-none-eabihf", "riscv32imac-unknown-none-elf", "wasm32-wasip1"];

type Step = (String, Box<dyn Fn() -> anyhow::Result<()> + Send>);

fn step(name: impl Into<String>, run: impl Fn() -> anyhow::Result<()> + Send + 'static) -> Step {
    (name.into(), Box::new(run))
}

fn cargo(dir: &'static str, args: &'static [&'static str]) -> Step {
    let place = if dir == "." { String::new() } else { format!(" in {dir}") };
    step(format!("cargo {}{place}", args.join(" ")), move || job::run(job::cargo(dir).args(args)))
}

/// Formatting and lints of the root workspace.
fn lints() -> Vec<Step> {
    vec![
        cargo(".", &["fmt", "--all", "--check"]),
        step("cargo clippy with every feature", || {
            let mut clippy = job::cargo(".");
            clippy.args(["clippy", "--quiet", "--workspace", "--all-targets"]);
            job::run(clippy.args(job::features()).args(["--", "-D", "warnings"]))
        }),
        cargo(".", &["clippy", "--quiet", "--workspace", "--", "-D", "warnings"]),
        step("every public type can be logged", formats::run),
        step("cargo doc", || {
            let mut doc = job::cargo(".");
            doc.args(["doc", "--quiet", "--workspace", "--no-deps"]);
            job::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
        }),
    ]
}

/// Formatting and lints of the packages beside it.
fn lints_elsewhere() -> Vec<Step> {
    let mut steps = vec![cargo("rwkv-embedded/boards/support", &["fmt", "--check"])];
    for board in BOARDS.map(|(board, _)| board).into_iter().chain(BUILT) {
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
    steps
}

/// Runs formatting and lints.
pub(crate) fn lint_only() -> anyhow::Result<()> {
    setup::rust()?;
    job::all_features();
    let tally = Tally::default();
    tally.side_by_side([lints(), lints_elsewhere()]);
    tally.end()
}

/// Runs everything.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::rust()?;
    setup::vocabulary();
    job::all_features();
    let tally = Tally::default();
    tally.run(tools());
    let root = [lints(), bare(), tests()].into_iter().flatten().collect();
    let elsewhere = [lints_elsewhere(), boards(), firmware()].into_iter().flatten().collect();
    tally.side_by_side([root, elsewhere]);
    // It gives every input a second, so it has the machine for itself.
    tally.run(vec![step("cargo xtask fuzz", || Fuzz::try_parse_from(["fuzz"])?.run())]);
    tally.end()
}

/// What the other steps need.
fn tools() -> Vec<Step> {
    let there = |tool: setup::Tool| {
        step(format!("{} is there", tool.package), move || {
            anyhow::ensure!(tool.is_there(), "not everything can be tested without it");
            Ok(())
        })
    };
    let tools = setup::EMULATORS.into_iter().chain(setup::COMPILERS).chain([setup::BROWSER]);
    let mut steps: Vec<Step> = tools.map(there).collect();
    steps.push(step("rp2040js is there", setup::rp2040js));
    steps.push(step("NVIDIA's compilers are there", cuda::fetch));
    steps
}

/// The crates of the device, for cores without an operating system.
fn bare() -> Vec<Step> {
    let mut steps = Vec::new();
    for target in setup::BARE {
        // Without features, and with defmt alone, the boards and the C interface build them.
        for (package, features) in [("rwkv-core", "defmt,serde"), ("rwkv-embedded", "alloc,defmt")]
        {
            let name = format!("{package} for {target} with features [{features}]");
            steps.push(step(name, move || {
                let mut build = job::cargo(".");
                build.args(["build", "--quiet", "--release", "--target", target]);
                build.args(["--package", package, "--features", features]);
                job::run(&mut build)
            }));
        }
    }
    steps
}

fn boards() -> Vec<Step> {
    let mut steps = Vec::new();
    for (board, target) in BOARDS {
        steps.push(cargo(board, &["build", "--quiet", "--release"]));
        steps.push(step(format!("no allocator in {board}"), move || no_allocator(board, target)));
        if target.ends_with("hf") || target.contains("imafc") {
            let name = format!("no software floats in {board}");
            steps.push(step(name, move || no_soft_floats(board, target)));
        }
    }
    for board in BUILT {
        steps.push(cargo(board, &["build", "--quiet", "--release"]));
    }
    steps.push(step("no floats of the ROM in esp32-c3", no_rom_floats));
    steps
}

/// Tests on this machine.
fn tests() -> Vec<Step> {
    vec![
        step("cargo test with every feature", || {
            let mut test = job::cargo(".");
            if let Some(dir) = cuda::libraries() {
                test.env("LD_LIBRARY_PATH", dir);
            }
            job::run(test.args(["test", "--workspace", "--no-fail-fast"]).args(job::features()))
        }),
        step("cargo xtask demo", || Demo::try_parse_from(["demo", "-n", "64"])?.run()),
    ]
}

/// What runs on other cores.
fn firmware() -> Vec<Step> {
    vec![
        step("cargo xtask cuda", || Cuda::default().run()),
        step("cargo xtask c", || C::try_parse_from(["c", "--check"])?.run()),
        step("cargo xtask embassy", embassy::run),
        step("cargo xtask examples", || Examples::try_parse_from(["examples", "--check"])?.run()),
        step("cargo xtask panics", panics::run),
        step("cargo xtask suite", || {
            Suite::try_parse_from(["suite", "--cases", "96", "--require"])?.run()
        }),
        step("cargo xtask exactness", || {
            Exactness::try_parse_from(["exactness", "--tokens", "24", "--require"])?.run()
        }),
        step("cargo xtask bench", || Bench::try_parse_from(["bench", "--check"])?.run()),
        step("the targets of cargo xtask fuzz", fuzz::prepare),
    ]
}

/// The firmware links no allocator: then there is no heap, whatever it says of itself.
fn no_allocator(board: &str, target: &str) -> anyhow::Result<()> {
    links_none(board, target, &["__rust_alloc"])
}

/// The core has a floating-point unit: nothing may compute floats without it, nor in binary64,
/// which it has not.
fn no_soft_floats(board: &str, target: &str) -> anyhow::Result<()> {
    const ARITHMETIC: [&str; 18] = [
        "__aeabi_f",
        "__aeabi_d",
        "__aeabi_i2",
        "__aeabi_ui2",
        "__aeabi_l2",
        "__aeabi_ul2",
        "__addsf3",
        "__subsf3",
        "__mulsf3",
        "__divsf3",
        "__adddf3",
        "__subdf3",
        "__muldf3",
        "__divdf3",
        "__extendsfdf2",
        "__truncdfsf2",
        "__float",
        "__fix",
    ];
    links_none(board, target, &ARITHMETIC)
}

/// The ESP32-C3 has float routines in its ROM, which the linker must not take.
fn no_rom_floats() -> anyhow::Result<()> {
    const ELF: &str = "rwkv-embedded/boards/target/riscv32imc-unknown-none-elf/release/esp32-c3";
    const ROM: std::ops::Range<u64> = 0x4000_0000..0x4006_0000;
    let bytes = std::fs::read(crate::root().join(ELF)).context(ELF)?;
    let file = object::File::parse(&*bytes).context(ELF)?;
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or_default();
        let float = name.starts_with("__") && (name.contains("sf") || name.contains("df"));
        anyhow::ensure!(
            !float || !ROM.contains(&symbol.address()),
            "{ELF} takes {name} from the ROM"
        );
    }
    Ok(())
}

/// No symbol of a board's firmware, mangled or not, has one of these in its name.
fn links_none(board: &str, target: &str, symbols: &[&str]) -> anyhow::Result<()> {
    let name = board.rsplit('/').next().unwrap_or(board);
    let elf = format!("rwkv-embedded/boards/target/{target}/release/{name}");
    let bytes = std::fs::read(crate::root().join(&elf)).with_context(|| elf.clone())?;
    let file = object::File::parse(&*bytes).with_context(|| elf.clone())?;
    let names = || file.symbols().filter_map(|symbol| symbol.name().ok());
    anyhow::ensure!(names().any(|name| name.contains("rwkv_core")), "{elf} has no symbols");
    let found = names().find(|name| symbols.iter().any(|symbol| name.contains(symbol)));
    found.map_or(Ok(()), |name| Err(anyhow::anyhow!("{elf} links {name}")))
}

/// How the steps ended.
#[derive(Default)]
struct Tally(Mutex<Ends>);

#[derive(Default)]
struct Ends {
    passed: usize,
    failed: Vec<String>,
}

impl Tally {
    fn run(&self, steps: Vec<Step>) {
        for (name, run) in steps {
            println!("== {name}");
            let start = Instant::now();
            let result = run();
            let seconds = start.elapsed().as_secs_f64();
            let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(()) => {
                    println!("   ok, {seconds:.0} s: {name}");
                    ends.passed += 1;
                }
                Err(error) => {
                    println!("   FAILED, {seconds:.0} s: {name}: {error:#}");
                    ends.failed.push(name);
                }
            }
        }
    }

    fn side_by_side(&self, lanes: [Vec<Step>; 2]) {
        thread::scope(|scope| {
            for lane in lanes {
                scope.spawn(move || self.run(lane));
            }
        });
    }

    fn end(self) -> anyhow::Result<()> {
        let Ends { passed, failed } = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for name in &failed {
            println!("failed: {name}");
        }
        println!("steps: {passed} passed, {} failed", failed.len());
        anyhow::ensure!(failed.is_empty(), "{} steps failed", failed.len());
        Ok(())
    }
}
