//! `cargo xtask embassy`: tokens in an executor of embassy, beside a task that blinks.

use anyhow::{Context, ensure};

use crate::{
    c,
    demo::{MODELS, image},
    job, root,
    setup::{self, QEMU_ARM},
};

/// The firmware.
pub(crate) const EXAMPLE: &str = "rwkv-embedded/examples/embassy";
const ELF: &str = "rwkv-embedded/boards/target/thumbv7em-none-eabihf/release/embassy";

/// How often the firmware continues the prompt: in place, giving way, and reading ahead.
const RUNS: usize = 3;

/// Runs every shipped model; the firmware itself holds the blinks to their bound.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::rust()?;
    ensure!(QEMU_ARM.is_there(), "the firmware needs an emulator");
    job::run(job::cargo(EXAMPLE).args(["build", "--quiet", "--release"]))?;
    for model in MODELS {
        let image = image(model, "int8", &["--weights", "int8"])?;
        let said = c::said(&root().join(ELF), &image, &["-icount", "shift=0"])?;
        let expected = c::host(&image, c::Last::Token)?;
        let figures = said.strip_prefix(&expected.repeat(RUNS));
        let figures = figures.with_context(|| {
            format!("{model}: the firmware says\n{said}\nand the host, {RUNS} times,\n{expected}")
        })?;
        print!("{model}, the host's bits {RUNS} times\n{figures}");
    }
    Ok(())
}
