//! An emulator in a process of its own: its UART is a socket, its output goes to files.
//!
//! The socket is one of TCP, for emulators that drop a byte which the socket does not take: of a
//! Unix socket, whose buffer counts every write for near a kilobyte, a few hundred bytes fill it.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{DeviceError, Transport, boards::Emulator, error::Log, log};

/// Where semihosting writes the firmware's log.
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// How often a starting emulator is looked after.
const POLL: Duration = Duration::from_millis(5);

/// What an emulator and this process exchange beside the UART.
pub(super) struct Files {
    dir: TempDir,
    /// Where the emulator connects its UART.
    listener: TcpListener,
    /// The firmware: it holds the strings of its log.
    elf: PathBuf,
}

impl Files {
    /// A folder for an emulator of this firmware.
    pub(super) fn new(elf: PathBuf) -> Result<Self, DeviceError> {
        let dir = TempDir::with_prefix("rwkv-emulator-")
            .map_err(DeviceError::io("make a temporary directory"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(DeviceError::io("open a socket for the UART"))?;
        Ok(Self { dir, listener, elf })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The port of this machine that the emulator connects its UART to.
    pub(super) fn port(&self) -> Result<u16, DeviceError> {
        let address = self.listener.local_addr();
        Ok(address.map_err(DeviceError::io("find the socket of the UART"))?.port())
    }

    /// Writes what the emulator reads, and says where.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, DeviceError> {
        let path = self.path(name);
        fs::write(&path, bytes)
            .map_err(DeviceError::io(format!("write the {name} for the emulator")))?;
        Ok(path)
    }

    fn create(&self, name: &str) -> Result<fs::File, DeviceError> {
        fs::File::create(self.path(name))
            .map_err(DeviceError::io("make a file for the emulator's output"))
    }

    /// What the emulator complained about, then what the firmware logged.
    fn log(&self) -> Log {
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        let mut text = String::from_utf8_lossy(&read(&self.path(STDERR))).into_owned();
        text.push_str(&log::decode(&read(&self.elf), &read(&self.path(STDOUT))));
        Log(text)
    }
}

/// A running emulator; ends when dropped.
pub(super) struct Process {
    uart: TcpStream,
    child: Child,
    files: Files,
}

impl Process {
    /// Starts an emulator and waits for its UART.
    pub(super) fn start(
        emulator: Emulator,
        command: &mut Command,
        files: Files,
        timeout: Duration,
    ) -> Result<Self, DeviceError> {
        command.stdin(Stdio::null()).stdout(files.create(STDOUT)?).stderr(files.create(STDERR)?);
        let Emulator { program, package } = emulator;
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DeviceError::NoEmulator { program, package },
            _ => DeviceError::io(format!("start {program}"))(error),
        })?;
        match accept(&files, &mut child, timeout) {
            Ok(uart) => Ok(Self { uart, child, files }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Waits for the firmware to say that it listens.
    pub(super) fn greeting(&mut self, timeout: Duration) -> Result<(), DeviceError> {
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

fn accept(files: &Files, child: &mut Child, timeout: Duration) -> Result<TcpStream, DeviceError> {
    let awaited = "the start of the emulator";
    let deadline = Instant::now() + timeout;
    loop {
        match files.listener.accept() {
            Ok((uart, _)) => {
                let set = uart.set_nonblocking(false).and_then(|()| uart.set_nodelay(true));
                set.map_err(DeviceError::io("set up the UART"))?;
                return Ok(uart);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(DeviceError::io("accept the UART of the emulator")(error)),
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

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Read for Process {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.uart.read(buffer)
    }
}

impl Write for Process {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.uart.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.uart.flush()
    }
}

impl Transport for Process {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.uart.set_read_timeout(Some(timeout))
    }

    fn log(&mut self) -> Log {
        self.files.log()
    }
}
