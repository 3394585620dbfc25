//! Timer and UART of the Cortex-M System Design Kit (ARM DDI 0479), as the MPS2 boards have them.

use core::ptr;

use crate::uart::ByteUart;

/// Registers of a timer.
#[repr(C)]
struct TimerRegisters {
    ctrl: u32,
    value: u32,
    reload: u32,
}

const TIMER_ENABLE: u32 = 1 << 0;

/// A timer used as a free-running clock.
#[derive(Debug)]
pub struct Timer(*mut TimerRegisters);

impl Timer {
    /// Starts the clock.
    ///
    /// # Safety
    /// There is a timer at this address, and nobody else uses it.
    pub unsafe fn new(address: usize) -> Self {
        let timer = ptr::with_exposed_provenance_mut::<TimerRegisters>(address);
        // SAFETY: the registers of the timer, which are the caller's to give.
        unsafe {
            ptr::write_volatile(&raw mut (*timer).reload, u32::MAX);
            ptr::write_volatile(&raw mut (*timer).value, u32::MAX);
            ptr::write_volatile(&raw mut (*timer).ctrl, TIMER_ENABLE);
        }
        Self(timer)
    }

    /// Ticks since some time; wraps around.
    pub fn now(&self) -> u32 {
        // SAFETY: a register of the timer, which this driver owns; reading it changes nothing.
        let left = unsafe { ptr::read_volatile(&raw const (*self.0).value) };
        u32::MAX - left
    }
}

/// Registers of a UART.
#[repr(C)]
struct UartRegisters {
    data: u32,
    state: u32,
    ctrl: u32,
    interrupt: u32,
    baud_divider: u32,
}

const STATE_TX_FULL: u32 = 1 << 0;
const STATE_RX_FULL: u32 = 1 << 1;
const CTRL_TX_ENABLE: u32 = 1 << 0;
const CTRL_RX_ENABLE: u32 = 1 << 1;
/// The smallest divider that the hardware takes: the emulated line has no baud rate to keep.
const BAUD_DIVIDER: u32 = 16;

/// A blocking driver of a UART without FIFOs and without interrupts. The emulator holds bytes back
/// until the last one has been read, so none are lost.
#[derive(Debug)]
pub struct Uart(*mut UartRegisters);

impl Uart {
    /// Switches the UART on, for both directions.
    ///
    /// # Safety
    /// There is a UART at this address, and nobody else uses it.
    pub unsafe fn new(address: usize) -> Self {
        let uart = ptr::with_exposed_provenance_mut::<UartRegisters>(address);
        // SAFETY: the registers of the UART, which are the caller's to give.
        unsafe {
            ptr::write_volatile(&raw mut (*uart).baud_divider, BAUD_DIVIDER);
            ptr::write_volatile(&raw mut (*uart).ctrl, CTRL_TX_ENABLE | CTRL_RX_ENABLE);
        }
        Self(uart)
    }

    fn state(&self) -> u32 {
        // SAFETY: a register of the UART, which this driver owns; reading it changes nothing.
        unsafe { ptr::read_volatile(&raw const (*self.0).state) }
    }
}

impl ByteUart for Uart {
    fn receive(&mut self) -> u8 {
        while self.state() & STATE_RX_FULL == 0 {}
        // SAFETY: a register of the UART, which this driver owns, and it holds a byte to take.
        unsafe { ptr::read_volatile(&raw const (*self.0).data) as u8 }
    }

    fn send(&mut self, byte: u8) {
        self.drain();
        // SAFETY: a register of the UART, which this driver owns, and it has room for a byte.
        unsafe { ptr::write_volatile(&raw mut (*self.0).data, u32::from(byte)) };
    }

    fn drain(&mut self) {
        while self.state() & STATE_TX_FULL != 0 {}
    }
}
