//! An SD card in SPI mode, as in the simplified specification of its physical layer.

use super::{SECTOR, SectorDevice};

/// The SPI bus that a card is on: mode 0, at most 400 kHz until the first read has ended and 25 MHz
/// after that, for cards that keep to the specification.
#[expect(async_fn_in_trait, reason = "buses are used by value, never through dyn or threads")]
pub trait SdBus {
    /// Why bytes could not be exchanged.
    type Error;

    /// Sends bytes and puts what comes back in their place.
    ///
    /// # Errors
    /// Those of the bus.
    async fn exchange(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error>;

    /// Pulls the card's select line low, or lets it go.
    ///
    /// # Errors
    /// Those of the pin.
    fn select(&mut self, selected: bool) -> Result<(), Self::Error>;
}

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
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SdError<E> {
    /// The bus failed.
    Bus(E),
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

/// A card that is read sector by sector. The first read sets it up, and so does every read after an
/// error; then it must have the identification (CID) of the first card. CRCs are off, since the
/// blocks of an image have checksums of their own.
///
/// It asks for the OCR once the card is ready, and ignores the status that comes with it: QEMU's
/// card says there that it is idle.
#[derive(Debug)]
pub struct SdCard<B> {
    bus: B,
    /// What a sector counts in addresses, once the card is set up.
    step: Option<u32>,
    /// The identification of the first card.
    cid: Option<[u8; 16]>,
}

rwkv_core::brief!([B] SdCard<B>, |card| "SdCard({:?})", card.cid);

impl<B: SdBus> SdCard<B> {
    /// A card on a bus; it is set up at the first read.
    pub const fn new(bus: B) -> Self {
        Self { bus, step: None, cid: None }
    }

    async fn exchange(&mut self, bytes: &mut [u8]) -> Result<(), SdError<B::Error>> {
        self.bus.exchange(bytes).await.map_err(SdError::Bus)
    }

    /// What comes next of the card.
    async fn receive<const N: usize>(&mut self) -> Result<[u8; N], SdError<B::Error>> {
        let mut bytes = [0xff; N];
        self.exchange(&mut bytes).await?;
        Ok(bytes)
    }

    /// The first byte for which this holds.
    async fn wait(
        &mut self,
        bytes: u32,
        found: impl Fn(u8) -> bool,
    ) -> Result<u8, SdError<B::Error>> {
        for _ in 0..bytes {
            let [byte] = self.receive().await?;
            if found(byte) {
                return Ok(byte);
            }
        }
        Err(SdError::Silent)
    }

    async fn command(
        &mut self,
        (command, crc): (u8, u8),
        argument: u32,
    ) -> Result<u8, SdError<B::Error>> {
        let [a, b, c, d] = argument.to_be_bytes();
        self.exchange(&mut [0xff, 0x40 | command, a, b, c, d, crc]).await?;
        self.wait(ANSWER, |byte| byte & 0x80 == 0).await
    }

    async fn expect(
        &mut self,
        command: (u8, u8),
        argument: u32,
        wanted: u8,
    ) -> Result<(), SdError<B::Error>> {
        match self.command(command, argument).await? {
            found if found == wanted => Ok(()),
            found => Err(SdError::Refused(found)),
        }
    }

    /// Data behind a command that was accepted.
    async fn data(&mut self, bytes: &mut [u8]) -> Result<(), SdError<B::Error>> {
        let found = |byte| byte == START_OF_DATA || byte & NOT_OF_DATA_ERROR == 0;
        match self.wait(PATIENCE, found).await? {
            START_OF_DATA => {}
            token => return Err(SdError::Data(token)),
        }
        bytes.fill(0xff);
        self.exchange(bytes).await?;
        // The CRC.
        let [_, _] = self.receive().await?;
        Ok(())
    }

    /// Sets the card up, if it is the first or that one again. Returns what a sector counts in its
    /// addresses.
    async fn start(&mut self) -> Result<u32, SdError<B::Error>> {
        self.expect(GO_IDLE, 0, IDLE).await?;
        let second = self.command(SEND_IF_COND, IF_COND).await? & ILLEGAL == 0;
        if second && u32::from_be_bytes(self.receive().await?) & 0xfff != IF_COND {
            return Err(SdError::Voltage);
        }
        self.leave_idle(if second { HIGH_CAPACITY } else { 0 }).await?;
        let step = if second && self.has_high_capacity().await? {
            1
        } else {
            self.expect(SET_BLOCKLEN, SECTOR as u32, READY).await?;
            SECTOR as u32
        };
        let mut cid = [0; 16];
        self.expect(SEND_CID, 0, READY).await?;
        self.data(&mut cid).await?;
        if *self.cid.get_or_insert(cid) == cid { Ok(step) } else { Err(SdError::Changed) }
    }

    /// Waits until the card is ready for a host of these abilities.
    async fn leave_idle(&mut self, host: u32) -> Result<(), SdError<B::Error>> {
        for _ in 0..PATIENCE {
            self.command(APP_CMD, 0).await?;
            if self.command(SD_SEND_OP_COND, host).await? == READY {
                return Ok(());
            }
        }
        Err(SdError::Silent)
    }

    async fn has_high_capacity(&mut self) -> Result<bool, SdError<B::Error>> {
        self.command(READ_OCR, 0).await?;
        Ok(u32::from_be_bytes(self.receive().await?) & HIGH_CAPACITY != 0)
    }

    async fn read(&mut self, sector: u32, bytes: &mut [u8]) -> Result<(), SdError<B::Error>> {
        // Whatever fails, or is dropped half-way, the next read sets the card up again.
        let step = match self.step.take() {
            Some(step) => step,
            None => self.start().await?,
        };
        for (sector, bytes) in (sector..).zip(bytes.chunks_exact_mut(SECTOR)) {
            let address = sector.checked_mul(step).ok_or(SdError::Address)?;
            self.expect(READ_SINGLE_BLOCK, address, READY).await?;
            self.data(bytes).await?;
        }
        self.step = Some(step);
        Ok(())
    }
}

impl<B: SdBus> SectorDevice for SdCard<B> {
    type Error = SdError<B::Error>;

    async fn read_sectors(&mut self, sector: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        if self.step.is_none() {
            // 74 clocks before it is selected.
            self.bus.select(false).map_err(SdError::Bus)?;
            let _: [u8; 10] = self.receive().await?;
        }
        self.bus.select(true).map_err(SdError::Bus)?;
        let read = self.read(sector, bytes).await;
        self.bus.select(false).map_err(SdError::Bus)?;
        // The card lets go of its line at the next clock.
        let _: [u8; 1] = self.receive().await?;
        read
    }

    fn is_changed(error: &Self::Error) -> bool {
        matches!(error, SdError::Changed)
    }
}
