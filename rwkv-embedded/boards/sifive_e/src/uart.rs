//! UART0 of the FE310, without interrupts.

use core::{convert::Infallible, ptr};

use embedded_io::{ErrorType, Read, Write};

/// Registers, as in the manual of the FE310-G000.
#[repr(C)]
struct Registers {
    tx_data: u32,
    rx_data: u32,
    tx_control: u32,
    rx_control: u32,
}

const UART0: *mut Registers = 0x1001_3000 as *mut Registers;

const TX_FULL: u32 = 1 << 31;
const RX_EMPTY: u32 = 1 << 31;
const ENABLE: u32 = 1 << 0;

/// A blocking driver of UART0. The emulator holds bytes back until there is room for them.
#[derive(Debug)]
pub struct Uart(());

impl Uart {
    /// Switches the UART on, for both directions. The emulated line has no baud rate to set.
    ///
    /// # Safety
    /// To be called once: there is one UART0.
    pub unsafe fn new() -> Self {
        // SAFETY: the registers of UART0 lie at this address, and nobody else uses them.
        unsafe {
            ptr::write_volatile(&raw mut (*UART0).tx_control, ENABLE);
            ptr::write_volatile(&raw mut (*UART0).rx_control, ENABLE);
        }
        Self(())
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first_mut() else { return Ok(0) };
        loop {
            // SAFETY: a register of UART0, which this driver owns; reading it takes a byte.
            let data = unsafe { ptr::read_volatile(&raw const (*UART0).rx_data) };
            if data & RX_EMPTY == 0 {
                *first = data as u8;
                return Ok(1);
            }
        }
    }
}

impl Write for Uart {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first() else { return Ok(0) };
        // SAFETY: registers of UART0, which this driver owns, and there is room for a byte.
        unsafe {
            while ptr::read_volatile(&raw const (*UART0).tx_data) & TX_FULL != 0 {}
            ptr::write_volatile(&raw mut (*UART0).tx_data, u32::from(*first));
        }
        Ok(1)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
