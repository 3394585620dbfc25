//! What the jobs need beside cargo: Rust targets and emulators.

use std::{
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::Context;

use crate::job;

/// Targets of everything that is built for another machine than this one.
pub(crate) const TARGETS: [&str; 9] = [
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabihf",
    "thumbv8m.main-none-eabihf",
    "riscv32imc-unknown-none-elf",
    "riscv32imac-unknown-none-elf",
    "riscv32imafc-unknown-none-elf",
    "aarch64-unknown-linux-musl",
    "wasm32-wasip1",
];

/// Targets without an operating system, for which the crates are built with each set of features.
pub(crate) const BARE: [&str; 3] =
    ["thumbv6m-none-eabi", "thumbv7em-none-eabihf", "riscv32imac-unknown-none-elf"];

/// A program that a job needs, or its libraries: what works once it is there, and the Debian
/// package it comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    pub program: &'static str,
    args: &'static [&'static str],
    pub package: &'static str,
}

const fn program(program: &'static str, package: &'static str) -> Tool {
    Tool { program, args: &["--version"], package }
}

pub(crate) const QEMU_ARM: Tool = program("qemu-system-arm", "qemu-system-arm");
pub(crate) const QEMU_RISCV: Tool = program("qemu-system-riscv32", "qemu-system-misc");
pub(crate) const QEMU_AARCH64: Tool = program("qemu-aarch64", "qemu-user");
pub(crate) const NODE: Tool = program("node", "nodejs");
const NPM: Tool = program("npm", "npm");
/// The compiler of libFuzzer.
pub(crate) const COMPILER: Tool = program("g++", "g++");
/// What runs the makefile of the firmware in C.
pub(crate) const MAKE: Tool = program("make", "make");
/// What builds the same firmware as other projects do.
pub(crate) const CMAKE: Tool = program("cmake", "cmake");
/// The compiler of firmware in C.
pub(crate) const ARM_GCC: Tool = program("arm-none-eabi-gcc", "gcc-arm-none-eabi");
/// Its C library. The preprocessor finds the specs, or nothing works.
pub(crate) const NEWLIB: Tool = Tool {
    program: ARM_GCC.program,
    args: &["--specs=nano.specs", "-E", "-include", "stdio.h", "-xc", "/dev/null"],
    package: "libnewlib-arm-none-eabi",
};

/// What the tests need beside the emulators.
pub(crate) const COMPILERS: [Tool; 5] = [ARM_GCC, NEWLIB, MAKE, CMAKE, COMPILER];

/// The browser that a test opens a report in; without it that test is skipped and says so.
pub(crate) const BROWSER: Tool = program("chromium", "chromium");

/// What engraves a tune. The demo goes without it.
pub(crate) const ENGRAVER: Tool = Tool { program: "abcm2ps", args: &["-V"], package: "abcm2ps" };

/// Every emulator.
pub(crate) const EMULATORS: [Tool; 4] = [QEMU_ARM, QEMU_RISCV, QEMU_AARCH64, NODE];

/// Adds the Rust targets and the components that are missing.
pub(crate) fn rust() -> anyhow::Result<()> {
    for (kind, wanted) in [("target", &TARGETS[..]), ("component", &["rustfmt", "clippy"])] {
        let mut list = rustup();
        list.args([kind, "list", "--installed"]);
        let installed = job::output(&mut list).context(
            "rustup sets up what this needs: install it from https://rustup.rs, or add the targets by hand",
        )?;
        let has = |name: &&str| installed.lines().any(|line| line.starts_with(name));
        let missing: Vec<&str> = wanted.iter().copied().filter(|name| !has(name)).collect();
        if !missing.is_empty() {
            eprintln!("setting up: rustup {kind} add {}", missing.join(" "));
            job::run(rustup().args([kind, "add"]).args(missing))?;
        }
    }
    Ok(())
}

fn rustup() -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(crate::root());
    command
}

impl Tool {
    /// Whether it is there already.
    pub(crate) fn is_installed(self) -> bool {
        works(self.program, self.args)
    }

    /// Whether it is there; installs it where that is possible without asking. One package at a
    /// time: apt has refused several at once with "held broken packages" where each goes in alone.
    pub(crate) fn is_there(self) -> bool {
        let Self { program, args, package } = self;
        if works(program, args) {
            return true;
        }
        let install = ["install", "-y", "--no-install-recommends", package];
        if is_root() && works("apt-get", &["--version"]) {
            eprintln!("setting up: apt-get {}", install.join(" "));
            static UPDATED: OnceLock<()> = OnceLock::new();
            let apt = |args: &[&str]| {
                let mut command = Command::new("apt-get");
                command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
                job::run(&mut command)
            };
            let update = || match UPDATED.get() {
                Some(()) => Ok(()),
                None => apt(&["update", "-q"]).map(|()| UPDATED.get_or_init(|| ())).map(|_| ()),
            };
            match update().and_then(|()| apt(&install)) {
                Ok(()) if works(program, args) => return true,
                Ok(()) => {}
                Err(error) => eprintln!("{error:#}"),
            }
        }
        eprintln!("{package} is missing: install it with\n    sudo apt-get {}", install.join(" "));
        false
    }
}

/// The simulator of the RP2040, at the version that its folder names.
pub(crate) fn rp2040js() -> anyhow::Result<()> {
    anyhow::ensure!(NODE.is_there() && NPM.is_there(), "it runs in node");
    let dir = crate::root().join("rwkv-host/rp2040js");
    let dir = dir.to_string_lossy();
    if works(NPM.program, &["ls", "--prefix", &dir]) {
        return Ok(());
    }
    let mut npm = Command::new(NPM.program);
    npm.args(["ci", "--no-audit", "--no-fund", "--prefix", &dir]);
    eprintln!("setting up: {}", job::shown(&npm));
    job::run(&mut npm)
}

/// Puts the World vocabulary, which is too large for the repository, where a test looks for it:
/// the package `rwkv` ships it. Without it that test is skipped and says so.
pub(crate) fn vocabulary() {
    let dir = crate::root().join("target/tokenizers");
    let name = "rwkv_vocab_v20230424.txt";
    if dir.join(name).exists() {
        return;
    }
    let fetch = || {
        std::fs::create_dir_all(&dir)?;
        let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", "rwkv"];
        let unpack = format!(
            "import glob, zipfile\n\
             z = zipfile.ZipFile(glob.glob('rwkv-*.whl')[0])\n\
             open('{name}', 'wb').write(z.read('rwkv/{name}'))"
        );
        for args in [&pip[..], &["-c", &unpack]] {
            job::run(Command::new("python3").args(args).current_dir(&dir))?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = fetch() {
        eprintln!("the World vocabulary is missing, its test will be skipped: {error:#}");
    }
}

fn works(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    job::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
