//! An SD card in SPI mode, as in the simplified specification of its physical layer.
//!
//! The emulator answers CMD58 of a card that is ready as if it were idle, which the driver of
//! `embedded-sdmmc` takes for a fault.

use core::ptr;

use board_support::pl022::Spi;
use rwkv_embedded::stream::{SECTOR, SectorDevice};

/// Data of pin 0 of port D alone, its direction and its digital function. Low selects the card,
/// high the display.
const PD0_DATA: *mut u32 = 0x4000_7004 as *mut u32;
const PORT_D_DIR: *mut u32 = 0x4000_7400 as *mut u32;
const PORT_D_DEN: *mut u32 = 0x4000_751c as *mut u32;
const PIN_0: u32 = 1 << 0;

/// Commands, with the CRC that each has in its last byte where the card wants one.
const GO_IDLE: (u8, u8) = (0, 0x95);
const SEND_IF_COND: (u8, u8) = (8, 0x87);
const SEND_CID: (u8, u8) = (10, 1);
const SET_BLOCKLEN: (u8, u8) = (16, 1);
const READ_SINGLE_BLOCK: (u8, u8) = (17, 1);
const SD_SEND_OP_COND: (u8, u8) = (41, 1);
const APP_CMD: (u8, u8) = (55, 1);
const READ_OCR: (u8, u8) = (58, 1);

const READY: u8 = 0;
const IDLE: u8 = 1 << 0;
const ILLEGAL: u8 = 1 << 2;
/// 2.7 to 3.6 V, and a pattern that the card gives back.
const IF_COND: u32 = 0x1aa;
/// Of ACMD41: the host knows cards that are addressed by sector; of the OCR: this is one.
const HIGH_CAPACITY: u32 = 1 << 30;
const START_OF_DATA: u8 = 0xfe;
/// These are zero in a token that says why no data come.
const NOT_OF_DATA_ERROR: u8 = 0xf0;

/// Bytes in which an answer must come.
const ANSWER: u32 = 16;
/// Bytes in which data must come, and tries until a card is ready.
const PATIENCE: u32 = 1 << 16;

/// Why a sector could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardError {
    /// There is no card, or it fell silent.
    Silent,
    /// It answered a command with this.
    Refused(u8),
    /// It could not read the data, and sent this token in their place.
    Data(u8),
    /// It takes other voltages.
    Voltage,
    /// It is another card than the first: put that one back, or reset the board.
    Changed,
    /// The sector is beyond those that it can address.
    Address,
}

/// A card that is read sector by sector.
pub struct Card {
    spi: Spi,
    /// What a sector counts in addresses, once the card is set up.
    step: Option<u32>,
    /// The identification of the first card.
    cid: Option<[u8; 16]>,
}

impl Card {
    /// Takes the select line into use; the card is set up at the first read.
    ///
    /// # Safety
    /// To be called once, with the port that the card is behind: there is one port D.
    pub unsafe fn new(spi: Spi) -> Self {
        // SAFETY: registers of port D, which nobody else uses.
        unsafe {
            ptr::write_volatile(PORT_D_DIR, PIN_0);
            ptr::write_volatile(PORT_D_DEN, PIN_0);
        }
        let mut card = Self { spi, step: None, cid: None };
        // Only an output can be set.
        card.select(false);
        card
    }

    fn select(&mut self, selected: bool) {
        // SAFETY: the pin's own register, which this driver owns.
        unsafe { ptr::write_volatile(PD0_DATA, if selected { 0 } else { PIN_0 }) };
    }

    /// What comes next of the card.
    fn receive<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0xff; N];
        self.spi.exchange(&mut bytes);
        bytes
    }

    /// The first byte for which this holds.
    fn wait(&mut self, bytes: u32, found: impl Fn(u8) -> bool) -> Result<u8, CardError> {
        let mut all = (0..bytes).map(|_| self.receive::<1>()[0]);
        all.find(|byte| found(*byte)).ok_or(CardError::Silent)
    }

    fn command(&mut self, (command, crc): (u8, u8), argument: u32) -> Result<u8, CardError> {
        let [a, b, c, d] = argument.to_be_bytes();
        self.spi.exchange(&mut [0xff, 0x40 | command, a, b, c, d, crc]);
        self.wait(ANSWER, |byte| byte & 0x80 == 0)
    }

    fn expect(&mut self, command: (u8, u8), argument: u32, wanted: u8) -> Result<(), CardError> {
        match self.command(command, argument)? {
            found if found == wanted => Ok(()),
            found => Err(CardError::Refused(found)),
        }
    }

    /// Data behind a command that was accepted.
    fn data(&mut self, bytes: &mut [u8]) -> Result<(), CardError> {
        let found = |byte| byte == START_OF_DATA || byte & NOT_OF_DATA_ERROR == 0;
        match self.wait(PATIENCE, found)? {
            START_OF_DATA => {}
            token => return Err(CardError::Data(token)),
        }
        bytes.fill(0xff);
        self.spi.exchange(bytes);
        // The CRC: the blocks of an image have checksums of their own.
        let [_, _] = self.receive();
        Ok(())
    }

    /// Sets the card up, if it is the first or that one again. Returns what a sector counts in its
    /// addresses.
    fn start(&mut self) -> Result<u32, CardError> {
        self.expect(GO_IDLE, 0, IDLE)?;
        let second = self.command(SEND_IF_COND, IF_COND)? & ILLEGAL == 0;
        if second && u32::from_be_bytes(self.receive()) & 0xfff != IF_COND {
            return Err(CardError::Voltage);
        }
        self.leave_idle(if second { HIGH_CAPACITY } else { 0 })?;
        let step = if second && self.has_high_capacity()? {
            1
        } else {
            self.expect(SET_BLOCKLEN, SECTOR as u32, READY)?;
            SECTOR as u32
        };
        let cid = self.cid()?;
        if *self.cid.get_or_insert(cid) == cid { Ok(step) } else { Err(CardError::Changed) }
    }

    /// Waits until the card is ready for a host of these abilities.
    fn leave_idle(&mut self, host: u32) -> Result<(), CardError> {
        for _ in 0..PATIENCE {
            self.command(APP_CMD, 0)?;
            if self.command(SD_SEND_OP_COND, host)? == READY {
                return Ok(());
            }
        }
        Err(CardError::Silent)
    }

    fn has_high_capacity(&mut self) -> Result<bool, CardError> {
        self.command(READ_OCR, 0)?;
        Ok(u32::from_be_bytes(self.receive()) & HIGH_CAPACITY != 0)
    }

    /// The card's identification.
    fn cid(&mut self) -> Result<[u8; 16], CardError> {
        let mut cid = [0; 16];
        self.expect(SEND_CID, 0, READY)?;
        self.data(&mut cid)?;
        Ok(cid)
    }

    fn read(&mut self, sector: u32, bytes: &mut [u8]) -> Result<(), CardError> {
        let step = match self.step {
            Some(step) => step,
            None => self.start()?,
        };
        // Whatever fails, the next read sets the card up again.
        self.step = None;
        for (sector, bytes) in (sector..).zip(bytes.chunks_exact_mut(SECTOR)) {
            let address = sector.checked_mul(step).ok_or(CardError::Address)?;
            self.expect(READ_SINGLE_BLOCK, address, READY)?;
            self.data(bytes)?;
        }
        self.step = Some(step);
        Ok(())
    }
}

impl SectorDevice for Card {
    type Error = CardError;

    async fn read_sectors(&mut self, sector: u32, bytes: &mut [u8]) -> Result<(), CardError> {
        if self.step.is_none() {
            // 74 clocks before it is selected.
            let _: [u8; 10] = self.receive();
        }
        self.select(true);
        let read = self.read(sector, bytes);
        self.select(false);
        // The card lets go of its line at the next clock.
        let _: [u8; 1] = self.receive();
        read
    }
}
