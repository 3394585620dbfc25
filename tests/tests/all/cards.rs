//! The driver of SD cards against a simulated one.

use std::convert::Infallible;

use rwkv_core::poll;
use rwkv_embedded::stream::{SECTOR, SdCard, SdError, SectorDevice};
use rwkv_tests::card::{Kind, Simulated, Slot};

const SECTORS: usize = 8;

/// A card whose content depends on its serial number.
fn card(kind: Kind, serial: u8) -> Simulated {
    let bytes = (0..SECTORS * SECTOR).map(|at| byte_of(serial, at / SECTOR, at % SECTOR));
    Simulated::new(kind, serial, bytes.collect())
}

fn byte_of(serial: u8, sector: usize, at: usize) -> u8 {
    (sector * 31 + at) as u8 ^ serial
}

/// Reads sectors and compares them with those of the card of this serial number.
fn read(
    reader: &mut SdCard<Slot>,
    sector: u32,
    count: usize,
    serial: u8,
) -> Result<(), SdError<Infallible>> {
    let mut bytes = vec![0; count * SECTOR];
    poll::once(reader.read_sectors(sector, &mut bytes)).expect("the bus never waits")?;
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(*byte, byte_of(serial, sector as usize + at / SECTOR, at % SECTOR), "{at}");
    }
    Ok(())
}

#[test]
fn every_kind_of_card_is_read() {
    for kind in [Kind::First, Kind::Standard, Kind::High] {
        let slot = Slot::new(card(kind, 7));
        let mut reader = SdCard::new(slot.clone());
        assert_eq!(read(&mut reader, 0, 1, 7), Ok(()));
        assert_eq!(read(&mut reader, 3, 5, 7), Ok(()));
        let commands = slot.with(|card| card.commands.clone());
        assert_eq!(commands.iter().filter(|command| **command == 0).count(), 1, "set up once");
        assert_eq!(commands.contains(&58), kind != Kind::First, "the OCR of {kind:?}");
        assert_eq!(read(&mut reader, SECTORS as u32, 1, 7), Err(SdError::Refused(0x40)));
        assert_eq!(read(&mut reader, 2, 1, 7), Ok(()), "it is set up again");
    }
}

#[test]
fn addresses_end_with_the_number() {
    let mut reader = SdCard::new(Slot::new(card(Kind::Standard, 7)));
    assert_eq!(read(&mut reader, 1 << 23, 1, 7), Err(SdError::Address));
}

#[test]
fn a_data_error_ends_the_wait() {
    let slot = Slot::new(card(Kind::High, 7));
    let mut reader = SdCard::new(slot.clone());
    assert_eq!(read(&mut reader, 0, 1, 7), Ok(()));
    slot.with(|card| card.error = Some(0x04));
    assert_eq!(read(&mut reader, 1, 1, 7), Err(SdError::Data(0x04)));
    assert_eq!(read(&mut reader, 1, 1, 7), Ok(()));
}

#[test]
fn another_card_is_noticed() {
    let slot = Slot::new(card(Kind::High, 7));
    let mut reader = SdCard::new(slot.clone());
    assert_eq!(read(&mut reader, 0, 1, 7), Ok(()));
    let first = slot.put(Some(card(Kind::High, 8)));
    // It has not been set up.
    assert!(read(&mut reader, 1, 1, 8).is_err());
    for _ in 0..2 {
        assert_eq!(read(&mut reader, 1, 1, 8), Err(SdError::Changed));
    }
    slot.put(first);
    assert_eq!(read(&mut reader, 1, 1, 7), Ok(()));
}

#[test]
fn an_empty_slot_is_silent_until_the_card_is_back() {
    let slot = Slot::new(card(Kind::Standard, 7));
    let mut reader = SdCard::new(slot.clone());
    assert_eq!(read(&mut reader, 0, 1, 7), Ok(()));
    slot.put(None);
    for _ in 0..2 {
        assert_eq!(read(&mut reader, 0, 1, 7), Err(SdError::Silent));
    }
    slot.put(Some(card(Kind::Standard, 7)));
    assert_eq!(read(&mut reader, 0, 2, 7), Ok(()));
}
