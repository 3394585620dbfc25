//! USART1 of the STM32F405, without interrupts.

use core::ptr;

use board_support::uart::ByteUart;

/// Registers, as in the reference manual RM0090.
#[repr(C)]
struct Registers {
    status: u32,
    data: u32,
    baud: u32,
    control: u32,
}

const USART1: *mut Registers = 0x4001_1000 as *mut Registers;

const STATUS_RX_NOT_EMPTY: u32 = 1 << 5;
const STATUS_TX_EMPTY: u32 = 1 << 7;
const CONTROL_RX_ENABLE: u32 = 1 << 2;
const CONTROL_TX_ENABLE: u32 = 1 << 3;
const CONTROL_ENABLE: u32 = 1 << 13;

/// A blocking driver of USART1. The emulator drops bytes that come before it is switched on, and
/// holds them back after that until the last one has been read.
#[derive(Debug)]
pub struct Usart(());

impl Usart {
    /// Switches the USART on, for both directions, and tells the host so by an empty frame.
    ///
    /// # Safety
    /// To be called once: there is one USART1.
    pub unsafe fn new() -> Self {
        // SAFETY: the registers of USART1 lie at this address, and nobody else uses them.
        unsafe {
            let control = CONTROL_ENABLE | CONTROL_TX_ENABLE | CONTROL_RX_ENABLE;
            ptr::write_volatile(&raw mut (*USART1).control, control);
        }
        let mut usart = Self(());
        usart.send(0);
        usart
    }

    fn status(&self) -> u32 {
        // SAFETY: a register of USART1, which this driver owns.
        unsafe { ptr::read_volatile(&raw const (*USART1).status) }
    }
}

impl ByteUart for Usart {
    fn receive(&mut self) -> u8 {
        while self.status() & STATUS_RX_NOT_EMPTY == 0 {}
        // SAFETY: a register of USART1, which this driver owns, and it holds a byte to take.
        unsafe { ptr::read_volatile(&raw const (*USART1).data) as u8 }
    }

    fn send(&mut self, byte: u8) {
        self.drain();
        // SAFETY: a register of USART1, which this driver owns, and it has room for a byte.
        unsafe { ptr::write_volatile(&raw mut (*USART1).data, u32::from(byte)) };
    }

    fn drain(&mut self) {
        while self.status() & STATUS_TX_EMPTY == 0 {}
    }
}
