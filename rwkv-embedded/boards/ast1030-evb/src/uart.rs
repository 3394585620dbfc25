//! UART5 of the AST1030, a 16550 with a register in every fourth byte, without interrupts.

use core::{convert::Infallible, ptr};

use embedded_io::{ErrorType, Read, Write};

const fn register(index: usize) -> *mut u32 {
    (0x7e78_4000 + 4 * index) as *mut u32
}

const DATA: *mut u32 = register(0);
const LINE_CONTROL: *mut u32 = register(3);
const LINE_STATUS: *mut u32 = register(5);

const CONTROL_8_BITS: u32 = 3;
const STATUS_READY: u32 = 1 << 0;
const STATUS_ROOM: u32 = 1 << 5;

/// A blocking driver of UART5. The emulator holds bytes back until the last one has been read.
pub struct Uart(());

impl Uart {
    /// Sets the line up.
    ///
    /// # Safety
    /// To be called once: there is one UART5.
    pub unsafe fn new() -> Self {
        // SAFETY: a register of UART5, which nobody else uses.
        unsafe { ptr::write_volatile(LINE_CONTROL, CONTROL_8_BITS) };
        Self(())
    }

    fn status(&self) -> u32 {
        // SAFETY: a register of UART5, which this driver owns.
        unsafe { ptr::read_volatile(LINE_STATUS) }
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first_mut() else { return Ok(0) };
        while self.status() & STATUS_READY == 0 {}
        // SAFETY: a register of UART5, which this driver owns, and it holds a byte to take.
        *first = unsafe { ptr::read_volatile(DATA) } as u8;
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first() else { return Ok(0) };
        while self.status() & STATUS_ROOM == 0 {}
        // SAFETY: a register of UART5, which this driver owns, and it has room for a byte.
        unsafe { ptr::write_volatile(DATA, u32::from(*first)) };
        Ok(1)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
