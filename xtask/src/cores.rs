//! The cores that the probe runs on: boards in QEMU, this machine, and emulated processes.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use rwkv_core::kernel::Choice;

use crate::{
    job, root,
    setup::{NODE, QEMU_AARCH64, QEMU_ARM, QEMU_RISCV, Tool},
};

/// The probe's package.
pub(crate) const PROBE: &str = "rwkv-embedded/boards/probe";

/// A core, and what runs its programs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Core {
    /// What people call it.
    pub name: &'static str,
    /// The Rust target.
    pub target: &'static str,
    /// Where programs run.
    pub machine: Machine,
}

/// What runs the programs of a core.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Machine {
    /// A board in QEMU.
    Board {
        emulator: Tool,
        /// QEMU's name of it.
        board: &'static str,
        /// Where the window starts, as in the probe's memory map.
        window: u32,
        /// Bytes of the window.
        room: usize,
    },
    /// A process of this machine, or of an emulator.
    Process {
        emulator: Option<Tool>,
        /// What comes between the emulator and the program.
        script: Option<&'static str>,
        /// The kernels to use.
        kernel: &'static str,
    },
}

const fn mps2(board: &'static str, window: u32) -> Machine {
    Machine::Board { emulator: QEMU_ARM, board, window, room: 0x38_0000 }
}

const VIRT: Machine =
    Machine::Board { emulator: QEMU_RISCV, board: "virt", window: 0x8008_0000, room: 0x38_0000 };

const MICROBIT: Machine =
    Machine::Board { emulator: QEMU_ARM, board: "microbit", window: 0x2_4000, room: 0x1_C000 };

const HOST: &str = "x86_64-unknown-linux-gnu";

const fn host(name: &'static str, kernel: &'static str) -> Core {
    Core { name, target: HOST, machine: Machine::Process { emulator: None, script: None, kernel } }
}

const fn aarch64(name: &'static str, kernel: &'static str) -> Core {
    let emulator = Some(QEMU_AARCH64);
    let machine = Machine::Process { emulator, script: None, kernel };
    Core { name, target: "aarch64-unknown-linux-musl", machine }
}

/// Every core; of a host, every choice of kernels.
pub(crate) const CORES: [Core; 13] = [
    host("x86-64", "generic"),
    host("avx2", "avx2"),
    host("avx512", "avx512"),
    aarch64("neon", "neon"),
    aarch64("neon-dotprod", "neon-dotprod"),
    Core {
        name: "wasm32",
        target: "wasm32-wasip1",
        machine: Machine::Process {
            emulator: Some(NODE),
            script: Some("rwkv-embedded/boards/probe/wasi.mjs"),
            kernel: "native",
        },
    },
    Core { name: "m0", target: "thumbv6m-none-eabi", machine: MICROBIT },
    Core { name: "m3", target: "thumbv7m-none-eabi", machine: mps2("mps2-an385", 0x8_0000) },
    Core { name: "m4", target: "thumbv7em-none-eabihf", machine: mps2("mps2-an386", 0x8_0000) },
    Core { name: "m7", target: "thumbv7em-none-eabihf", machine: mps2("mps2-an500", 0x8_0000) },
    Core {
        name: "m33",
        target: "thumbv8m.main-none-eabihf",
        machine: mps2("mps2-an505", 0x1008_0000),
    },
    Core { name: "rv32imac", target: "riscv32imac-unknown-none-elf", machine: VIRT },
    Core { name: "rv32imafc", target: "riscv32imafc-unknown-none-elf", machine: VIRT },
];

/// What a run of the probe needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    /// The probe, built for the core.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [&'a str],
    /// What lies in the window.
    pub window: Option<&'a Path>,
    /// Whether instructions are counted, which takes the emulator twice as long.
    pub count: bool,
}

impl Core {
    /// The core of that name.
    pub(crate) fn find(name: &str) -> anyhow::Result<Self> {
        let names = || CORES.map(|core| core.name).join(", ");
        let found = CORES.into_iter().find(|core| core.name == name);
        found.with_context(|| format!("there is no core {name}: {}", names()))
    }

    /// The cores of these names, or if there are none all but those whose instructions this
    /// machine lacks.
    pub(crate) fn select(names: &[String]) -> anyhow::Result<Vec<Self>> {
        if names.is_empty() {
            let (beyond, cores): (Vec<_>, Vec<_>) =
                CORES.into_iter().partition(Self::is_beyond_this_machine);
            for core in beyond {
                println!("skipped: {}, since this machine has no such instructions", core.name);
            }
            return Ok(cores);
        }
        names.iter().map(|name| Self::find(name)).collect()
    }

    /// Whether it has multipliers of 16 bits side by side. The others multiply two weights at once
    /// by an input of 8 bits, or one by a wider one.
    pub(crate) fn has_wide_multiply(&self) -> bool {
        !matches!(self.name, "m0" | "m3" | "rv32imac" | "rv32imafc")
    }

    /// Bytes that its window holds.
    pub(crate) const fn room(&self) -> usize {
        match self.machine {
            Machine::Board { room, .. } => room,
            Machine::Process { .. } => usize::MAX,
        }
    }

    /// Whether it is one of Arm's Cortex-M.
    pub(crate) fn is_cortex_m(&self) -> bool {
        self.target.starts_with("thumb")
    }

    /// Whether the mode `functions` fits beside the others.
    pub(crate) fn has_functions(&self) -> bool {
        self.name != "m0"
    }

    /// Builds the probe for the core.
    pub(crate) fn build(&self) -> anyhow::Result<PathBuf> {
        self.build_with("target", &[])
    }

    /// Builds the probe that compares every block of weights with its checksum.
    pub(crate) fn build_verifying(&self) -> anyhow::Result<PathBuf> {
        self.build_with("target/verify", &["--features", "verify"])
    }

    fn build_with(&self, dir: &str, features: &[&str]) -> anyhow::Result<PathBuf> {
        let mut build = self.building(dir);
        build.args(features);
        if !self.has_functions() {
            build.arg("--no-default-features");
        }
        job::run(&mut build)?;
        Ok(self.program(dir))
    }

    /// Builds the probe that measures CMSIS-NN, whose sources lie in `library`.
    pub(crate) fn build_cmsis_nn(&self, library: &Path) -> anyhow::Result<PathBuf> {
        // Cores that share a target have flags of their own.
        let dir = format!("target/cmsis-nn-{}", self.name);
        let mut build = self.building(&dir);
        build.args(["--no-default-features", "--features", "cmsis-nn"]);
        build.env("CMSIS_NN", library).env("CMSIS_NN_CPU", format!("cortex-{}", self.name));
        job::run(&mut build)?;
        Ok(self.program(&dir))
    }

    fn building(&self, dir: &str) -> Command {
        let mut build = job::cargo(PROBE);
        build.args(["build", "--quiet", "--release", "--bin", "probe", "--target", self.target]);
        build.args(["--target-dir", dir]);
        if self.name == "m0" {
            // The flash of a microbit is too small for a faster program; assembly stays what it is.
            build.args(["--config", "profile.release.package.probe.opt-level='s'"]);
        }
        build
    }

    fn program(&self, dir: &str) -> PathBuf {
        let file = if self.target.starts_with("wasm") { "probe.wasm" } else { "probe" };
        root().join(PROBE).join(dir).join(self.target).join("release").join(file)
    }

    /// Why it cannot run here, if it cannot.
    pub(crate) fn missing(&self) -> Option<String> {
        let emulator = match self.machine {
            Machine::Board { emulator, .. } => Some(emulator),
            Machine::Process { emulator, .. } => emulator,
        };
        match emulator {
            Some(emulator) if !emulator.is_there() => {
                Some(format!("{} is not installed", emulator.program))
            }
            _ => None,
        }
    }

    /// Whether it is this machine, with kernels for instructions that it lacks.
    pub(crate) fn is_beyond_this_machine(&self) -> bool {
        let Machine::Process { emulator: None, kernel, .. } = self.machine else { return false };
        Choice::by_name(kernel).is_none()
    }

    /// What the probe prints.
    pub(crate) fn probe(&self, run: &Run<'_>) -> anyhow::Result<String> {
        let mut command = match self.machine {
            Machine::Board { emulator, board, window, room } => {
                let mut command = Command::new(emulator.program);
                command.args(["-M", board, "-display", "none", "-monitor", "none"]);
                command.args(["-serial", "none"]);
                if emulator == QEMU_RISCV {
                    command.args(["-bios", "none"]);
                }
                if run.count {
                    command.args(["-icount", "shift=0"]);
                }
                command.arg("-kernel").arg(run.program);
                if let Some(file) = run.window {
                    let file = file.display();
                    let large = fs::metadata(file.to_string())?.len() > room as u64;
                    ensure!(!large, "{file} does not fit into the flash of {board}");
                    command.arg("-device");
                    command.arg(format!("loader,file={file},addr={window:#x},force-raw=on"));
                }
                let args: String = run.args.iter().map(|arg| format!(",arg={arg}")).collect();
                command.arg("-semihosting-config");
                command.arg(format!("enable=on,target=native,arg=probe{args}"));
                command
            }
            Machine::Process { emulator, script, kernel } => {
                let program = run.program.as_os_str();
                let before = emulator.map(|emulator| emulator.program).into_iter().chain(script);
                let mut words = before.map(OsStr::new).chain([program]);
                let mut command = Command::new(words.next().unwrap_or(program));
                command.args(words).args(run.args).args(["--kernel", kernel]);
                if let Some(file) = run.window {
                    command.arg("--image").arg(file);
                }
                command
            }
        };
        job::output(command.current_dir(root()))
    }
}
