//! A simulated SD card in SPI mode.

use std::{cell::RefCell, collections::VecDeque, convert::Infallible, rc::Rc};

use rwkv_embedded::stream::{SECTOR, SdBus};
use rwkv_host::fit::Fault;

/// What a card understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Physical layer 1: no CMD8, and addresses count bytes.
    First,
    /// Physical layer 2, addresses count bytes.
    Standard,
    /// Addresses count sectors.
    High,
}

/// A card, as the specification describes it: it answers a byte after the last of a command.
#[derive(Debug, Clone)]
pub struct Simulated {
    kind: Kind,
    serial: u8,
    /// What it holds; behind the end, its last sector is erased.
    bytes: Rc<[u8]>,
    selected: bool,
    /// Clocks of 8 bits without selection since it was put in.
    clocks: usize,
    ready: bool,
    /// ACMD41s until it is ready.
    busy: u32,
    application: bool,
    received: Vec<u8>,
    sent: VecDeque<u8>,
    /// Sent instead of the next data.
    pub error: Option<u8>,
    /// What goes wrong, and at which sector that is read from now on.
    pub fault: Option<(usize, Fault)>,
    /// The commands that it was given.
    pub commands: Vec<u8>,
}

/// The token of a card that could not correct what it read.
const ECC_FAILED: u8 = 0x04;

impl Simulated {
    /// A card that was just put in.
    pub fn new(kind: Kind, serial: u8, bytes: Rc<[u8]>) -> Self {
        let (received, sent, commands) = (Vec::new(), VecDeque::new(), Vec::new());
        let (selected, ready, application) = (false, false, false);
        Self {
            kind,
            serial,
            bytes,
            selected,
            clocks: 0,
            ready,
            busy: 3,
            application,
            received,
            sent,
            error: None,
            fault: None,
            commands,
        }
    }

    /// What is read of a sector, with the fault that is due.
    fn sector(&mut self, sector: usize) -> Vec<u8> {
        let rest = self.bytes.iter().skip(sector * SECTOR).copied();
        let mut bytes: Vec<u8> = rest.chain(std::iter::repeat(0xff)).take(SECTOR).collect();
        match &mut self.fault {
            Some((0, fault)) => {
                match fault {
                    Fault::Error => self.error = Some(ECC_FAILED),
                    // It lets go of its line.
                    Fault::Short => bytes[SECTOR / 2..].fill(0xff),
                    Fault::Flip => bytes[SECTOR / 3] ^= 4,
                }
                self.fault = None;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        bytes
    }

    fn exchange(&mut self, byte: u8) -> u8 {
        if !self.selected {
            self.clocks += 1;
            return 0xff;
        }
        let answer = self.sent.pop_front().unwrap_or(0xff);
        if !self.received.is_empty() || byte != 0xff {
            self.received.push(byte);
        }
        if let &[command, a, b, c, d, crc] = &self.received[..] {
            self.received.clear();
            // It is deaf until 74 clocks have come.
            if self.clocks < 10 {
                return answer;
            }
            self.sent = VecDeque::from([0xff]);
            self.answer(command & 0x3f, u32::from_be_bytes([a, b, c, d]), crc);
        }
        answer
    }

    fn answer(&mut self, command: u8, argument: u32, crc: u8) {
        self.commands.push(command);
        let idle = u8::from(!self.ready);
        let application = std::mem::take(&mut self.application);
        match command {
            0 => {
                assert_eq!(crc, 0x95);
                (self.ready, self.busy) = (false, 3);
                self.sent.push_back(1);
            }
            8 if self.kind != Kind::First => {
                assert_eq!(crc, 0x87);
                self.sent.push_back(idle);
                self.sent.extend(argument.to_be_bytes());
            }
            55 => {
                self.application = true;
                self.sent.push_back(idle);
            }
            41 if application => {
                assert_eq!(argument, if self.kind == Kind::First { 0 } else { 1 << 30 });
                self.busy = self.busy.saturating_sub(1);
                self.ready = self.busy == 0;
                self.sent.push_back(u8::from(!self.ready));
            }
            58 if self.kind != Kind::First => {
                self.sent.push_back(idle);
                let high = self.kind == Kind::High;
                self.sent.extend(((1 << 31) | u32::from(high) << 30).to_be_bytes());
            }
            10 if self.ready => self.data(&[self.serial; 16]),
            16 if self.ready => {
                self.sent.push_back(if argument == SECTOR as u32 { 0 } else { 0x40 })
            }
            17 if self.ready => {
                let step = if self.kind == Kind::High { 1 } else { SECTOR };
                let (sector, within) = (argument as usize / step, argument as usize % step);
                if within == 0 && sector < self.bytes.len().div_ceil(SECTOR) {
                    let bytes = self.sector(sector);
                    self.data(&bytes);
                } else {
                    self.sent.push_back(0x40);
                }
            }
            _ => self.sent.push_back(4 | idle),
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        self.sent.extend([0, 0xff, 0xff]);
        if let Some(token) = self.error.take() {
            self.sent.push_back(token);
            return;
        }
        self.sent.push_back(0xfe);
        self.sent.extend(bytes);
        self.sent.extend([0x12, 0x34]);
    }
}

/// A slot for a card and the bus to it, which the test reaches as well.
#[derive(Debug, Clone)]
pub struct Slot(Rc<RefCell<Option<Simulated>>>);

impl Slot {
    /// A slot with a card in it.
    pub fn new(card: Simulated) -> Self {
        Self(Rc::new(RefCell::new(Some(card))))
    }

    /// Puts a card in, or none; returns the one that was there.
    pub fn put(&self, card: Option<Simulated>) -> Option<Simulated> {
        self.0.replace(card)
    }

    /// Does something to the card.
    ///
    /// # Panics
    /// If there is none.
    pub fn with<T>(&self, work: impl FnOnce(&mut Simulated) -> T) -> T {
        work(self.0.borrow_mut().as_mut().expect("there is a card"))
    }
}

impl SdBus for Slot {
    type Error = Infallible;

    async fn exchange(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            *byte = self.0.borrow_mut().as_mut().map_or(0xff, |card| card.exchange(*byte));
        }
        Ok(())
    }

    fn select(&mut self, selected: bool) -> Result<(), Infallible> {
        if let Some(card) = self.0.borrow_mut().as_mut() {
            card.selected = selected;
        }
        Ok(())
    }
}
