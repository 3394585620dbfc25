//! A board on the desk: its agent on a serial port, the image in its flash already.

use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
    time::Duration,
};

use serialport::{ClearBuffer, SerialPort};

use super::{DeviceError, Transport};

/// Bits per second where none are given.
const BAUD: u32 = 115_200;

/// A serial port: `PORT` or `PORT@BAUD`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Serial {
    /// Its name, such as `/dev/ttyACM0`.
    pub port: String,
    /// Bits per second.
    pub baud: u32,
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.port, self.baud)
    }
}

/// Not a serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotASerial(String);

impl fmt::Display for NotASerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a serial port: give serial:PORT or serial:PORT@BAUD", self.0)
    }
}

impl std::error::Error for NotASerial {}

impl FromStr for Serial {
    type Err = NotASerial;

    fn from_str(text: &str) -> Result<Self, NotASerial> {
        let (port, baud) = match text.rsplit_once('@') {
            Some((port, baud)) => (port, baud.parse().ok()),
            None => (text, Some(BAUD)),
        };
        match baud {
            Some(baud) if baud > 0 && !port.is_empty() => Ok(Self { port: port.to_owned(), baud }),
            _ => Err(NotASerial(text.to_owned())),
        }
    }
}

/// The open port.
pub(super) struct Open(Box<dyn SerialPort>);

/// Opens it; what came before is dropped.
pub(super) fn open(serial: &Serial, timeout: Duration) -> Result<Open, DeviceError> {
    let port = serialport::new(&serial.port, serial.baud).timeout(timeout).open();
    let port = port.and_then(|port| port.clear(ClearBuffer::Input).map(|()| port));
    port.map(Open).map_err(|error| DeviceError::Serial { port: serial.port.clone(), error })
}

impl Read for Open {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Transport for Open {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        Ok(self.0.set_timeout(timeout)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rwkv_core::{Image, sampler::SamplerConfig};
    use rwkv_embedded::agent::protocol::ImageInfo;
    use serialport::TTYPort;

    use super::*;
    use crate::{
        convert::Weights,
        device::{Device, DeviceName, Options, sim},
        file::ImageFile,
        prompts::Case,
        trace::Trace,
        validate::{
            Expected, Finding, Host,
            tests::{MODEL, image},
            validate, validate_all,
        },
    };

    #[test]
    fn ports_are_read() {
        let port = |port: &str, baud| Ok(Serial { port: port.to_owned(), baud });
        assert_eq!("/dev/ttyACM0".parse(), port("/dev/ttyACM0", BAUD));
        assert_eq!("/dev/ttyUSB1@921600".parse(), port("/dev/ttyUSB1", 921_600));
        for text in ["", "@9600", "/dev/ttyACM0@", "/dev/ttyACM0@0", "/dev/ttyACM0@fast"] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
        let name: DeviceName = "serial:/dev/ttyACM0@9600".parse().unwrap();
        assert_eq!(name.to_string(), "serial:/dev/ttyACM0@9600");
        let error = "qemu:toaster".parse::<DeviceName>().unwrap_err().to_string();
        assert!(error.ends_with(" rp2040js serial:PORT[@BAUD]"), "{error}");
    }

    /// The agent behind a pseudo-terminal, in the middle of a frame when the host comes.
    fn on_a_port(image: &Image<'_>, host: impl FnOnce(&Serial)) {
        let (mut agent, mut here) = TTYPort::pair().unwrap();
        agent.set_timeout(Duration::from_secs(60)).unwrap();
        here.write_all(&[3, 1, 2]).unwrap();
        let port = here.name().unwrap();
        // A port is locked by who has opened it, and hangs up when nobody has.
        let _open = File::options().read(true).write(true).open(&port).unwrap();
        drop(here);
        let flash = ImageFile::new(image.bytes());
        let board = std::thread::spawn(move || {
            sim::serve(&flash, &flash, None, &mut agent);
            agent
        });
        host(&port.parse().unwrap());
        // Until here it holds its end: a board that halts leaves the line as it is.
        drop(board.join().unwrap());
    }

    #[test]
    fn an_agent_on_a_serial_port_is_found_and_agrees() {
        let Some(file) = image(MODEL, Weights::Int8) else { return };
        let image = file.open().unwrap();
        on_a_port(&image, |port| {
            let name = DeviceName::Serial(port.clone());
            let mut device = Device::named(&name, &image, &Options::default()).unwrap();
            let mut host = Host::stepwise(&image, SamplerConfig::GREEDY).unwrap();
            let verdict =
                validate(&mut device, &mut host, SamplerConfig::GREEDY, &[88, 58, 49], 5, |_| {})
                    .unwrap();
            assert!(verdict.is_equal(), "{verdict}");
            device.halt().unwrap();
        });
    }

    #[test]
    fn a_board_that_is_held_to_a_trace_needs_no_image_here() {
        let Some(file) = image(MODEL, Weights::Int8) else { return };
        let image = file.open().unwrap();
        let cases = [(0, vec![88, 58], 9), (1, vec![49], 0)]
            .map(|(number, tokens, generate)| Case::numbered(number, tokens, generate));
        let sampler = SamplerConfig { temperature: 0.8, seed: 2, ..SamplerConfig::GREEDY };
        let mut trace = Trace::record(&image, sampler.into(), &cases, |_| {}).unwrap();
        on_a_port(&image, |port| {
            let wait = Options::default().timeout;
            let mut device = Device::attached(port, &trace.image, wait).unwrap();
            let mut held_to = |trace: &Trace| {
                let expected = Expected::Golden { trace, host: None };
                validate_all(&mut device, expected, |_| {}).unwrap()
            };
            let found = held_to(&trace);
            assert!(found.is_equal() && found.tokens == 12, "{found}");
            assert!(found.to_string().contains(", which is not at hand"), "{found}");

            trace.prompts[1].digests[0].1 ^= 1;
            let found = held_to(&trace);
            let first = found.first().unwrap();
            assert_eq!((found.differing, first.name.as_str()), (1, "prompt 2"));
            assert_eq!(first.verdict.finding, Some(Finding::NoImage));
            assert!(found.to_string().contains("rwkv validate IMAGE --golden TRACE"), "{found}");
            let unknown = device.read_state().unwrap_err();
            assert!(matches!(unknown, DeviceError::UnknownState), "{unknown}");
            device.halt().unwrap();
        });

        on_a_port(&image, |port| {
            let other = ImageInfo { identity: 1, ..trace.image };
            let error = Device::attached(port, &other, Options::default().timeout).unwrap_err();
            assert!(matches!(error, DeviceError::OtherImage { host: 1, .. }), "{error}");
            let name = DeviceName::Serial(port.clone());
            Device::named(&name, &image, &Options::default()).unwrap().halt().unwrap();
        });
    }

    #[test]
    fn a_port_that_is_not_there_is_named() {
        let Some(file) = image(MODEL, Weights::Int8) else { return };
        let image = file.open().unwrap();
        let name = "serial:/dev/there-is-none".parse().unwrap();
        let error = Device::named(&name, &image, &Options::default()).unwrap_err().to_string();
        assert!(error.starts_with("cannot open the serial port /dev/there-is-none: "), "{error}");
    }
}
