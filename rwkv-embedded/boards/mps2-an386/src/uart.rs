//! UART0: a CMSDK APB UART, without FIFOs and without interrupts.

use core::{convert::Infallible, ptr};

use embedded_io::{ErrorType, Read, Write};

/// Registers, as in the Cortex-M System Design Kit (ARM DDI 0479).
#[repr(C)]
struct Registers {
    data: u32,
    state: u32,
    ctrl: u32,
    interrupt: u32,
    baud_divider: u32,
}

const UART0: *mut Registers = 0x4000_4000 as *mut Registers;

const STATE_TX_FULL: u32 = 1 << 0;
const STATE_RX_FULL: u32 = 1 << 1;
const CTRL_TX_ENABLE: u32 = 1 << 0;
const CTRL_RX_ENABLE: u32 = 1 << 1;
/// The smallest divider that the hardware takes: the emulated line has no baud rate to keep.
const BAUD_DIVIDER: u32 = 16;

/// A blocking driver of UART0. The emulator holds bytes back until the last one has been read, so
/// none are lost.
#[derive(Debug)]
pub struct Uart(());

impl Uart {
    /// Switches the UART on, for both directions.
    ///
    /// # Safety
    /// To be called once: there is one UART0.
    pub unsafe fn new() -> Self {
        // SAFETY: the registers of UART0 lie at this address, and nobody else uses them.
        unsafe {
            ptr::write_volatile(&raw mut (*UART0).baud_divider, BAUD_DIVIDER);
            ptr::write_volatile(&raw mut (*UART0).ctrl, CTRL_TX_ENABLE | CTRL_RX_ENABLE);
        }
        Self(())
    }

    fn state(&self) -> u32 {
        // SAFETY: a register of UART0, which this driver owns; reading it changes nothing.
        unsafe { ptr::read_volatile(&raw const (*UART0).state) }
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first_mut() else { return Ok(0) };
        while self.state() & STATE_RX_FULL == 0 {}
        // SAFETY: a register of UART0, which this driver owns, and it holds a byte to take.
        *first = unsafe { ptr::read_volatile(&raw const (*UART0).data) } as u8;
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first() else { return Ok(0) };
        while self.state() & STATE_TX_FULL != 0 {}
        // SAFETY: a register of UART0, which this driver owns, and it has room for a byte.
        unsafe { ptr::write_volatile(&raw mut (*UART0).data, u32::from(*first)) };
        Ok(1)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while self.state() & STATE_TX_FULL != 0 {}
        Ok(())
    }
}
