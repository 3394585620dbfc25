//! The driver of SD cards against a simulated one.

use std::{cell::RefCell, collections::VecDeque, convert::Infallible, rc::Rc};

use rwkv_core::poll;
use rwkv_embedded::stream::{SECTOR, SdBus, SdCard, SdError, SectorDevice};

const SECTORS: usize = 8;

/// What a card understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Physical layer 1: no CMD8, and addresses count bytes.
    First,
    /// Physical layer 2, addresses count bytes.
    Standard,
    /// Addresses count sectors.
    High,
}

/// A card, as the specification describes it: it answers a byte after the last of a command.
struct Simulated {
    kind: Kind,
    serial: u8,
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
    error: Option<u8>,
    commands: Vec<u8>,
}

impl Simulated {
    fn new(kind: Kind, serial: u8) -> Self {
        let (received, sent, commands) = (Vec::new(), VecDeque::new(), Vec::new());
        let (selected, ready, application) = (false, false, false);
        Self {
            kind,
            serial,
            selected,
            clocks: 0,
            ready,
            busy: 3,
            application,
            received,
            sent,
            error: None,
            commands,
        }
    }

    fn byte_of(&self, sector: usize, at: usize) -> u8 {
        (sector * 31 + at) as u8 ^ self.serial
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
                if within == 0 && sector < SECTORS {
                    let bytes: Vec<u8> = (0..SECTOR).map(|at| self.byte_of(sector, at)).collect();
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

/// A slot, which the test reaches as well.
#[derive(Clone)]
struct Slot(Rc<RefCell<Option<Simulated>>>);

impl Slot {
    fn new(kind: Kind, serial: u8) -> Self {
        Self(Rc::new(RefCell::new(Some(Simulated::new(kind, serial)))))
    }

    fn put(&self, card: Option<Simulated>) -> Option<Simulated> {
        self.0.replace(card)
    }

    /// Does something to the card.
    fn with<T>(&self, work: impl FnOnce(&mut Simulated) -> T) -> T {
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

/// Reads sectors and compares them with those of the card of this serial number.
fn read(
    card: &mut SdCard<Slot>,
    sector: u32,
    count: usize,
    serial: u8,
) -> Result<(), SdError<Infallible>> {
    let mut bytes = vec![0; count * SECTOR];
    poll::once(card.read_sectors(sector, &mut bytes)).expect("the bus never waits")?;
    let expected = Simulated::new(Kind::High, serial);
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(*byte, expected.byte_of(sector as usize + at / SECTOR, at % SECTOR), "{at}");
    }
    Ok(())
}

#[test]
fn every_kind_of_card_is_read() {
    for kind in [Kind::First, Kind::Standard, Kind::High] {
        let slot = Slot::new(kind, 7);
        let mut card = SdCard::new(slot.clone());
        assert_eq!(read(&mut card, 0, 1, 7), Ok(()));
        assert_eq!(read(&mut card, 3, 5, 7), Ok(()));
        let commands = slot.with(|card| card.commands.clone());
        assert_eq!(commands.iter().filter(|command| **command == 0).count(), 1, "set up once");
        assert_eq!(commands.contains(&58), kind != Kind::First, "the OCR of {kind:?}");
        assert_eq!(read(&mut card, SECTORS as u32, 1, 7), Err(SdError::Refused(0x40)));
        assert_eq!(read(&mut card, 2, 1, 7), Ok(()), "it is set up again");
    }
}

#[test]
fn addresses_end_with_the_number() {
    let mut card = SdCard::new(Slot::new(Kind::Standard, 7));
    assert_eq!(read(&mut card, 1 << 23, 1, 7), Err(SdError::Address));
}

#[test]
fn a_data_error_ends_the_wait() {
    let slot = Slot::new(Kind::High, 7);
    let mut card = SdCard::new(slot.clone());
    assert_eq!(read(&mut card, 0, 1, 7), Ok(()));
    slot.with(|card| card.error = Some(0x04));
    assert_eq!(read(&mut card, 1, 1, 7), Err(SdError::Data(0x04)));
    assert_eq!(read(&mut card, 1, 1, 7), Ok(()));
}

#[test]
fn another_card_is_noticed() {
    let slot = Slot::new(Kind::High, 7);
    let mut card = SdCard::new(slot.clone());
    assert_eq!(read(&mut card, 0, 1, 7), Ok(()));
    let first = slot.put(Some(Simulated::new(Kind::High, 8)));
    // It has not been set up.
    assert!(read(&mut card, 1, 1, 8).is_err());
    for _ in 0..2 {
        assert_eq!(read(&mut card, 1, 1, 8), Err(SdError::Changed));
    }
    slot.put(first);
    assert_eq!(read(&mut card, 1, 1, 7), Ok(()));
}

#[test]
fn an_empty_slot_is_silent_until_the_card_is_back() {
    let slot = Slot::new(Kind::Standard, 7);
    let mut card = SdCard::new(slot.clone());
    assert_eq!(read(&mut card, 0, 1, 7), Ok(()));
    slot.put(None);
    for _ in 0..2 {
        assert_eq!(read(&mut card, 0, 1, 7), Err(SdError::Silent));
    }
    slot.put(Some(Simulated::new(Kind::Standard, 7)));
    assert_eq!(read(&mut card, 0, 2, 7), Ok(()));
}
