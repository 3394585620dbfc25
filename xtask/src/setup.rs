//! What the jobs need beside cargo: Rust targets and QEMU.

use std::process::{Command, Stdio};

use anyhow::Context;

use crate::job;

/// Targets that the core is built for; the board package uses the second.
pub(crate) const TARGETS: [&str; 3] =
    ["thumbv6m-none-eabi", "thumbv7em-none-eabihf", "riscv32imac-unknown-none-elf"];

const QEMU: &str = "qemu-system-arm";

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

/// Whether QEMU is there; installs it where that is possible without asking.
pub(crate) fn qemu() -> bool {
    if works(QEMU, &["--version"]) {
        return true;
    }
    let install = ["install", "-y", "--no-install-recommends", QEMU];
    if is_root() && works("apt-get", &["--version"]) {
        eprintln!("setting up: apt-get {}", install.join(" "));
        let apt = |args: &[&str]| {
            let mut command = Command::new("apt-get");
            command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
            job::run(&mut command)
        };
        match apt(&["update", "-q"]).and_then(|()| apt(&install)) {
            Ok(()) if works(QEMU, &["--version"]) => return true,
            Ok(()) => {}
            Err(error) => eprintln!("{error:#}"),
        }
    }
    eprintln!("{QEMU} is missing: install it with\n    sudo apt-get {}", install.join(" "));
    false
}

fn works(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    job::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
