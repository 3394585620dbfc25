//! `cargo xtask fuzz`: hostile files for every reader, by libFuzzer.
//!
//! The targets of the package `fuzz` are built with the coverage that LLVM instruments, which needs
//! no nightly compiler. Each starts from seeds that the package `tests` makes, and keeps what it
//! finds in `fuzz/corpus`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use anyhow::{Context, bail, ensure};

use crate::{job, setup};

/// What an input may take: seconds, bytes of its own, and MiB of the whole process. How much
/// memory per byte of the input a reader may have, `fuzz/src/lib.rs` says.
const LIMITS: [&str; 3] = ["-timeout=1", "-max_len=65536", "-rss_limit_mb=512"];

/// How LLVM marks what an input reaches and compares: as cargo-fuzz does, without a sanitizer.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];

#[derive(Debug, clap::Parser)]
pub(crate) struct Fuzz {
    /// Only these targets
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u32,
}

/// How a target ended.
struct Outcome {
    runs: String,
    corpus: usize,
    peak: String,
    /// What it said in the end, if it found something.
    found: Option<String>,
}

impl Fuzz {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        ensure!(setup::COMPILER.is_there(), "libFuzzer cannot be compiled without it");
        let all = targets()?;
        if let Some(unknown) = self.targets.iter().find(|name| !all.contains(name)) {
            bail!("there is no target {unknown}; there are {}", all.join(", "));
        }
        let wanted = if self.targets.is_empty() { &all } else { &self.targets };
        let programs = build()?;
        seed()?;
        let (queue, outcomes) = (Mutex::new(wanted.iter().enumerate()), Mutex::new(Vec::new()));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let worker = || {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some((index, target)) = next else { break };
                    let outcome = fuzz(&programs.join(target), target, self.seconds);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push((index, target, outcome));
                    }
                }
            };
            (0..cores.min(wanted.len())).for_each(|_| drop(scope.spawn(worker)));
        });
        let mut outcomes = outcomes.into_inner().unwrap_or_default();
        outcomes.sort_by_key(|(index, ..)| *index);
        println!("{:<12} {:>10} {:>7} {:>9}  verdict", "target", "runs", "corpus", "peak MiB");
        let mut failed = 0;
        for (_, target, outcome) in outcomes {
            let Outcome { runs, corpus, peak, found } = outcome?;
            let verdict = if found.is_some() { "FAILED" } else { "ok" };
            println!("{target:<12} {runs:>10} {corpus:>7} {peak:>9}  {verdict}");
            if let Some(found) = found {
                failed += 1;
                println!("{found}");
            }
        }
        ensure!(failed == 0, "{failed} of {} readers can be made to fail", wanted.len());
        Ok(())
    }
}

fn fuzz_folder() -> PathBuf {
    crate::root().join("fuzz")
}

/// The targets, by the files that hold them.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = fuzz_folder().join("fuzz_targets");
    let mut names = Vec::new();
    for file in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = file?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets and makes their seeds.
pub(crate) fn prepare() -> anyhow::Result<()> {
    setup::rust()?;
    build()?;
    seed()
}

/// Builds all targets; returns where they are. With a target named, flags are not for what runs
/// while it is built.
fn build() -> anyhow::Result<PathBuf> {
    let version = job::output(Command::new("rustc").arg("-vV").current_dir(crate::root()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say for which machine it is")?;
    let mut build = job::cargo("fuzz");
    build.args(["build", "--quiet", "--release", "--target", host]);
    job::run(build.env("RUSTFLAGS", FLAGS.join(" ")))?;
    Ok(fuzz_folder().join("target").join(host).join("release"))
}

fn seeds() -> PathBuf {
    fuzz_folder().join("target/seeds")
}

fn seed() -> anyhow::Result<()> {
    let mut make = job::cargo(".");
    make.args(["run", "--quiet", "--bin", "seeds"]).args(job::features()).arg("--");
    job::run(make.arg(seeds()))
}

/// Runs one target.
fn fuzz(program: &Path, target: &str, seconds: u32) -> anyhow::Result<Outcome> {
    let folder = fuzz_folder();
    let corpus = folder.join("corpus").join(target);
    let artifacts = folder.join("artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut command = Command::new(program);
    command.args(LIMITS).arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(&corpus).arg(seeds().join(target));
    let ended = command.stdin(Stdio::null()).output();
    let ended = ended.with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let number = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.map_or_else(|| "?".to_owned(), |rest| rest.trim().to_owned())
    };
    let found = (!ended.status.success()).then(|| report(program, &said));
    Ok(Outcome {
        runs: number("stat::number_of_executed_units:"),
        corpus: fs::read_dir(&corpus)?.count(),
        peak: number("stat::peak_rss_mb:"),
        found,
    })
}

/// The end of what a target said, and how to see it again.
fn report(program: &Path, said: &str) -> String {
    const SHOWN: usize = 40;
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("stat::")).collect();
    let mut text = lines[lines.len().saturating_sub(SHOWN)..].join("\n    ");
    text.insert_str(0, "    ");
    let file = said.lines().find_map(|line| line.split_once("Test unit written to "));
    if let Some((_, file)) = file {
        text.push_str(&format!("\n  see it again with: {} {file}", program.display()));
    }
    text
}
