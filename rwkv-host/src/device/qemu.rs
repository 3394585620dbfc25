//! A board in QEMU: the image is loaded where its flash would be, the agent's UART is a socket.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use object::{
    Endianness,
    elf::{ELFOSABI_NONE, EM_RISCV, ET_EXEC, PF_R, PT_LOAD},
    write::elf::{FileHeader, ProgramHeader, Writer},
};
use tempfile::TempDir;

use super::{
    DeviceError, Options, QemuBoard, Transport, boards::Medium, error::Log, firmware, log,
};

/// Where semihosting writes the firmware's log.
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// How often a starting QEMU is looked after.
const POLL: Duration = Duration::from_millis(5);

/// A running QEMU; ends when dropped.
pub(super) struct Qemu {
    uart: UnixStream,
    child: Child,
    files: Files,
}

/// What QEMU and this process exchange beside the UART.
struct Files {
    dir: TempDir,
    /// The firmware: it holds the strings of its log.
    elf: PathBuf,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn create(&self, name: &str) -> Result<fs::File, DeviceError> {
        fs::File::create(self.path(name)).map_err(DeviceError::io("make a file for QEMU's output"))
    }

    /// What QEMU complained about, then what the firmware logged.
    fn log(&self) -> Log {
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        let mut text = String::from_utf8_lossy(&read(&self.path(STDERR))).into_owned();
        text.push_str(&log::decode(&read(&self.elf), &read(&self.path(STDOUT))));
        Log(text)
    }
}

impl Qemu {
    /// Starts QEMU and waits for its UART.
    pub(super) fn start(
        board: QemuBoard,
        flash: &[u8],
        options: &Options,
    ) -> Result<Self, DeviceError> {
        let facts = board.facts();
        let (needed, room) = (flash.len(), facts.image.room());
        if needed > room {
            return Err(DeviceError::TooLarge { board: facts.name, needed, room });
        }
        let elf = firmware::find(board, options.firmware.as_deref())?;
        let dir = TempDir::with_prefix("rwkv-qemu-");
        let files = Files {
            elf: elf.clone(),
            dir: dir.map_err(DeviceError::io("make a temporary directory"))?,
        };
        image_file(facts.image, flash, &files.path("image"))
            .map_err(DeviceError::io("write the image for QEMU"))?;
        let listener = UnixListener::bind(files.path("uart"))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(DeviceError::io("open a socket for the UART"))?;

        let mut qemu = Command::new(facts.emulator.program);
        qemu.args(["-M", facts.name, "-display", "none", "-monitor", "none"])
            .args(facts.arguments)
            .arg("-kernel")
            .arg(&elf)
            .args(image_arguments(facts.image, &files.path("image")))
            .arg("-chardev")
            .arg(format!("socket,id=uart,path={}", files.path("uart").display()))
            .args(["-serial", "chardev:uart"])
            .args(["-semihosting-config", "enable=on,target=native"])
            .stdin(Stdio::null())
            .stdout(files.create(STDOUT)?)
            .stderr(files.create(STDERR)?);
        let mut child = qemu.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DeviceError::NoEmulator {
                program: facts.emulator.program,
                package: facts.emulator.package,
            },
            _ => DeviceError::io(format!("start {}", facts.emulator.program))(error),
        })?;
        match accept(&listener, &mut child, &files, options.timeout) {
            Ok(uart) => {
                let mut qemu = Self { uart, child, files };
                if facts.greets {
                    qemu.greeting(options.timeout)?;
                }
                Ok(qemu)
            }
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Waits for the firmware to say that it listens.
    fn greeting(&mut self, timeout: Duration) -> Result<(), DeviceError> {
        let awaited = "the firmware to switch its UART on";
        self.set_timeout(timeout).map_err(DeviceError::io("set the time-out of the UART"))?;
        self.uart.read_exact(&mut [0]).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                DeviceError::Timeout { awaited, timeout, log: self.files.log() }
            }
            _ => DeviceError::Ended { awaited, log: self.files.log() },
        })
    }
}

/// What puts the image where the firmware looks for it.
fn image_arguments(medium: Medium, file: &Path) -> [String; 2] {
    match medium {
        Medium::Memory { address, .. } => [
            "-device".into(),
            format!("loader,file={},addr={address:#010x},force-raw=on", file.display()),
        ],
        Medium::RiscvElf { .. } => ["-device".into(), format!("loader,file={}", file.display())],
    }
}

/// Writes the file that the emulator loads.
fn image_file(medium: Medium, flash: &[u8], path: &Path) -> io::Result<()> {
    match medium {
        Medium::Memory { .. } => fs::write(path, flash),
        Medium::RiscvElf { address, .. } => fs::write(path, elf(EM_RISCV, address, flash)),
    }
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

fn accept(
    listener: &UnixListener,
    child: &mut Child,
    files: &Files,
    timeout: Duration,
) -> Result<UnixStream, DeviceError> {
    let awaited = "the start of QEMU";
    let deadline = Instant::now() + timeout;
    loop {
        match listener.accept() {
            Ok((uart, _)) => {
                uart.set_nonblocking(false).map_err(DeviceError::io("set up the UART"))?;
                return Ok(uart);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(DeviceError::io("accept the UART of QEMU")(error)),
        }
        if matches!(child.try_wait(), Ok(Some(_))) {
            return Err(DeviceError::Ended { awaited, log: files.log() });
        }
        if Instant::now() > deadline {
            return Err(DeviceError::Timeout { awaited, timeout, log: files.log() });
        }
        thread::sleep(POLL);
    }
}

/// Ends the process if it has not ended yet; failing to is no reason to fail.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Qemu {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Read for Qemu {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.uart.read(buffer)
    }
}

impl Write for Qemu {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.uart.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.uart.flush()
    }
}

impl Transport for Qemu {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.uart.set_timeout(timeout)
    }

    fn log(&mut self) -> Log {
        self.files.log()
    }
}
