//! UART0 of the FE310, without interrupts.

use core::ptr;

use board_support::uart::ByteUart;

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

impl ByteUart for Uart {
    fn receive(&mut self) -> u8 {
        loop {
            // SAFETY: a register of UART0, which this driver owns; reading it takes a byte.
            let data = unsafe { ptr::read_volatile(&raw const (*UART0).rx_data) };
            if data & RX_EMPTY == 0 {
                return data as u8;
            }
        }
    }

    fn send(&mut self, byte: u8) {
        // SAFETY: registers of UART0, which this driver owns, and there is room for a byte.
        unsafe {
            while ptr::read_volatile(&raw const (*UART0).tx_data) & TX_FULL != 0 {}
            ptr::write_volatile(&raw mut (*UART0).tx_data, u32::from(byte));
        }
    }
}
