//! `cargo xtask cuda`: compiles the CUDA kernels for every architecture, without a GPU.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::{document, job, roofline, root};

/// NVIDIA's compilers, as PyPI has them. Another version writes other PTX: `--bless` then.
const VERSION: &str = "13.5.37";
/// The compiler's driver and assembler, its middle, its headers, and the compiler as a library.
const PACKAGES: [&str; 5] = [
    "nvidia-cuda-nvcc",
    "nvidia-nvvm",
    "nvidia-cuda-crt",
    "nvidia-cuda-runtime",
    "nvidia-cuda-nvrtc",
];

const KERNELS: &str = "rwkv-host/src/prefill/cuda/kernels";
/// What the tool has built in.
const PTX: &str = "rwkv-host/src/prefill/cuda/kernels.ptx";
const PAGE: &str = "docs/src/cuda.md";

/// The oldest architecture that there are kernels for, whose PTX all later ones take.
const OLDEST: u32 = 75;
/// Architectures that are compiled for, beside the newest that the compiler knows.
const ARCHITECTURES: [u32; 3] = [OLDEST, 80, 90];
/// The oldest version of PTX that has all that the kernels use: drivers from 450 on take it.
const PTX_VERSION: &str = "7.0";
/// As `compile.rs` gives them to NVRTC.
const OPTIONS: [&str; 2] = ["-std=c++17", "-fmad=false"];

/// Compile the CUDA kernels for every architecture, and list what each of them takes
#[derive(Debug, Default, Args)]
pub(crate) struct Cuda {
    /// Write the PTX of the tool and the table of the book anew, instead of comparing them
    #[arg(long)]
    bless: bool,
}

/// What a kernel takes of an architecture.
#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    registers: u32,
    /// Bytes per block.
    shared: u32,
    /// Bytes per thread of what did not fit into registers.
    spilled: u32,
    /// Bytes per thread in memory.
    stack: u32,
}

/// By kernel, then by architecture.
type Table = BTreeMap<String, BTreeMap<u32, Taken>>;

impl Cuda {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let tools = Tools::get()?;
        let ptx = tools.ptx()?;
        check_arithmetic(&ptx)?;
        let mut architectures = ARCHITECTURES.to_vec();
        architectures.push(tools.newest()?);
        let lists = job::parallel(&architectures, |architecture| tools.compile(*architecture))?;
        let mut table = Table::new();
        for (architecture, list) in architectures.iter().zip(lists) {
            for (kernel, taken) in list {
                table.entry(kernel).or_default().insert(*architecture, taken);
            }
        }
        let text = markdown(&table, &architectures);
        print!("{text}");
        check_fit(&table, &architectures)?;

        let dir = root().join("target/cuda");
        let file = dir.join("kernels.ptx");
        fs::write(&file, &ptx)?;
        for architecture in &architectures {
            tools.assemble(&file, *architecture)?;
        }
        if self.bless {
            fs::write(root().join(PTX), &ptx).context(PTX)?;
            document::replace(PAGE, "kernels", &text)?;
            return document::replace(PAGE, "roofline", &roofline::table());
        }
        let again = "run cargo xtask cuda --bless";
        let built_in = fs::read_to_string(root().join(PTX)).context(PTX)?;
        ensure!(built_in == ptx, "{PTX} is not what the kernels compile to: {again}");
        let page = fs::read_to_string(root().join(PAGE)).context(PAGE)?;
        ensure!(page.contains(&text), "the table of {PAGE} is not the one above: {again}");
        ensure!(page.contains(&roofline::table()), "the roofline of {PAGE} has changed: {again}");
        Ok(())
    }
}

/// Sees to it that NVIDIA's compilers are there.
pub(crate) fn fetch() -> anyhow::Result<()> {
    Tools::get().map(|_| ())
}

/// Builds the program that compares a GPU with the CPU, says where it is, and runs it.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut build = job::cargo(".");
    build.args(["build", "--release", "--package", "rwkv-tests", "--bin", "cuda-check"]);
    job::run(build.args(["--features", "cuda"]))?;
    let program = root().join("target/release/cuda-check");
    println!("{} runs on any machine with a driver, without these files", program.display());
    job::run(&mut Command::new(program))
}

/// Where NVIDIA's libraries are, if they were fetched: the tests of the tool look for NVRTC there.
pub(crate) fn libraries() -> Option<PathBuf> {
    Some(Tools::place().join("lib")).filter(|dir| dir.exists())
}

/// NVIDIA's compilers.
struct Tools(PathBuf);

impl Tools {
    fn place() -> PathBuf {
        root().join("target/cuda").join(VERSION).join("nvidia/cu13")
    }

    /// Fetches them with pip, if they are not there.
    fn get() -> anyhow::Result<Self> {
        let tools = Self(Self::place());
        if tools.works() {
            return Ok(tools);
        }
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"]);
        pip.arg(root().join("target/cuda").join(VERSION));
        pip.args(PACKAGES.map(|package| format!("{package}=={VERSION}")));
        eprintln!("setting up: {}", job::shown(&pip));
        job::run(&mut pip).context("NVIDIA's compilers come with Python's pip")?;
        ensure!(tools.works(), "{} does not work", tools.program("nvcc").display());
        Ok(tools)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }

    fn works(&self) -> bool {
        job::output(Command::new(self.program("nvcc")).arg("--version")).is_ok()
    }

    fn nvcc(&self) -> Command {
        let mut command = Command::new(self.program("nvcc"));
        command.current_dir(root().join(KERNELS)).args(OPTIONS).arg("kernels.cu");
        command
    }

    /// The newest architecture that the compiler knows.
    fn newest(&self) -> anyhow::Result<u32> {
        let list = job::output(Command::new(self.program("nvcc")).arg("--list-gpu-code"))?;
        let numbers = list.lines().filter_map(|line| line.strip_prefix("sm_")?.parse().ok());
        numbers.max().context("nvcc lists no architecture")
    }

    /// PTX for the oldest architecture, the same wherever it is made, and of an older version than
    /// the compiler's: the assembler sees to it that it has all that is used.
    fn ptx(&self) -> anyhow::Result<String> {
        let architecture = format!("-arch=compute_{OLDEST}");
        let ptx = job::output(self.nvcc().args(["--ptx", architecture.as_str(), "-o", "-"]))?;
        let mut lines = vec!["// The kernels, compiled by `cargo xtask cuda --bless`.".to_owned()];
        for line in ptx.lines().filter(|line| !line.trim_start().starts_with("//")) {
            match line.strip_prefix(".version ") {
                Some(_) => lines.push(format!(".version {PTX_VERSION}")),
                None => lines.push(without_hashes(line)),
            }
        }
        lines.push(String::new());
        Ok(lines.join("\n"))
    }

    /// What each kernel takes, compiled for an architecture.
    fn compile(&self, architecture: u32) -> anyhow::Result<Vec<(String, Taken)>> {
        let name = format!("-arch=sm_{architecture}");
        let out = root().join("target/cuda").join(format!("sm_{architecture}.cubin"));
        let mut nvcc = self.nvcc();
        nvcc.args(["-cubin", name.as_str(), "-Xptxas", "-v", "-o"]).arg(out);
        let output = nvcc.output().with_context(|| job::shown(&nvcc))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} failed\n{said}", job::shown(&nvcc));
        listed(&said)
    }

    /// Whether the assembler takes PTX for an architecture.
    fn assemble(&self, ptx: &Path, architecture: u32) -> anyhow::Result<()> {
        let mut ptxas = Command::new(self.program("ptxas"));
        ptxas.arg(format!("-arch=sm_{architecture}")).arg(ptx).args(["-o", "/dev/null"]);
        job::output(&mut ptxas).map(|_| ())
    }
}

/// The compiler puts hashes of a file's path into names.
fn without_hashes(line: &str) -> String {
    const MARK: &str = "_INTERNAL_";
    let mut parts = line.split(MARK);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Eight digits, `_10_kernels_cu_`, and eight more.
        let rest = part.split_at_checked(8 + 15 + 8).map_or(part, |(_, rest)| rest);
        text.push_str(&format!("{MARK}00000000_10_kernels_cu_00000000{rest}"));
    }
    text
}

/// Every float operation is rounded as the norm asks: nothing fused, flushed or approximate.
fn check_arithmetic(ptx: &str) -> anyhow::Result<()> {
    let lines = || ptx.lines().map(str::trim_start);
    let wide = lines().find(|line| line.contains(".f64") || line.contains(".f16"));
    ensure!(wide.is_none(), "the kernels compute with another precision: {wide:?}");
    for line in lines().filter(|line| line.contains(".f32")) {
        let operation = line.split_whitespace().next().unwrap_or_default();
        let parts: Vec<&str> = operation.trim_end_matches(';').split('.').collect();
        let rounded = ["add", "sub", "mul", "div", "rcp", "sqrt"].contains(&parts[0]);
        let wrong = ["fma", "mad", "ex2", "lg2", "sin", "cos", "rsqrt", "tanh"].contains(&parts[0])
            || parts.contains(&"ftz")
            || parts.contains(&"approx")
            || (rounded && !parts.contains(&"rn"));
        ensure!(!wrong, "the kernels compile to {line}, which has not the bits of the core");
    }
    Ok(())
}

/// What the assembler says of its kernels.
fn listed(said: &str) -> anyhow::Result<Vec<(String, Taken)>> {
    let mut kernels: Vec<(String, Taken)> = Vec::new();
    for line in said.lines() {
        if let Some((_, name)) = line.split_once("Compiling entry function '") {
            let name = name.split('\'').next().unwrap_or_default();
            kernels.push((name.to_owned(), Taken::default()));
            continue;
        }
        let Some((_, taken)) = kernels.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            taken.stack = before(line, " bytes stack frame")?;
            taken.spilled =
                before(line, " bytes spill stores")? + before(line, " bytes spill loads")?;
        } else if line.contains(" registers") {
            taken.registers = before(line, " registers")?;
            taken.shared = before(line, " bytes smem").unwrap_or(0);
        }
    }
    if kernels.is_empty() {
        bail!("the assembler lists no kernels:\n{said}");
    }
    Ok(kernels)
}

/// The number in front of some words.
fn before(line: &str, words: &str) -> anyhow::Result<u32> {
    let (front, _) = line.split_once(words).with_context(|| format!("no{words} in: {line}"))?;
    let number = front.rsplit(' ').next().unwrap_or_default();
    number.parse().with_context(|| line.to_owned())
}

fn check_fit(table: &Table, architectures: &[u32]) -> anyhow::Result<()> {
    for (kernel, list) in table {
        for architecture in architectures {
            let taken = list.get(architecture);
            let taken = taken.with_context(|| format!("no {kernel} for sm_{architecture}"))?;
            ensure!(
                taken.spilled == 0 && taken.stack == 0,
                "{kernel} for sm_{architecture} spills {} bytes and has {} on its stack",
                taken.spilled,
                taken.stack
            );
        }
    }
    Ok(())
}

fn markdown(table: &Table, architectures: &[u32]) -> String {
    let names: Vec<String> = architectures.iter().map(|a| format!("sm_{a}")).collect();
    let rule = "---|".repeat(names.len() + 3);
    let mut text = format!("| kernel | {} | shared | spilled |\n|{rule}\n", names.join(" | "));
    for (kernel, list) in table {
        let registers: Vec<String> =
            list.values().map(|taken| taken.registers.to_string()).collect();
        let most = |field: fn(&Taken) -> u32| list.values().map(field).max().unwrap_or(0);
        let (shared, spilled) = (most(|taken| taken.shared), most(|taken| taken.spilled));
        let (registers, shared) = (registers.join(" | "), document::grouped(shared.into()));
        text.push_str(&format!("| `{kernel}` | {registers} | {shared} | {spilled} |\n"));
    }
    text
}
