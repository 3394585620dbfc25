//! The emulated boards: what is particular to each, in one table.

/// A board that an emulator runs and for which there is firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QemuBoard {
    /// Arm MPS2 with a Cortex-M4F.
    Mps2An386,
    /// Arm MPS2 with a Cortex-M7.
    Mps2An500,
    /// Arm MPS2+ with a Cortex-M33.
    Mps2An505,
    /// STM32F405, a Cortex-M4F with 128 KB of RAM.
    NetduinoPlus2,
    /// nRF51822, a Cortex-M0 with 16 KB of RAM.
    Microbit,
}

/// What the tools know of a board.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Its name, in QEMU and in the tree.
    pub(super) name: &'static str,
    /// The Rust target of its firmware.
    pub(super) target: &'static str,
    pub(super) emulator: Emulator,
    /// What the emulator is told beside the machine's name.
    pub(super) arguments: &'static [&'static str],
    pub(super) image: Medium,
    /// Whether its emulated UART drops what comes before it is switched on. The firmware then
    /// sends an empty frame, a zero byte, when it has done so.
    pub(super) greets: bool,
}

/// A program that emulates boards, and the Debian package that it comes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Emulator {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
}

/// How a board gets at its image.
#[derive(Debug, Clone, Copy)]
pub(super) enum Medium {
    /// Memory from this address on, with room for so many bytes.
    Memory { address: u32, room: usize },
}

impl Medium {
    /// Bytes of the largest image.
    pub(super) const fn room(self) -> usize {
        match self {
            Self::Memory { room, .. } => room,
        }
    }
}

const ARM: Emulator = Emulator { program: "qemu-system-arm", package: "qemu-system-arm" };
/// An instruction takes a nanosecond of the emulated time.
const COUNTED: &[&str] = &["-icount", "shift=0"];

const MPS2_AN386: Facts = Facts {
    name: "mps2-an386",
    target: "thumbv7em-none-eabihf",
    emulator: ARM,
    arguments: COUNTED,
    image: Medium::Memory { address: 0x0008_0000, room: 0x0038_0000 },
    greets: false,
};

impl QemuBoard {
    /// Every board there is.
    pub const ALL: [Self; 5] =
        [Self::Mps2An386, Self::Mps2An500, Self::Mps2An505, Self::NetduinoPlus2, Self::Microbit];

    /// Its name, in QEMU and in the tree.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The Rust target of its firmware.
    pub const fn target(self) -> &'static str {
        self.facts().target
    }

    /// Bytes of the largest image that its firmware has room for.
    pub const fn image_room(self) -> usize {
        self.facts().image.room()
    }

    pub(super) const fn facts(self) -> Facts {
        match self {
            Self::Mps2An386 => MPS2_AN386,
            Self::Mps2An500 => Facts { name: "mps2-an500", ..MPS2_AN386 },
            Self::Mps2An505 => Facts {
                name: "mps2-an505",
                target: "thumbv8m.main-none-eabihf",
                image: Medium::Memory { address: 0x1008_0000, room: 0x0038_0000 },
                ..MPS2_AN386
            },
            Self::NetduinoPlus2 => Facts {
                name: "netduinoplus2",
                image: Medium::Memory { address: 0x0804_0000, room: 0x000c_0000 },
                greets: true,
                ..MPS2_AN386
            },
            Self::Microbit => Facts {
                name: "microbit",
                target: "thumbv6m-none-eabi",
                image: Medium::Memory { address: 0x0002_4000, room: 0x0001_c000 },
                ..MPS2_AN386
            },
        }
    }
}
