//! Requests and replies over a transport.

use std::{
    io,
    time::{Duration, Instant},
};

use rwkv_embedded::agent::{
    frame::{self, Decoder},
    protocol::{AgentError, MAX_FRAME, Reply, Request},
};

use super::{DeviceError, Transport};

/// Frames over a transport.
pub(super) struct Link {
    transport: Box<dyn Transport>,
    timeout: Duration,
    decoder: Decoder,
    /// Bytes that were received and not yet decoded.
    received: Vec<u8>,
}

impl Link {
    /// A link whose device may be silent for `timeout`.
    pub(super) fn new(
        mut transport: Box<dyn Transport>,
        timeout: Duration,
    ) -> Result<Self, DeviceError> {
        transport.set_timeout(timeout).map_err(DeviceError::io("set the time-out of the link"))?;
        Ok(Self { transport, timeout, decoder: Decoder::new(), received: Vec::new() })
    }

    pub(super) fn transport(&mut self) -> &mut dyn Transport {
        &mut *self.transport
    }

    /// Finds the agent on a line on which anything may have been said: it answers a zero byte with a
    /// frame error, after whatever it had to say before.
    pub(super) fn synchronise(&mut self) -> Result<(), DeviceError> {
        const AWAITED: &str = "an agent";
        let deadline = Instant::now() + self.timeout;
        let sent = self.transport.write_all(&[0]).and_then(|()| self.transport.flush());
        sent.map_err(|error| self.failed(error, AWAITED))?;
        while Instant::now() < deadline {
            match self.receive(AWAITED) {
                Err(DeviceError::Refused(AgentError::Frame)) => return Ok(()),
                Ok(_) | Err(DeviceError::Refused(_) | DeviceError::Frame { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.failed(io::ErrorKind::TimedOut.into(), AWAITED))
    }

    /// Sends a request; `awaited` is what it asks for, in words.
    pub(super) fn send(
        &mut self,
        request: &Request,
        awaited: &'static str,
    ) -> Result<(), DeviceError> {
        let mut buffer = [0; MAX_FRAME];
        let frame = frame::encode(request, &mut buffer)
            .map_err(|error| DeviceError::Frame { awaited, error })?;
        let sent = self.transport.write_all(frame).and_then(|()| self.transport.flush());
        sent.map_err(|error| self.failed(error, awaited))
    }

    /// Waits for a reply; a refusal is an error.
    pub(super) fn receive(&mut self, awaited: &'static str) -> Result<Reply, DeviceError> {
        loop {
            let mut bytes = std::mem::take(&mut self.received).into_iter();
            while let Some(byte) = bytes.next() {
                let Some(reply) = self.decoder.push(byte) else { continue };
                self.received = bytes.collect();
                return match reply {
                    Ok(Reply::Error(error)) => Err(DeviceError::Refused(error)),
                    Ok(reply) => Ok(reply),
                    Err(error) => Err(DeviceError::Frame { awaited, error }),
                };
            }
            let mut buffer = [0; MAX_FRAME];
            match self.transport.read(&mut buffer) {
                Ok(0) => {
                    let log = self.transport.log();
                    return Err(DeviceError::Ended { awaited, log });
                }
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error, awaited)),
            }
        }
    }

    fn failed(&mut self, error: io::Error, awaited: &'static str) -> DeviceError {
        let log = self.transport.log();
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                DeviceError::Timeout { awaited, timeout: self.timeout, log }
            }
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => DeviceError::Ended { awaited, log },
            _ => DeviceError::Link { awaited, error, log },
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
