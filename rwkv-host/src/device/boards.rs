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
    /// FE310, an RV32IMAC core with 16 KB of RAM.
    SifiveE,
    /// QEMU's own RISC-V board, with an RV32IMAFC core.
    Virt,
    /// LM3S6965, a Cortex-M3 with 64 KB of RAM and the image on an SD card.
    Lm3s6965Evb,
    /// AST1030, a Cortex-M4F with the image in a SPI NOR.
    Ast1030Evb,
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
    /// Bytes of RAM, and of those the arena's, as in its `memory.x`.
    pub(super) ram: u32,
    pub(super) arena: u32,
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
    /// The same, by way of an ELF file for a RISC-V core: the emulator loads no raw file that is
    /// larger than the board's RAM.
    RiscvElf { address: u32, room: usize },
    /// An SD card from its first sector on. The emulator wants cards of a power of two.
    Sd { room: usize },
    /// A flash chip on SPI, from its first byte on.
    Nor { room: usize },
}

impl Medium {
    /// Bytes of the largest image.
    pub(super) const fn room(self) -> usize {
        match self {
            Self::Memory { room, .. }
            | Self::RiscvElf { room, .. }
            | Self::Sd { room }
            | Self::Nor { room } => room,
        }
    }
}

const ARM: Emulator = Emulator { program: "qemu-system-arm", package: "qemu-system-arm" };
const RISCV: Emulator = Emulator { program: "qemu-system-riscv32", package: "qemu-system-misc" };
/// An instruction takes a nanosecond of the emulated time.
const COUNTED: &[&str] = &["-icount", "shift=0"];

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

const MPS2_AN386: Facts = Facts {
    name: "mps2-an386",
    target: "thumbv7em-none-eabihf",
    emulator: ARM,
    arguments: COUNTED,
    image: Medium::Memory { address: 0x0008_0000, room: 0x0038_0000 },
    ram: 4 * MIB,
    arena: MIB,
    greets: false,
};

impl QemuBoard {
    /// Every board there is.
    pub const ALL: [Self; 9] = [
        Self::Mps2An386,
        Self::Mps2An500,
        Self::Mps2An505,
        Self::NetduinoPlus2,
        Self::Microbit,
        Self::SifiveE,
        Self::Virt,
        Self::Lm3s6965Evb,
        Self::Ast1030Evb,
    ];

    /// Its name, in QEMU and in the tree.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The Rust target of its firmware.
    pub const fn target(self) -> &'static str {
        self.facts().target
    }

    /// The program that emulates it.
    pub const fn emulator(self) -> &'static str {
        self.facts().emulator.program
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
                ram: 128 * KIB,
                arena: 112 * KIB,
                greets: true,
                ..MPS2_AN386
            },
            Self::Microbit => Facts {
                name: "microbit",
                target: "thumbv6m-none-eabi",
                image: Medium::Memory { address: 0x0001_8800, room: 0x0002_7800 },
                ram: 16 * KIB,
                arena: 7 * KIB,
                ..MPS2_AN386
            },
            Self::SifiveE => Facts {
                name: "sifive_e",
                target: "riscv32imac-unknown-none-elf",
                emulator: RISCV,
                image: Medium::RiscvElf { address: 0x2044_0000, room: 0x00bc_0000 },
                ram: 16 * KIB,
                arena: 7 * KIB,
                ..MPS2_AN386
            },
            Self::Virt => Facts {
                name: "virt",
                target: "riscv32imafc-unknown-none-elf",
                emulator: RISCV,
                // No boot loader, and no floats but binary32.
                arguments: &["-icount", "shift=0", "-bios", "none", "-cpu", "rv32,d=off"],
                image: Medium::Memory { address: 0x8008_0000, room: 0x03f8_0000 },
                ram: 16 * MIB,
                arena: 8 * MIB,
                greets: true,
            },
            Self::Lm3s6965Evb => Facts {
                name: "lm3s6965evb",
                target: "thumbv7m-none-eabi",
                image: Medium::Sd { room: 1 << 31 },
                ram: 64 * KIB,
                arena: 52 * KIB,
                ..MPS2_AN386
            },
            Self::Ast1030Evb => Facts {
                name: "ast1030-evb",
                image: Medium::Nor { room: 4 << 20 },
                ram: 128 * KIB,
                arena: 112 * KIB,
                greets: true,
                ..MPS2_AN386
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{super::rp2040, *};

    /// The number behind `name` and an equals sign, in the notation of linker scripts.
    fn number(script: &str, name: &str) -> u32 {
        let (_, behind) = script.split_once(name).expect(name);
        let text = behind.trim_start_matches([' ', '=']);
        let text = &text[..text.find(|letter: char| !letter.is_alphanumeric()).expect(name)];
        let (digits, unit) = match text.strip_suffix('K') {
            Some(digits) => (digits, KIB),
            None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, MIB)),
        };
        unit * match digits.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).expect(name),
            None => digits.parse().expect(name),
        }
    }

    /// Compares RAM, arena and, where the image lies in memory, its address and room with the
    /// memory map of a board.
    fn compare(name: &str, ram: u32, arena: u32, image: Option<(u32, usize)>) {
        let path = format!("../rwkv-embedded/boards/{name}/memory.x");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
        let script = fs::read_to_string(script).expect(&path);
        let (_, of_ram) = script.split_once("\n  RAM ").expect(&path);
        assert_eq!(number(of_ram, "LENGTH"), ram, "{path}");
        assert_eq!(number(&script, "_arena_size"), arena, "{path}");
        if let Some(image) = image {
            let [start, end] = ["_image_start", "_image_end"].map(|name| number(&script, name));
            assert_eq!((start, (end - start) as usize), image, "{path}");
        }
    }

    #[test]
    fn the_table_and_the_memory_maps_agree() {
        for board in QemuBoard::ALL {
            let facts = board.facts();
            let image = match facts.image {
                Medium::Memory { address, room } | Medium::RiscvElf { address, room } => {
                    Some((address, room))
                }
                _ => None,
            };
            compare(board.name(), facts.ram, facts.arena, image);
        }
        let image = (rp2040::FLASH + rp2040::IMAGE as u32, rp2040::SIZE - rp2040::IMAGE);
        compare(rp2040::NAME, rp2040::RAM, rp2040::ARENA, Some(image));
    }
}
