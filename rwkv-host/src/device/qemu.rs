//! A board in QEMU: the image is loaded where its flash would be, or lies on a card or chip; the
//! agent's UART is a socket.

use std::{borrow::Cow, path::Path, process::Command};

use object::{
    Endianness,
    elf::{ELFOSABI_NONE, EM_RISCV, ET_EXEC, PF_R, PT_LOAD},
    write::elf::{FileHeader, ProgramHeader, Writer},
};

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
    let image = files.write("image", &image_file(facts.image, flash))?;

    let mut qemu = Command::new(facts.emulator.program);
    qemu.args(["-M", facts.name, "-display", "none", "-monitor", "none"])
        .args(facts.arguments)
        .arg("-kernel")
        .arg(&elf)
        .args(image_arguments(facts.image, &image))
        .arg("-chardev")
        .arg(format!("socket,id=uart,host=127.0.0.1,port={},nodelay=on", files.port()?))
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
        Medium::RiscvElf { .. } => ["-device".into(), format!("loader,file={}", file.display())],
        Medium::Sd { .. } => drive("sd", file),
        Medium::Nor { .. } => drive("mtd", file),
    }
}

fn drive(interface: &str, file: &Path) -> [String; 2] {
    ["-drive".into(), format!("if={interface},format=raw,file={}", file.display())]
}

/// The least card that the emulator takes.
const LEAST_CARD: usize = 1 << 20;

/// The file that the emulator loads, or takes for a medium.
fn image_file(medium: Medium, flash: &[u8]) -> Cow<'_, [u8]> {
    match medium {
        Medium::Memory { .. } => flash.into(),
        Medium::RiscvElf { address, .. } => elf(EM_RISCV, address, flash).into(),
        Medium::Sd { .. } => padded(flash, flash.len().next_power_of_two().max(LEAST_CARD)).into(),
        Medium::Nor { room } => padded(flash, room).into(),
    }
}

fn padded(flash: &[u8], size: usize) -> Vec<u8> {
    let mut file = flash.to_vec();
    file.resize(size, 0);
    file
}

/// An ELF file of one segment, with these bytes at this address.
fn elf(machine: u16, address: u32, bytes: &[u8]) -> Vec<u8> {
    let (size, address) = (bytes.len() as u64, u64::from(address));
    let mut file = Vec::new();
    let mut writer = Writer::new(Endianness::Little, false, &mut file);
    writer.reserve_file_header();
    writer.reserve_program_headers(1);
    let offset = writer.reserve(bytes.len(), 4) as u64;
    let header = FileHeader {
        os_abi: ELFOSABI_NONE,
        abi_version: 0,
        e_type: ET_EXEC,
        e_machine: machine,
        e_entry: address,
        e_flags: 0,
    };
    writer.write_file_header(&header).expect("a vector takes all");
    writer.write_align_program_headers();
    writer.write_program_header(&ProgramHeader {
        p_type: PT_LOAD,
        p_flags: PF_R,
        p_offset: offset,
        p_vaddr: address,
        p_paddr: address,
        p_filesz: size,
        p_memsz: size,
        p_align: 4,
    });
    writer.pad_until(offset as usize);
    writer.write(bytes);
    file
}
