//! UART0 on GPIO 0 and 1, without interrupts.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, Write};
use rp2040_hal::{
    Clock, Sio,
    clocks::ClocksManager,
    gpio::{FunctionUart, Pin, Pins, PullDown, bank0},
    pac::{IO_BANK0, PADS_BANK0, RESETS, SIO, UART0},
    uart::{Enabled, UartConfig, UartPeripheral},
};

type Tx = Pin<bank0::Gpio0, FunctionUart, PullDown>;
type Rx = Pin<bank0::Gpio1, FunctionUart, PullDown>;

/// A blocking driver of UART0: 115,200 baud, 8 bits, no parity, one stop bit.
pub struct Uart(UartPeripheral<Enabled, UART0, (Tx, Rx)>);

impl Uart {
    /// Switches the UART and its pins on.
    pub fn new(
        uart: UART0,
        sio: SIO,
        io: IO_BANK0,
        pads: PADS_BANK0,
        resets: &mut RESETS,
        clocks: &ClocksManager,
    ) -> Self {
        let pins = Pins::new(io, pads, Sio::new(sio).gpio_bank0, resets);
        let pins = (pins.gpio0.into_function(), pins.gpio1.into_function());
        let uart = UartPeripheral::new(uart, pins, resets);
        match uart.enable(UartConfig::default(), clocks.peripheral_clock.freq()) {
            Ok(uart) => Self(uart),
            Err(_) => defmt::panic!("UART0 cannot be set to 115,200 baud"),
        }
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    /// Bytes that the line damaged are left out: then the frame is, and is answered as such.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        loop {
            if let Ok(count) = self.0.read(buffer) {
                return Ok(count);
            }
        }
    }
}

impl Write for Uart {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        match self.0.write(buffer) {
            Ok(count) => Ok(count),
            Err(_) => defmt::panic!("UART0 fails to send"),
        }
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.0.write_full_blocking(&[]);
        Ok(())
    }
}
