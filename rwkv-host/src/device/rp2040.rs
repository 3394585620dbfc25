//! The RP2040 in the simulator rp2040js, which node runs.

use std::{fs, path::PathBuf, process::Command};

use object::{
    LittleEndian,
    read::elf::{ElfFile32, ProgramHeader},
};

use super::{
    DeviceError, Options,
    boards::Emulator,
    firmware,
    process::{Files, Process},
};

pub(super) const NAME: &str = "rp2040";
const TARGET: &str = "thumbv6m-none-eabi";
const NODE: Emulator = Emulator { program: "node", package: "nodejs" };

/// The folder of the package in the tree, and its program.
const PACKAGE: &str = "rwkv-host/rp2040js";
const BRIDGE: &str = "bridge.mjs";

/// Where the flash begins, and its bytes.
pub(super) const FLASH: u32 = 0x1000_0000;
pub(super) const SIZE: usize = 0x0020_0000;
/// Where in the flash the image lies.
pub(super) const IMAGE: usize = 0x0008_0000;

/// Bytes of RAM, and of those the arena's, as in its `memory.x`.
pub(super) const RAM: u32 = 264 << 10;
pub(super) const ARENA: u32 = 224 << 10;

/// Bytes of the largest image.
pub(super) const ROOM: usize = SIZE - IMAGE;

/// Starts the firmware with an image behind it in the flash.
pub(super) fn start(image: &[u8], options: &Options) -> Result<Process, DeviceError> {
    let (needed, room) = (image.len(), ROOM);
    if needed > room {
        return Err(DeviceError::TooLarge { board: NAME, needed, room });
    }
    let package = package()?;
    let elf = firmware::find(NAME, TARGET, options.firmware.as_deref())?;
    let bytes = fs::read(&elf).map_err(DeviceError::io(format!("read {}", elf.display())))?;
    let Some(mut flash) = loaded(&bytes) else {
        return Err(DeviceError::OtherFirmware { elf, board: NAME });
    };
    flash.resize(IMAGE, u8::MAX);
    flash.extend_from_slice(image);

    let files = Files::new(elf)?;
    let mut node = Command::new(NODE.program);
    node.arg(package.join(BRIDGE))
        .arg(files.write("flash", &flash)?)
        .arg(files.port()?.to_string());
    Process::start(NODE, &mut node, files, options.timeout)
}

/// The folder of the package, with the simulator installed.
fn package() -> Result<PathBuf, DeviceError> {
    let dir = firmware::in_tree(PACKAGE, BRIDGE).ok_or(DeviceError::NoSimulator(PACKAGE))?;
    match dir.join("node_modules/rp2040js").is_dir() {
        true => Ok(dir),
        false => Err(DeviceError::NoPackage { package: "rp2040js", dir }),
    }
}

/// What the firmware puts into the flash ahead of the image; `None` if it is none of this chip.
fn loaded(elf: &[u8]) -> Option<Vec<u8>> {
    let file = ElfFile32::<LittleEndian>::parse(elf).ok()?;
    let mut flash = Vec::new();
    for header in file.elf_program_headers() {
        let bytes = header.data(LittleEndian, elf).ok()?;
        if header.p_type(LittleEndian) != object::elf::PT_LOAD || bytes.is_empty() {
            continue;
        }
        let address = header.p_paddr(LittleEndian);
        let start = usize::try_from(address.checked_sub(FLASH)?).ok()?;
        let end = start.checked_add(bytes.len()).filter(|end| *end <= IMAGE)?;
        flash.resize(flash.len().max(end), u8::MAX);
        flash.get_mut(start..end)?.copy_from_slice(bytes);
    }
    (!flash.is_empty()).then_some(flash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_firmware_of_the_chip_is_refused() {
        assert_eq!(loaded(&[]), None);
        assert_eq!(loaded(&[0xff; 64]), None);
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(loaded(&own), None);
    }

    #[test]
    fn images_that_do_not_fit_are_refused() {
        let refused = start(&vec![0; ROOM + 1], &Options::default());
        assert!(matches!(refused, Err(DeviceError::TooLarge { room: 0x0018_0000, .. })));
    }
}
