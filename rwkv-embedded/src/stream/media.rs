//! Media behind the traits that drivers have.

use embedded_storage::nor_flash::{ErrorType, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use embedded_storage_async::nor_flash::ReadNorFlash as ReadNorFlashAsync;
use rwkv_core::StreamError;

use super::Medium;

/// Bytes of a sector of a card or disk.
pub const SECTOR: usize = 512;

/// A flash whose driver waits: anything with [`ReadNorFlash`].
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Nor<F>(
    /// The driver.
    pub F,
);

/// A flash whose driver lets others run while it reads, by DMA or interrupts.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NorAsync<F>(
    /// The driver.
    pub F,
);

/// Words need four bytes, however finely a flash can be read.
const fn unit(read_size: usize) -> usize {
    if read_size < 4 { 4 } else { read_size }
}

fn failed<F: ErrorType>(offset: u32, error: &F::Error) -> StreamError {
    match error.kind() {
        NorFlashErrorKind::OutOfBounds => StreamError::OutOfBounds { offset },
        NorFlashErrorKind::NotAligned => StreamError::Misplaced { offset },
        _ => StreamError::Medium { offset },
    }
}

impl<F: ReadNorFlash> Medium for Nor<F> {
    const UNIT: usize = unit(F::READ_SIZE);

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        self.0.read(offset, bytes).map_err(|error| failed::<F>(offset, &error))
    }
}

impl<F: ReadNorFlashAsync> Medium for NorAsync<F> {
    const UNIT: usize = unit(F::READ_SIZE);

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        self.0.read(offset, bytes).await.map_err(|error| failed::<F>(offset, &error))
    }
}

/// A card or disk, sector by sector. The image lies in one run of sectors.
#[expect(async_fn_in_trait, reason = "devices are used by value, never through dyn or threads")]
pub trait SectorDevice {
    /// Why a read failed.
    type Error;

    /// Reads whole sectors from `sector` on, into a multiple of [`SECTOR`] bytes.
    ///
    /// # Errors
    /// If fewer bytes could be read, or the card was taken out or changed.
    async fn read_sectors(&mut self, sector: u32, bytes: &mut [u8]) -> Result<(), Self::Error>;

    /// Whether a read failed because another card is there than the first, for drivers that know.
    fn is_changed(error: &Self::Error) -> bool {
        let _ = error;
        false
    }
}

/// The medium over a card or disk.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sectors<D>(
    /// The driver.
    pub D,
);

impl<D: SectorDevice> Medium for Sectors<D> {
    const UNIT: usize = SECTOR;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        let read = self.0.read_sectors(offset / SECTOR as u32, bytes).await;
        read.map_err(|error| match D::is_changed(&error) {
            true => StreamError::Changed { offset },
            false => StreamError::Medium { offset },
        })
    }
}
