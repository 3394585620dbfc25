//! The cores that the probe runs on: boards in QEMU, this machine, and emulated processes.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, bail};

use crate::{job, root};

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
        /// QEMU's program.
        qemu: &'static str,
        /// QEMU's machine.
        board: &'static str,
        /// Where the window starts, as in the probe's memory map.
        window: u32,
        /// Bytes of the window.
        room: usize,
    },
    /// A process with a prefix and, behind the program, options.
    Process {
        /// What comes before the program.
        prefix: &'static [&'static str],
        /// The kernels to use.
        kernel: &'static str,
    },
}

const fn arm(board: &'static str, window: u32) -> Machine {
    Machine::Board { qemu: "qemu-system-arm", board, window, room: 0x38_0000 }
}

const fn riscv() -> Machine {
    let (qemu, board) = ("qemu-system-riscv32", "virt");
    Machine::Board { qemu, board, window: 0x8008_0000, room: 0x38_0000 }
}

const fn process(prefix: &'static [&'static str], kernel: &'static str) -> Machine {
    Machine::Process { prefix, kernel }
}

const HOST: &str = "x86_64-unknown-linux-gnu";

/// Every core.
pub(crate) const CORES: [Core; 10] = [
    Core { name: "x86-64", target: HOST, machine: process(&[], "scalar") },
    Core {
        name: "aarch64",
        target: "aarch64-unknown-linux-musl",
        machine: process(&["qemu-aarch64"], "native"),
    },
    Core {
        name: "wasm32",
        target: "wasm32-wasip1",
        machine: process(&["node", "rwkv-embedded/boards/probe/wasi.mjs"], "native"),
    },
    Core {
        name: "m0",
        target: "thumbv6m-none-eabi",
        machine: Machine::Board {
            qemu: "qemu-system-arm",
            board: "microbit",
            window: 0x2_0000,
            room: 0x2_0000,
        },
    },
    Core { name: "m3", target: "thumbv7m-none-eabi", machine: arm("mps2-an385", 0x8_0000) },
    Core { name: "m4", target: "thumbv7em-none-eabihf", machine: arm("mps2-an386", 0x8_0000) },
    Core { name: "m7", target: "thumbv7em-none-eabihf", machine: arm("mps2-an500", 0x8_0000) },
    Core {
        name: "m33",
        target: "thumbv8m.main-none-eabihf",
        machine: arm("mps2-an505", 0x1008_0000),
    },
    Core { name: "rv32imac", target: "riscv32imac-unknown-none-elf", machine: riscv() },
    Core { name: "rv32imafc", target: "riscv32imafc-unknown-none-elf", machine: riscv() },
];

impl Core {
    /// The core of that name.
    pub(crate) fn find(name: &str) -> anyhow::Result<Self> {
        let names = || CORES.map(|core| core.name).join(", ");
        let found = CORES.into_iter().find(|core| core.name == name);
        found.with_context(|| format!("there is no core {name}: {}", names()))
    }

    /// Bytes that its window holds.
    pub(crate) const fn room(&self) -> usize {
        match self.machine {
            Machine::Board { room, .. } => room,
            Machine::Process { .. } => usize::MAX,
        }
    }

    /// Builds the probe for the core.
    pub(crate) fn build(&self) -> anyhow::Result<PathBuf> {
        let mut build = job::cargo(PROBE);
        build.args(["build", "--quiet", "--release", "--target", self.target]);
        job::run(&mut build)?;
        let file = if self.target.starts_with("wasm") { "probe.wasm" } else { "probe" };
        Ok(root().join(PROBE).join("target").join(self.target).join("release").join(file))
    }

    /// What the probe prints for these arguments, with a file in its window.
    pub(crate) fn probe(
        &self,
        program: &PathBuf,
        args: &[String],
        window: Option<&PathBuf>,
        count: bool,
    ) -> anyhow::Result<String> {
        let mut command = match self.machine {
            Machine::Board { qemu, board, window: address, room } => {
                let mut command = Command::new(qemu);
                command.args(["-M", board, "-display", "none", "-monitor", "none"]);
                command.args(["-serial", "none"]);
                if qemu.contains("riscv") {
                    command.args(["-bios", "none"]);
                }
                if count {
                    command.args(["-icount", "shift=0"]);
                }
                command.arg("-kernel").arg(program);
                if let Some(file) = window {
                    if std::fs::metadata(file)?.len() > room as u64 {
                        bail!("{} does not fit into the flash of {board}", file.display());
                    }
                    let file = file.display();
                    let loader = format!("loader,file={file},addr={address:#x},force-raw=on");
                    command.args(["-device", &loader]);
                }
                let args = args.iter().map(|arg| format!(",arg={arg}")).collect::<String>();
                let config = format!("enable=on,target=native,arg=probe{args}");
                command.args(["-semihosting-config", &config]);
                command
            }
            Machine::Process { prefix, kernel } => {
                let mut words = prefix.iter();
                let mut command = match words.next() {
                    Some(first) => Command::new(first),
                    None => Command::new(program),
                };
                command.args(words);
                if !prefix.is_empty() {
                    command.arg(program);
                }
                command.args(args).args(["--kernel", kernel]);
                if let Some(file) = window {
                    command.arg("--image").arg(file);
                }
                command
            }
        };
        command.current_dir(root());
        job::output(&mut command)
    }
}
