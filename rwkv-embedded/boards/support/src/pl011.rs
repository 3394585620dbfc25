//! The PrimeCell UART PL011 (ARM DDI 0183) as QEMU has it, without interrupts. It needs no baud
//! rate and no pins: neither is set, and on a chip the line stays silent until the board does so.

use core::ptr;

use crate::uart::ByteUart;

/// Byte offsets of the registers.
const DR: usize = 0x00;
const FR: usize = 0x18;
const LCRH: usize = 0x2c;
const CR: usize = 0x30;

const FR_RX_EMPTY: u32 = 1 << 4;
const FR_TX_FULL: u32 = 1 << 5;
const LCRH_8_BITS: u32 = 3 << 5;
const CR_ENABLE: u32 = 1 << 0 | 1 << 8 | 1 << 9;

/// A blocking driver without FIFOs: to switch them on loses what has come. The emulator holds bytes
/// back until the last one has been read.
#[derive(Debug)]
pub struct Uart(*mut u32);

impl Uart {
    /// Switches the UART on, for both directions.
    ///
    /// # Safety
    /// There is such a UART at this address, its clock runs, and nobody else uses it.
    pub unsafe fn new(address: usize) -> Self {
        let uart = Self(ptr::with_exposed_provenance_mut(address));
        uart.write(LCRH, LCRH_8_BITS);
        uart.write(CR, CR_ENABLE);
        uart
    }

    fn read(&self, offset: usize) -> u32 {
        // SAFETY: a register of the UART, which this driver owns.
        unsafe { ptr::read_volatile(self.0.wrapping_byte_add(offset)) }
    }

    fn write(&self, offset: usize, value: u32) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.0.wrapping_byte_add(offset), value) }
    }
}

impl ByteUart for Uart {
    fn receive(&mut self) -> u8 {
        while self.read(FR) & FR_RX_EMPTY != 0 {}
        self.read(DR) as u8
    }

    fn send(&mut self, byte: u8) {
        while self.read(FR) & FR_TX_FULL != 0 {}
        self.write(DR, u32::from(byte));
    }
}
