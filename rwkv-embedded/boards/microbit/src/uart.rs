//! The UART of the nRF51822, without interrupts.

use core::{convert::Infallible, ptr};

use embedded_io::{ErrorType, Read, Write};

/// Registers, as in the reference manual of the nRF51 series.
const fn register(offset: usize) -> *mut u32 {
    (0x4000_2000 + offset) as *mut u32
}

const TASKS_START_RX: *mut u32 = register(0x000);
const TASKS_START_TX: *mut u32 = register(0x008);
const EVENTS_RX_READY: *mut u32 = register(0x108);
const EVENTS_TX_READY: *mut u32 = register(0x11c);
const ENABLE: *mut u32 = register(0x500);
const RXD: *mut u32 = register(0x518);
const TXD: *mut u32 = register(0x51c);

const ENABLED: u32 = 4;

/// A blocking driver of the UART. The emulator holds bytes back until there is room for them.
#[derive(Debug)]
pub struct Uart(());

impl Uart {
    /// Switches the UART on, for both directions.
    ///
    /// # Safety
    /// To be called once: there is one UART.
    pub unsafe fn new() -> Self {
        // SAFETY: the registers of the UART lie at these addresses, and nobody else uses them.
        unsafe {
            ptr::write_volatile(ENABLE, ENABLED);
            ptr::write_volatile(TASKS_START_TX, 1);
            ptr::write_volatile(TASKS_START_RX, 1);
        }
        Self(())
    }

    /// Waits for an event and takes it back.
    fn wait(&mut self, event: *mut u32) {
        // SAFETY: `event` is a register of the UART, which this driver owns.
        unsafe {
            while ptr::read_volatile(event) == 0 {}
            ptr::write_volatile(event, 0);
        }
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first_mut() else { return Ok(0) };
        self.wait(EVENTS_RX_READY);
        // SAFETY: a register of the UART, which this driver owns, and it holds a byte to take.
        *first = unsafe { ptr::read_volatile(RXD) } as u8;
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first() else { return Ok(0) };
        // SAFETY: a register of the UART, which this driver owns; the last byte has left it.
        unsafe { ptr::write_volatile(TXD, u32::from(*first)) };
        self.wait(EVENTS_TX_READY);
        Ok(1)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
