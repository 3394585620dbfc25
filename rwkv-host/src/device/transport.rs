//! How bytes get to a device and back.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use super::error::Log;

/// A link to a device. Reads end with [`io::ErrorKind::TimedOut`] or
/// [`io::ErrorKind::WouldBlock`] when nothing came in time, and with zero bytes when the device
/// is gone.
pub trait Transport: Read + Write + Send {
    /// Sets how long a read waits.
    ///
    /// # Errors
    /// If the operating system refuses.
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()>;

    /// What the device printed beside the link so far.
    fn log(&mut self) -> Log {
        Log::default()
    }
}

impl Transport for UnixStream {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}
