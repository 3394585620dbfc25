//! The flash controller of the AST1030 in user mode: what the core writes to the window of a chip
//! goes out to it byte by byte, and what is read of the window is what the chip answers.

use core::ptr;

use embedded_storage::nor_flash::{ErrorType, NorFlashErrorKind, ReadNorFlash};

/// Bytes of the chip, an SST25VF032B.
pub const CAPACITY: u32 = 4 << 20;
const JEDEC_ID: [u8; 3] = [0xbf, 0x25, 0x4a];

/// Registers: which chips may be written to, and how the first is accessed.
const CONF: *mut u32 = 0x7e62_0000 as *mut u32;
const CTRL0: *mut u32 = 0x7e62_0010 as *mut u32;
/// Commands are writes as well.
const CONF_WRITE0: u32 = 1 << 16;
const CTRL_USER: u32 = 3;
const CTRL_DESELECTED: u32 = 1 << 2;

/// The window of the first chip. Addresses in it mean nothing in user mode.
const WINDOW: usize = 0x8000_0000;

const READ_ID: u8 = 0x9f;
const READ: u8 = 0x03;

/// The controller with its first chip.
pub struct Fmc {
    /// Whether the chip is the one that this driver knows.
    known: bool,
}

impl Fmc {
    /// Takes the controller into user mode and asks the chip for its name.
    ///
    /// # Safety
    /// To be called once: there is one such controller.
    pub unsafe fn new() -> Self {
        // SAFETY: registers of the controller, which nobody else uses.
        unsafe {
            ptr::write_volatile(CONF, ptr::read_volatile(CONF) | CONF_WRITE0);
            ptr::write_volatile(CTRL0, CTRL_USER | CTRL_DESELECTED);
        }
        let mut fmc = Self { known: false };
        let mut id = [0; 4];
        fmc.transfer(&[READ_ID], &mut id);
        fmc.known = id.starts_with(&JEDEC_ID);
        fmc
    }

    /// Sends a command and reads the answer, of whole words.
    fn transfer(&mut self, command: &[u8], answer: &mut [u8]) {
        let window = ptr::with_exposed_provenance_mut::<u8>(WINDOW);
        // SAFETY: registers and window of the controller, which this driver owns.
        unsafe {
            ptr::write_volatile(CTRL0, CTRL_USER);
            for byte in command {
                ptr::write_volatile(window, *byte);
            }
            for word in answer.as_chunks_mut::<4>().0 {
                // The byte that comes first is the lowest.
                *word = ptr::read_volatile(window.cast::<u32>()).to_le_bytes();
            }
            ptr::write_volatile(CTRL0, CTRL_USER | CTRL_DESELECTED);
        }
    }
}

impl ErrorType for Fmc {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Fmc {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        let end = (offset as usize).checked_add(bytes.len());
        if !self.known {
            return Err(NorFlashErrorKind::Other);
        }
        if end.is_none_or(|end| end > self.capacity()) {
            return Err(NorFlashErrorKind::OutOfBounds);
        }
        if !(offset as usize | bytes.len()).is_multiple_of(Self::READ_SIZE) {
            return Err(NorFlashErrorKind::NotAligned);
        }
        let [_, high, middle, low] = offset.to_be_bytes();
        self.transfer(&[READ, high, middle, low], bytes);
        Ok(())
    }

    fn capacity(&self) -> usize {
        CAPACITY as usize
    }
}
