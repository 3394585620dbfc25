//! `cargo xtask examples`: firmware in Rust, as short as it gets, writes the host's text.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use clap::Parser;

use crate::{
    c,
    demo::{MODELS, image, rwkv},
    document::{grouped, replace},
    job, root,
    setup::{self, QEMU_ARM},
    size::loaded,
};

/// The firmware that the README shows.
pub(crate) const MINIMAL: &str = "rwkv-embedded/examples/minimal";
/// The firmware that runs whatever image it finds.
pub(crate) const ALLOC: &str = "rwkv-embedded/examples/alloc";
/// Where both are built.
const BUILT: &str = "rwkv-embedded/examples/target/thumbv7em-none-eabihf/release";

/// Build the example firmware, and prove that it writes the host's text
#[derive(Debug, Parser)]
pub(crate) struct Examples {
    /// Fail where the README does not show the firmware as it is
    #[arg(long)]
    check: bool,
}

impl Examples {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        listing(self.check)?;
        ensure!(QEMU_ARM.is_there(), "the firmware needs an emulator");
        minimal(self.check)?;
        alloc()
    }
}

/// Puts the firmware into the README, or compares it with what is there.
fn listing(check: bool) -> anyhow::Result<()> {
    let path = root().join(MINIMAL).join("src/main.rs");
    let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(source.lines().count() < 60, "{MINIMAL} is no longer minimal");
    let block = format!("```rust\n{source}```\n");
    if !check {
        return replace("README.md", "minimal", &block);
    }
    let readme = fs::read_to_string(root().join("README.md")).context("README.md")?;
    ensure!(readme.contains(&block), "README.md is out of date: run cargo xtask examples");
    Ok(())
}

/// Runs the least firmware, and compares what it says with what the tool says.
fn minimal(check: bool) -> anyhow::Result<()> {
    let image = image(MODELS[0], "int8", &["--weights", "int8"])?;
    place(&image, &root().join(MINIMAL).join("tunes.rwkv"))?;
    if check {
        let mut clippy = job::cargo(MINIMAL);
        job::run(clippy.args(["clippy", "--quiet", "--release", "--", "-D", "warnings"]))?;
    }
    let elf = build(MINIMAL, "minimal")?;
    let said = job::output(&mut board(&elf, None))?;
    // As in its main.rs.
    let mut generate = rwkv()?;
    generate.arg("generate").arg(&image).args(["--prompt", "X:1\nT:The Morning Fair\n"]);
    generate.args(["-n", "300", "--stop", "\n\n"]);
    generate.args(["--temperature", "0.8", "--top-k", "40", "--seed", "3"]);
    let expected = job::output(&mut generate)?;
    // The tool ends the text with a line break.
    let expected = expected.strip_suffix('\n').unwrap_or(&expected);
    ensure!(said == expected, "{MINIMAL} says\n{said}\nand the host\n{expected}");
    ensure!(said.len() > 100, "{MINIMAL} says no more than\n{said}");
    let flash = loaded(&elf)? - fs::metadata(&image)?.len();
    println!("{MINIMAL}: {} bytes of text, as on the host", said.len());
    println!("{MINIMAL}: {} bytes of flash beside the image", grouped(flash));
    Ok(())
}

/// Runs one firmware with several images behind it, and with none.
fn alloc() -> anyhow::Result<()> {
    let elf = build(ALLOC, "any-image")?;
    for model in MODELS {
        let image = image(model, "int8", &["--weights", "int8"])?;
        let said = job::output(&mut board(&elf, Some(&image)))?;
        let (first, text) = said.split_once('\n').context("it says a line")?;
        let expected = c::host(&image, c::Last::State)?;
        ensure!(text == expected, "{ALLOC} with {model} says\n{text}\nand the host\n{expected}");
        println!("{ALLOC} with {model}: {first}, {}", text.lines().last().unwrap_or(""));
    }
    let error = job::output(&mut board(&elf, None)).err();
    let error = error.map(|error| error.to_string()).unwrap_or_default();
    let named = error.contains("not an RWKV image");
    ensure!(named, "{ALLOC} without an image does not say so, but\n{error}");
    Ok(())
}

/// Copies a file, unless the same is there, so that nothing is built anew for it.
fn place(from: &Path, to: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(from).with_context(|| from.display().to_string())?;
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let new = to.with_extension("new");
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, to))
        .with_context(|| format!("cannot write {}", to.display()))
}

fn build(example: &str, name: &str) -> anyhow::Result<PathBuf> {
    let mut build = job::cargo(example);
    job::run(build.args(["build", "--quiet", "--release"]))?;
    Ok(root().join(BUILT).join(name))
}

/// The emulator with a firmware, and with an image behind it.
fn board(elf: &Path, image: Option<&Path>) -> Command {
    let mut qemu = Command::new(QEMU_ARM.program);
    qemu.args(["-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none"]);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(elf);
    if let Some(image) = image {
        qemu.arg("-device");
        qemu.arg(format!("loader,file={},addr=0x80000,force-raw=on", image.display()));
    }
    qemu
}
