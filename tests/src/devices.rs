//! The devices that this machine can run, and a line to ask one by hand.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    process::{Command, Stdio},
    time::Duration,
};

use rwkv_embedded::agent::{
    frame::{Decoder, encode},
    protocol::{MAX_FRAME, Reply, Request},
};
use rwkv_host::device::{Device, DeviceSpec, Log, Options, QemuBoard, Transport};

/// The emulated board.
pub const QEMU: DeviceSpec = DeviceSpec::Qemu(QemuBoard::Mps2An386);

/// The devices that this machine can run.
pub fn devices() -> Vec<DeviceSpec> {
    if can_run(QemuBoard::Mps2An386) {
        return vec![DeviceSpec::Sim, QEMU];
    }
    vec![DeviceSpec::Sim]
}

/// Whether the emulator of a board is installed; says so if it is not.
pub fn can_run(board: QemuBoard) -> bool {
    let emulator = board.emulator();
    let version = Command::new(emulator).arg("--version").stdout(Stdio::null()).status();
    let there = version.is_ok_and(|status| status.success());
    if !there {
        println!("skipped: {}, since {emulator} is not installed", DeviceSpec::Qemu(board));
    }
    there
}

/// A device that is asked by hand. All that it does panics where the line fails.
pub struct Asked {
    line: Box<dyn Transport>,
    decoder: Decoder,
    received: VecDeque<u8>,
}

impl Asked {
    /// Starts a device with these bytes in its flash.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(spec: DeviceSpec, flash: &[u8]) -> Self {
        let mut line = Device::start(spec, flash, &Options::default()).expect("it starts");
        line.set_timeout(Duration::from_secs(60)).expect("a time-out");
        Self { line, decoder: Decoder::new(), received: VecDeque::new() }
    }

    /// Sends any bytes.
    ///
    /// # Panics
    /// If the line fails.
    pub fn send(&mut self, bytes: &[u8]) {
        self.line.write_all(bytes).expect("it listens");
    }

    /// Waits for a reply.
    ///
    /// # Panics
    /// If there is none.
    pub fn reply(&mut self) -> Reply {
        loop {
            while let Some(byte) = self.received.pop_front() {
                if let Some(reply) = self.decoder.push(byte) {
                    return reply.expect("an intact frame");
                }
            }
            let mut buffer = [0; 512];
            let count = self.line.read(&mut buffer).expect("an answer in time");
            assert!(count > 0, "the device ended");
            self.received.extend(&buffer[..count]);
        }
    }

    /// Sends a request and waits for the first reply.
    ///
    /// # Panics
    /// If there is none.
    pub fn ask(&mut self, request: &Request) -> Reply {
        let mut buffer = [0; MAX_FRAME];
        self.send(encode(request, &mut buffer).expect("it fits"));
        self.reply()
    }

    /// What it has logged so far.
    pub fn log(&mut self) -> Log {
        self.line.log()
    }
}
