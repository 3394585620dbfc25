//! The PrimeCell synchronous serial port PL022 (ARM DDI 0194) as an SPI bus.

use core::ptr;

/// Registers.
#[repr(C)]
struct Registers {
    cr0: u32,
    cr1: u32,
    dr: u32,
    sr: u32,
    cpsr: u32,
}

const CR0_8_BITS: u32 = 7;
const CR1_ENABLE: u32 = 1 << 1;
const SR_BUSY: u32 = 1 << 4;
/// The smallest divider: the emulated line has no rate to keep.
const PRESCALE: u32 = 2;
/// Bytes that each FIFO holds.
const FIFO: usize = 8;

/// A blocking driver, for bytes.
#[derive(Debug)]
pub struct Spi(*mut Registers);

impl Spi {
    /// Switches the port on.
    ///
    /// # Safety
    /// There is such a port at this address, its clock runs, and nobody else uses it.
    pub unsafe fn new(address: usize) -> Self {
        let port = ptr::with_exposed_provenance_mut::<Registers>(address);
        // SAFETY: the registers of the port, which are the caller's to give.
        unsafe {
            ptr::write_volatile(&raw mut (*port).cr1, 0);
            ptr::write_volatile(&raw mut (*port).cpsr, PRESCALE);
            ptr::write_volatile(&raw mut (*port).cr0, CR0_8_BITS);
            ptr::write_volatile(&raw mut (*port).cr1, CR1_ENABLE);
        }
        Self(port)
    }

    /// Sends bytes and puts what comes back in their place.
    pub fn exchange(&mut self, bytes: &mut [u8]) {
        for bytes in bytes.chunks_mut(FIFO) {
            for byte in bytes.iter() {
                // SAFETY: a register of the port, which this driver owns; its FIFO has room.
                unsafe { ptr::write_volatile(&raw mut (*self.0).dr, u32::from(*byte)) };
            }
            // SAFETY: a register of the port; reading it changes nothing.
            while unsafe { ptr::read_volatile(&raw const (*self.0).sr) } & SR_BUSY != 0 {}
            for byte in bytes {
                // SAFETY: a register of the port; its FIFO holds as many bytes as were sent.
                *byte = unsafe { ptr::read_volatile(&raw const (*self.0).dr) } as u8;
            }
        }
    }
}
