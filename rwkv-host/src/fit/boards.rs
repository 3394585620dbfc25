//! The boards that there is firmware for, as parts that one can buy: memories, clock, and how fast
//! weights come. Figures are the most that the data sheet allows; what an emulator adds, such as
//! more memory than the part has, does not count.

use super::{Core, Medium};
use crate::device::DeviceSpec;

/// A board or part.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    /// Its name in the tree.
    pub name: &'static str,
    /// The part.
    pub part: &'static str,
    /// Its core.
    pub core: Core,
    /// Cycles per second at most; `None` where the machine exists in an emulator only.
    pub clock: Option<f64>,
    /// Bytes of memory for the firmware, and for the image where it lies in place.
    pub flash: u64,
    /// Whether that memory is the RAM: what the firmware fills is missing there.
    pub runs_from_ram: bool,
    /// Bytes of RAM in one piece.
    pub ram: u64,
    /// Where the image lies.
    pub image: Place,
    /// Where the figures come from.
    pub source: &'static str,
}

/// Where an image lies.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// In the flash, beside the firmware, where the core can address it.
    InPlace {
        /// Bytes per second; `None` where nobody says.
        bandwidth: Option<f64>,
    },
    /// On a medium of its own, through buffers.
    Streamed {
        /// What it is.
        name: &'static str,
        /// Bytes of it.
        room: u64,
        /// How it is read.
        medium: Medium,
        /// The most buffers that are of use: two, or one where the core itself moves the bytes.
        buffers: u8,
    },
}

impl Place {
    /// The most buffers of a stream that are of use there; of an image in place, of a chip beside
    /// it.
    pub const fn buffers(&self) -> u8 {
        match self {
            Self::InPlace { .. } => 2,
            Self::Streamed { buffers, .. } => *buffers,
        }
    }
}

const KB: u64 = 1024;
const MB: u64 = 1024 * KB;
const MHZ: f64 = 1e6;

/// A card on SPI at 25 MHz, the most of its default speed mode. Drivers ask for each block by
/// itself (CMD17): a command of six bytes, a response, a token and a CRC at least, 12 bytes to 512.
/// What the card needs to find a block comes on top and is not known.
pub const SD_CARD: Medium = Medium {
    unit: 512,
    bandwidth: 25.0 * MHZ / 8.0 * 512.0 / (512.0 + 12.0),
    latency: 0.0,
    per_byte: 0.0,
};

/// A NOR flash on SPI with a line each way at 25 MHz, the most that the read command 03h of most
/// chips allows; the command and its address are four bytes.
pub const SPI_NOR: Medium =
    Medium { unit: 4, bandwidth: 25.0 * MHZ / 8.0, latency: 32.0 / (25.0 * MHZ), per_byte: 0.0 };

/// The card of `lm3s6965evb`, whose core moves every byte through the SPI port. Of a random model
/// of version 7 in `int8` its agent counted 14.8 million instructions and 672,256 bytes per token;
/// the table of costs says 7.19 million. What is left moves bytes and compares checksums.
const SD_BY_CORE: Medium = Medium { per_byte: 11.3, ..SD_CARD };

/// The chip of `ast1030-evb`, whose core moves every byte through the window of the controller. In
/// the same way: 5.4 million instructions, 1,434,168 bytes, 2.62 million.
const NOR_BY_CORE: Medium = Medium { per_byte: 1.94, ..SPI_NOR };

const MPS2_AN386: Board = Board {
    name: "mps2-an386",
    part: "Arm MPS2 with AN386",
    core: Core::M4,
    clock: Some(25.0 * MHZ),
    flash: 4 * MB,
    runs_from_ram: false,
    ram: 4 * MB,
    image: Place::InPlace { bandwidth: Some(4.0 * 25.0 * MHZ) },
    source: "Arm AN386: 25 MHz, SSRAM of 4 MB without wait states for code, as much for data; a word per cycle",
};

/// Every board.
pub const BOARDS: [Board; 12] = [
    MPS2_AN386,
    Board {
        name: "mps2-an500",
        part: "Arm MPS2 with AN500",
        core: Core::M7,
        source: "Arm AN500: as AN386",
        ..MPS2_AN386
    },
    Board {
        name: "mps2-an505",
        part: "Arm MPS2+ with AN505",
        core: Core::M33,
        clock: Some(20.0 * MHZ),
        image: Place::InPlace { bandwidth: Some(4.0 * 20.0 * MHZ) },
        source: "Arm AN505: 20 MHz, SSRAM of 4 MB without wait states for code, as much for data",
        ..MPS2_AN386
    },
    Board {
        name: "netduinoplus2",
        part: "STM32F405",
        core: Core::M4,
        clock: Some(168.0 * MHZ),
        flash: MB,
        runs_from_ram: false,
        ram: 128 * KB,
        image: Place::InPlace { bandwidth: Some(16.0 * 168.0 * MHZ / 6.0) },
        source: "ST DS8626: 168 MHz, 1 MB of flash, 112 + 16 KB of RAM in one piece; RM0090: 16 bytes per read, 5 wait states",
    },
    Board {
        name: "microbit",
        part: "nRF51822",
        core: Core::M0,
        clock: Some(16.0 * MHZ),
        flash: 256 * KB,
        runs_from_ram: false,
        ram: 16 * KB,
        image: Place::InPlace { bandwidth: Some(4.0 * 16.0 * MHZ) },
        source: "Nordic nRF51822 PS: 16 MHz, 256 KB of flash without wait states, 16 KB of RAM",
    },
    Board {
        name: "lm3s6965evb",
        part: "LM3S6965",
        core: Core::M3,
        clock: Some(50.0 * MHZ),
        flash: 256 * KB,
        runs_from_ram: false,
        ram: 64 * KB,
        image: Place::Streamed {
            name: "SD card",
            room: 4 * KB * MB,
            medium: SD_BY_CORE,
            buffers: 1,
        },
        source: "TI LM3S6965: 50 MHz, 256 KB of flash, 64 KB of RAM, SSI at half of the clock; SD Physical Layer: 25 MHz",
    },
    Board {
        name: "ast1030-evb",
        part: "AST1030",
        core: Core::M4,
        clock: Some(200.0 * MHZ),
        flash: 768 * KB,
        runs_from_ram: true,
        ram: 768 * KB,
        image: Place::Streamed { name: "SPI NOR", room: 4 * MB, medium: NOR_BY_CORE, buffers: 1 },
        source: "ASPEED AST1030: 200 MHz, 768 KB of SRAM for code and data; SST25VF032B: 4 MB, command 03h at 25 MHz: the chip is QEMU's choice",
    },
    Board {
        name: "sifive_e",
        part: "FE310-G000",
        core: Core::Rv32imac,
        clock: Some(320.0 * MHZ),
        flash: 12 * MB,
        runs_from_ram: false,
        ram: 16 * KB,
        image: Place::InPlace { bandwidth: Some(4.0 * 80.0 * MHZ / 8.0) },
        source: "SiFive FE310-G000: 320 MHz, 16 KB of RAM; IS25LP128 of the HiFive1: 16 MB, of which the boot loader has 4, up to 133 MHz; derived: four lines at 80 MHz, the most of that which an even divider of the clock gives",
    },
    Board {
        name: "virt",
        part: "an emulator's machine",
        core: Core::Rv32imafc,
        clock: None,
        flash: 128 * MB,
        runs_from_ram: true,
        ram: 128 * MB,
        image: Place::InPlace { bandwidth: None },
        source: "QEMU: 128 MB of RAM unless told; there is no such part",
    },
    Board {
        name: "rp2040",
        part: "RP2040",
        core: Core::M0,
        clock: Some(133.0 * MHZ),
        flash: 2 * MB,
        runs_from_ram: false,
        ram: 264 * KB,
        image: Place::InPlace { bandwidth: Some(4.0 * 66.5 * MHZ / 8.0) },
        source: "RP2040 data sheet: 133 MHz, 264 KB of RAM, Pico: 2 MB; derived: flash on four lines at half of the clock",
    },
    Board {
        name: "rp2350",
        part: "RP2350",
        core: Core::M33,
        clock: Some(150.0 * MHZ),
        flash: 4 * MB,
        runs_from_ram: false,
        ram: 520 * KB,
        image: Place::InPlace { bandwidth: Some(4.0 * 75.0 * MHZ / 8.0) },
        source: "RP2350 data sheet: 150 MHz, 520 KB of RAM, Pico 2: 4 MB; derived: flash on four lines at half of the clock. In place is what would be possible: the firmware that is built streams by DMA",
    },
    Board {
        name: "esp32-c3",
        part: "ESP32-C3FH4",
        core: Core::Rv32imc,
        clock: Some(160.0 * MHZ),
        flash: 4 * MB,
        runs_from_ram: false,
        ram: 313 * KB,
        image: Place::InPlace { bandwidth: Some(4.0 * 80.0 * MHZ / 8.0) },
        source: "ESP32-C3 data sheet: 160 MHz, 400 KB of RAM, 4 MB of flash on four lines at 80 MHz; 313 KB of RAM are what esp-hal 1.2 leaves beside cache, ROM and boot loader. In place is what would be possible: the firmware that is built streams block by block",
    },
];

/// The boards that no emulator runs.
const BUILT_ONLY: [&str; 2] = ["rp2350", "esp32-c3"];

impl Board {
    /// The board of that name.
    pub fn find(name: &str) -> Option<Self> {
        BOARDS.into_iter().find(|board| board.name == name)
    }

    /// Whether firmware for it runs in an emulator, or is built only.
    pub fn is_emulated(&self) -> bool {
        !BUILT_ONLY.contains(&self.name)
    }

    /// Bytes that the agent's firmware leaves to an image, if the tool can start it.
    pub fn agent_room(&self) -> Option<u64> {
        let device = DeviceSpec::all().find(|device| device.board() == Some(self.name))?;
        device.image_room().map(|room| room as u64)
    }
}

/// Every name, for a message.
pub(super) fn names() -> String {
    BOARDS.map(|board| board.name).join(", ")
}
