//! The UART of the nRF51822, without interrupts.

use core::ptr;

use board_support::uart::ByteUart;

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

impl ByteUart for Uart {
    fn receive(&mut self) -> u8 {
        self.wait(EVENTS_RX_READY);
        // SAFETY: a register of the UART, which this driver owns, and it holds a byte to take.
        unsafe { ptr::read_volatile(RXD) as u8 }
    }

    fn send(&mut self, byte: u8) {
        // SAFETY: a register of the UART, which this driver owns; the last byte has left it.
        unsafe { ptr::write_volatile(TXD, u32::from(byte)) };
        self.wait(EVENTS_TX_READY);
    }
}
