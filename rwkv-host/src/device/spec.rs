//! Which device, in words.

use std::{fmt, iter, str::FromStr};

use rwkv_core::exec::Written;

use super::{NotASerial, QemuBoard, Serial, rp2040};

/// A device that `--device` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// The agent in a thread of this process.
    #[default]
    Sim,
    /// The agent's firmware for this board in QEMU.
    Qemu(QemuBoard),
    /// The agent's firmware for the RP2040 in the simulator rp2040js.
    Rp2040js,
}

impl DeviceSpec {
    /// Every device there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let boards = QemuBoard::ALL.map(Self::Qemu);
        iter::once(Self::Sim).chain(boards).chain(iter::once(Self::Rp2040js))
    }

    /// Bytes of RAM that the firmware's arena leaves to static variables and the stack. `None` for
    /// the simulated device, which has the memory of this machine.
    pub const fn left_by_arena(self) -> Option<u32> {
        match self {
            Self::Sim => None,
            Self::Qemu(board) => Some(board.facts().ram - board.facts().arena),
            Self::Rp2040js => Some(rp2040::RAM - rp2040::ARENA),
        }
    }
}

impl DeviceSpec {
    /// The board's name in the tree, if it is one.
    pub const fn board(self) -> Option<&'static str> {
        match self {
            Self::Sim => None,
            Self::Qemu(board) => Some(board.name()),
            Self::Rp2040js => Some(rp2040::NAME),
        }
    }

    /// Bytes of the largest image that its firmware has room for, if it is a board.
    pub const fn image_room(self) -> Option<usize> {
        match self {
            Self::Sim => None,
            Self::Qemu(board) => Some(board.image_room()),
            Self::Rp2040js => Some(rp2040::ROOM),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sim => f.write_str("sim"),
            Self::Qemu(board) => write!(f, "qemu:{}", board.name()),
            Self::Rp2040js => f.write_str("rp2040js"),
        }
    }
}

/// What `--device` names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceName {
    /// A device that is started for it.
    Started(DeviceSpec),
    /// A board on a serial port.
    Serial(Serial),
}

impl Default for DeviceName {
    fn default() -> Self {
        Self::Started(DeviceSpec::default())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(spec) => spec.fmt(f),
            Self::Serial(port) => write!(f, "serial:{port}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.strip_prefix("serial:") {
            Some(port) => {
                port.parse().map(Self::Serial).map_err(|error: NotASerial| error.to_string())
            }
            None => name
                .parse()
                .map(Self::Started)
                .map_err(|error: UnknownDevice| format!("{error} serial:PORT[@BAUD]")),
        }
    }
}

/// There is no such device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownDevice(String);

impl fmt::Display for UnknownDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no device `{}`; there are:", self.0)?;
        DeviceSpec::all().try_for_each(|spec| write!(f, " {spec}"))
    }
}

impl std::error::Error for UnknownDevice {}

impl FromStr for DeviceSpec {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        let found = Self::all().find(|spec| spec.to_string() == name);
        found.ok_or_else(|| UnknownDevice(name.to_owned()))
    }
}

/// One bit of the flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// Byte of the image.
    pub offset: usize,
    /// Bit of that byte, 0 being the lowest.
    pub bit: u8,
}

/// Not a bit of the flash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotABit(String);

impl fmt::Display for NotABit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a bit: give OFFSET or OFFSET:BIT with a bit in 0..=7", self.0)
    }
}

impl std::error::Error for NotABit {}

/// `OFFSET` or `OFFSET:BIT`; the offset is decimal, or hexadecimal after `0x`.
impl FromStr for Flip {
    type Err = NotABit;

    fn from_str(text: &str) -> Result<Self, NotABit> {
        let (offset, bit) = text.split_once(':').unwrap_or((text, "0"));
        let offset = match offset.strip_prefix("0x") {
            Some(hex) => usize::from_str_radix(hex, 16),
            None => offset.parse(),
        };
        match (offset, bit.parse()) {
            (Ok(offset), Ok(bit @ 0..=7)) => Ok(Self { offset, bit }),
            _ => Err(NotABit(text.to_owned())),
        }
    }
}

/// A bit that is computed wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The token that is wrong; without one, all are.
    pub token: Option<u32>,
    /// What is wrong.
    pub written: Written,
    /// Which of its values.
    pub element: u32,
    /// Bit of that value, 0 being the lowest.
    pub bit: u8,
}

/// Not a bit of what is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAFault(String);

impl fmt::Display for NotAFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = "[TOKEN@]SECTION:OPERATION:ELEMENT[:BIT]";
        write!(f, "`{}` is not a bit of what is computed: give {form}", self.0)?;
        f.write_str(", with 0 for the embedding, then the layers from 1 on, then the head, and a bit in 0..=31")
    }
}

impl std::error::Error for NotAFault {}

/// `[TOKEN@]SECTION:OPERATION:ELEMENT[:BIT]`, all decimal.
impl FromStr for Fault {
    type Err = NotAFault;

    fn from_str(text: &str) -> Result<Self, NotAFault> {
        let parse = || {
            let (token, place) = match text.split_once('@') {
                Some((token, place)) => (Some(token.parse().ok()?), place),
                None => (None, text),
            };
            let mut parts = place.split(':');
            let written = Written {
                section: parts.next()?.parse().ok()?,
                operation: parts.next()?.parse().ok()?,
            };
            let element = parts.next()?.parse().ok()?;
            let bit = parts.next().map_or(Some(0), |bit| bit.parse().ok())?;
            (bit < 32 && parts.next().is_none()).then_some(Self { token, written, element, bit })
        };
        parse().ok_or_else(|| NotAFault(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_found_by_its_name() {
        for spec in DeviceSpec::all() {
            assert_eq!(spec.to_string().parse(), Ok(spec));
        }
        let error = "qemu:toaster".parse::<DeviceSpec>().unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no device `qemu:toaster`; there are: sim qemu:mps2-an386 qemu:mps2-an500 \
             qemu:mps2-an505 qemu:netduinoplus2 qemu:microbit qemu:sifive_e qemu:virt \
             qemu:lm3s6965evb qemu:ast1030-evb rp2040js"
        );
    }

    #[test]
    fn faults_are_read() {
        let fault = Fault {
            token: None,
            written: Written { section: 2, operation: 7 },
            element: 13,
            bit: 0,
        };
        assert_eq!("2:7:13".parse(), Ok(fault));
        assert_eq!("97@2:7:13:31".parse(), Ok(Fault { token: Some(97), bit: 31, ..fault }));
        for text in ["", "2", "2:7", "2:7:13:32", "2:7:13:1:1", "@2:7:13", "x@2:7:13", "2:-7:13"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }

    #[test]
    fn bits_are_read() {
        assert_eq!("12".parse(), Ok(Flip { offset: 12, bit: 0 }));
        assert_eq!("0x1f:7".parse(), Ok(Flip { offset: 31, bit: 7 }));
        for text in ["", "x", "1:8", "1:", "-1", "0x"] {
            assert!(text.parse::<Flip>().is_err(), "{text}");
        }
    }
}
