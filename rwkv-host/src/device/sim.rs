//! The simulated device: the agent of the firmware, in a thread.

use std::{
    env::consts::ARCH,
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Instant,
};

use embedded_io::ErrorKind;
use rwkv_core::{Image, exec::Written};
use rwkv_embedded::agent::{Agent, Board, protocol::Tick};

use super::{DeviceError, Fault, Flip, Options};
use crate::file::ImageFile;

/// Starts the agent over a copy of the flash; it ends when the returned end is dropped.
pub(super) fn start(flash: &[u8], options: &Options) -> Result<UnixStream, DeviceError> {
    let intact = ImageFile::new(flash);
    let mut flash = intact.clone();
    if let Some(Flip { offset, bit }) = options.flip {
        let bytes = flash.bytes_mut();
        let len = bytes.len();
        let byte = bytes.get_mut(offset).ok_or(DeviceError::FlipRange { offset, len })?;
        *byte ^= 1 << (bit % 8);
    }
    let (host, port) = UnixStream::pair().map_err(DeviceError::io("open a pair of sockets"))?;
    let fault = options.fault;
    let agent = move || serve(&intact, &flash, fault, port);
    let thread = thread::Builder::new().name("rwkv-sim".into());
    thread.spawn(agent).map_err(DeviceError::io("start the simulated device"))?;
    Ok(host)
}

/// Runs the agent on a line. The image is checked as it was, and computed with as it is.
pub(super) fn serve(
    intact: &ImageFile,
    flash: &ImageFile,
    fault: Option<Fault>,
    line: impl Read + Write,
) {
    let board = Host { start: Instant::now(), fault };
    let checked = Image::open_prefix(intact.bytes());
    let words = checked
        .as_ref()
        .map_or(0, |image| image.header().state_words() + image.header().scratch_words as usize);
    let mut arena = vec![0.0; words];
    let mut agent = match &checked {
        Ok(image) if intact.bytes() != flash.bytes() => {
            Agent::checked(board, image, flash.bytes(), &mut arena)
        }
        _ => Agent::new(board, flash.bytes(), &mut arena),
    };
    // The agent ends with the line: what it says then, nobody hears.
    let _ = agent.run(Port(line));
}

/// This host as a board: it counts time, not instructions.
pub(super) struct Host {
    start: Instant,
    fault: Option<Fault>,
}

impl Board for Host {
    const NAME: &'static str = "sim";
    const CORE: &'static str = ARCH;
    const FAULTY: bool = true;

    fn now(&mut self) -> u32 {
        self.start.elapsed().as_nanos() as u32
    }

    fn tick(&self) -> Tick {
        Tick::Nanoseconds(1)
    }

    fn wrote(&mut self, token: u32, written: Written, first: u32, values: &mut [f32]) {
        let Some(fault) = self.fault else { return };
        let is_there = fault.written == written && fault.token.is_none_or(|at| at == token);
        let value = fault.element.checked_sub(first).and_then(|at| values.get_mut(at as usize));
        if let Some(value) = value.filter(|_| is_there) {
            *value = f32::from_bits(value.to_bits() ^ 1 << (fault.bit % 32));
        }
    }
}

/// The agent's end of the link.
struct Port<L>(L);

impl<L> embedded_io::ErrorType for Port<L> {
    type Error = ErrorKind;
}

impl<L: Read> embedded_io::Read for Port<L> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.0.read(buffer).map_err(|_| ErrorKind::BrokenPipe)
    }
}

impl<L: Write> embedded_io::Write for Port<L> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.write(bytes).map_err(|_| ErrorKind::BrokenPipe)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.0.flush().map_err(|_| ErrorKind::BrokenPipe)
    }
}
