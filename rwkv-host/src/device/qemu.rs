//! A board in QEMU: the image is loaded where its flash would be, the agent's UART is a socket.

use std::{path::Path, process::Command};

use super::{
    DeviceError, Options, QemuBoard,
    boards::Medium,
    firmware,
    process::{Files, Process},
};

/// Starts a board and waits until it listens.
pub(super) fn start(
    board: QemuBoard,
    flash: &[u8],
    options: &Options,
) -> Result<Process, DeviceError> {
    let facts = board.facts();
    let (needed, room) = (flash.len(), facts.image.room());
    if needed > room {
        return Err(DeviceError::TooLarge { board: facts.name, needed, room });
    }
    let elf = firmware::find(facts.name, facts.target, options.firmware.as_deref())?;
    let files = Files::new(elf.clone())?;
    let image = files.write("image", flash)?;

    let mut qemu = Command::new(facts.emulator.program);
    qemu.args(["-M", facts.name, "-display", "none", "-monitor", "none"])
        .args(facts.arguments)
        .arg("-kernel")
        .arg(&elf)
        .args(image_arguments(facts.image, &image))
        .arg("-chardev")
        .arg(format!("socket,id=uart,path={}", files.uart().display()))
        .args(["-serial", "chardev:uart"])
        .args(["-semihosting-config", "enable=on,target=native"]);
    let mut process = Process::start(facts.emulator, &mut qemu, files, options.timeout)?;
    if facts.greets {
        process.greeting(options.timeout)?;
    }
    Ok(process)
}

/// What puts the image where the firmware looks for it.
fn image_arguments(medium: Medium, file: &Path) -> [String; 2] {
    match medium {
        Medium::Memory { address, .. } => [
            "-device".into(),
            format!("loader,file={},addr={address:#010x},force-raw=on", file.display()),
        ],
    }
}
