//! The bus that the SD card is on: SSI0, and a pin that selects the card or the display.

use core::{convert::Infallible, ptr};

use board_support::pl022::Spi;
use rwkv_embedded::stream::SdBus;

/// Data of pin 0 of port D alone, its direction and its digital function. Low selects the card,
/// high the display.
const PD0_DATA: *mut u32 = 0x4000_7004 as *mut u32;
const PORT_D_DIR: *mut u32 = 0x4000_7400 as *mut u32;
const PORT_D_DEN: *mut u32 = 0x4000_751c as *mut u32;
const PIN_0: u32 = 1 << 0;

/// The bus of the card.
pub struct Bus(Spi);

impl Bus {
    /// Takes the select line into use.
    ///
    /// # Safety
    /// To be called once, with the port that the card is behind: there is one port D.
    pub unsafe fn new(spi: Spi) -> Self {
        // SAFETY: registers of port D, which nobody else uses. Only an output can be set.
        unsafe {
            ptr::write_volatile(PORT_D_DIR, PIN_0);
            ptr::write_volatile(PORT_D_DEN, PIN_0);
            ptr::write_volatile(PD0_DATA, PIN_0);
        }
        Self(spi)
    }
}

impl SdBus for Bus {
    type Error = Infallible;

    async fn exchange(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.exchange(bytes);
        Ok(())
    }

    fn select(&mut self, selected: bool) -> Result<(), Infallible> {
        // SAFETY: the pin's own register, which this driver owns.
        unsafe { ptr::write_volatile(PD0_DATA, if selected { 0 } else { PIN_0 }) };
        Ok(())
    }
}
