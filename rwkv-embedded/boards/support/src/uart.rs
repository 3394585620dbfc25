//! Blocking UARTs that move one byte at a time.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, Write};

/// A driver that waits.
pub trait ByteUart {
    /// Waits for a byte, and takes it.
    fn receive(&mut self) -> u8;

    /// Waits until there is room for a byte, and sends it.
    fn send(&mut self, byte: u8);

    /// Waits until what was sent has left, for UARTs that tell.
    fn drain(&mut self) {}
}

/// A line over such a driver.
#[derive(Debug)]
pub struct Bytewise<U>(
    /// The driver.
    pub U,
);

impl<U> ErrorType for Bytewise<U> {
    type Error = Infallible;
}

impl<U: ByteUart> Read for Bytewise<U> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first_mut() else { return Ok(0) };
        *first = self.0.receive();
        Ok(1)
    }
}

impl<U: ByteUart> Write for Bytewise<U> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first() else { return Ok(0) };
        self.0.send(*first);
        Ok(1)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.0.drain();
        Ok(())
    }
}
