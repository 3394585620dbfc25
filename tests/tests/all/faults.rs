//! Media that fail: over every stream and every kind of medium, no fault is silent, and none costs
//! more than the token that it came in.

use embedded_storage::nor_flash::{ErrorType, NorFlashErrorKind, ReadNorFlash};
use embedded_storage_async::nor_flash::ReadNorFlash as ReadNorFlashAsync;
use rwkv_core::{Digest, Error, Image, ImageError, Model, StreamError, poll, stream::InPlace};
use rwkv_embedded::stream::{
    Buffered, Medium, Nor, NorAsync, Reads, SECTOR, SdCard, SectorDevice, Sectors, buffer_words,
    load, words_around,
};
use rwkv_host::{
    convert::Options,
    file::ImageFile,
    fit::{Layout, Placement},
    memory::Memory,
};
use rwkv_tests::{
    card::{self, Simulated, Slot},
    formats, image_with,
    medium::{Clock, Fault, SimFlash, token_bytes},
    random::{self, Container},
};
use tempfile::NamedTempFile;

use crate::media::{
    FIRST, KINDS, Kind, PROMPT, Place, Room, Run, expected, on_medium, over_buffers,
};

/// A driver, as those of real chips, over a simulated flash.
struct Driver<'a, const UNIT: usize>(SimFlash<'a, UNIT>);

impl<const UNIT: usize> Driver<'_, UNIT> {
    async fn fetch(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        self.0.read(offset, bytes).await.map_err(|_| NorFlashErrorKind::Other)
    }
}

impl<const UNIT: usize> ErrorType for Driver<'_, UNIT> {
    type Error = NorFlashErrorKind;
}

impl<const UNIT: usize> ReadNorFlash for Driver<'_, UNIT> {
    const READ_SIZE: usize = UNIT;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        poll::once(self.fetch(offset, bytes)).expect("such a flash takes no time")
    }

    fn capacity(&self) -> usize {
        self.0.bytes().len()
    }
}

impl<const UNIT: usize> ReadNorFlashAsync for Driver<'_, UNIT> {
    const READ_SIZE: usize = UNIT;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.fetch(offset, bytes).await
    }

    fn capacity(&self) -> usize {
        self.0.bytes().len()
    }
}

impl SectorDevice for Driver<'_, SECTOR> {
    type Error = NorFlashErrorKind;

    async fn read_sectors(&mut self, sector: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.fetch(sector * SECTOR as u32, bytes).await
    }
}

/// What goes wrong at which read.
type Planned = Option<(usize, Fault)>;

/// An image on a medium, and what it must come to.
struct Case {
    name: String,
    file: ImageFile,
    bytes: Vec<u8>,
    clock: Clock,
    /// Whether nobody but the checksum notices what came short: a card that falls silent within a
    /// sector.
    silent: bool,
    /// Whether buffers have room for pieces of blocks alone.
    cut: bool,
}

impl Case {
    /// Of a random model of several layers.
    fn deep(version: &str, format: usize) -> Self {
        Self::new(version, random::checkpoint(version, Container::Safetensors), format, 4096)
    }

    /// Of one with a single layer, in small blocks.
    fn small(version: &str, format: usize) -> Self {
        Self::new(version, random::small(version), format, 128)
    }

    fn new(version: &str, file: NamedTempFile, format: usize, block_bytes: u32) -> Self {
        let (format, options) = &formats()[format];
        let file = image_with(file.path(), &Options { block_bytes, ..*options });
        let name = format!("{version} {format}");
        Self {
            name,
            bytes: on_medium(&file),
            clock: Clock::default(),
            file,
            silent: false,
            cut: false,
        }
    }

    fn flash<const UNIT: usize>(&self, planned: Planned) -> SimFlash<'_, UNIT> {
        let mut flash = SimFlash::new(&self.bytes, &self.clock);
        flash.fault = planned;
        flash
    }

    /// A card with the image.
    fn card(&self, serial: u8) -> Simulated {
        Simulated::new(card::Kind::High, serial, self.bytes.as_slice().into())
    }

    /// Whether an error tells of a fault.
    const fn tells(&self, fault: Fault, error: Error) -> bool {
        let unnoticed =
            matches!(fault, Fault::Flip) || (self.silent && matches!(fault, Fault::Short));
        match error {
            Error::Stream(StreamError::Medium { .. }) => !unnoticed,
            Error::Image(ImageError::BlockChecksum { .. } | ImageError::Record { .. }) => unnoticed,
            _ => false,
        }
    }

    /// Half of what every token reads, in a memory.
    fn place(&self, image: &Image<'_>) -> Place {
        let half = token_bytes(image).0 / 2;
        let mut placement = Placement::new(&Layout::of(image), 0.5, &[half]);
        let ranges = placement.memories.swap_remove(0);
        let words = ranges.iter().map(|range| range.words as usize).sum();
        let mut memory = vec![0; words];
        let mut stream = InPlace::new(image.words());
        poll::once(load(&ranges, &mut memory, &mut stream, 64)).unwrap().unwrap();
        Place { ranges, memory }
    }

    /// Over streams of both kinds, with and without a memory for a part. `count` says how many
    /// faults could be planned in a run.
    fn survives<M: Medium>(&self, make: impl Fn(Planned) -> M, count: impl Fn(Reads) -> u64) {
        let image = self.file.open().unwrap();
        let wanted = expected(&image);
        let words = match self.cut {
            true => words_around(image.least_room().unwrap(), M::UNIT),
            false => buffer_words(image.header(), M::UNIT),
        };
        for place in [Place::default(), self.place(&image)] {
            for kind in KINDS {
                let over = |room: &mut Room, planned| {
                    over_buffers(kind, &image, room, &self.clock, make(planned), &place, words)
                };
                let (run, result) = over(&mut Room::new(&image, false), None);
                assert_eq!(result, Ok(0));
                let total = count(run.reads) as usize;
                assert!(total > PROMPT.len());
                let mut told = 0;
                for at in 0..total {
                    for fault in [Fault::Error, Fault::Short, Fault::Flip] {
                        let placed = place.ranges.len();
                        let name = format!(
                            "{}, {kind:?}, {placed} ranges in memory: {fault:?} at read {at} of {total}",
                            self.name
                        );
                        let noticed = survives(&name, &image, &wanted, |room, planned| {
                            over(room, planned.then_some((at, fault)))
                        });
                        match noticed {
                            Some(error) => assert!(self.tells(fault, error), "{name}: {error:?}"),
                            // Of a sector, words may be wrong that nobody needs, or that are there
                            // already. What is read in vain ahead may fail in vain.
                            None => assert!(M::UNIT > 4, "{name} is not noticed"),
                        }
                        let failed = fault == Fault::Error && kind == Kind::Buffered;
                        assert!(noticed.is_some() || !failed, "{name} is not noticed");
                        told += usize::from(noticed.is_some());
                    }
                }
                assert!(told > total, "{}: {told} of {} faults told", self.name, 3 * total);
            }
        }
    }
}

/// A fault that comes, or does not; the error that tells of it, if it is noticed. With an undo
/// buffer, the token is tried again and the bits are those of a run without the fault; without, the
/// state refuses to step until it is reset.
fn survives(
    name: &str,
    image: &Image<'_>,
    wanted: &[Digest],
    over: impl Fn(&mut Room, bool) -> (Run, Result<usize, Error>),
) -> Option<Error> {
    let (run, result) = over(&mut Room::new(image, true), true);
    assert!(run.digests == wanted, "{name}: {result:?}");
    if result == Ok(0) {
        return None;
    }
    assert_eq!(result, Ok(1), "{name}");

    let mut room = Room::new(image, false);
    let error = over(&mut room, true).1.expect_err(name);
    let (_, again) = over(&mut room, false);
    assert_eq!(again, Err(Error::BrokenState), "{name}");
    room.memory.reset(image);
    let (run, again) = over(&mut room, false);
    assert_eq!(again, Ok(0), "{name}");
    assert!(run.digests == wanted, "{name}");
    Some(error)
}

/// Reads of a medium.
const fn reads(reads: Reads) -> u64 {
    reads.count
}

const F32: usize = 0;
const INT8: usize = 2;
const INT4: usize = 3;
const LANES: usize = 4;

#[test]
fn no_fault_at_any_word_is_silent_or_final() {
    for case in [Case::deep("4", INT8), Case::small("7a", INT4)] {
        case.survives(|planned| case.flash::<4>(planned), reads);
    }
}

#[test]
fn no_fault_in_any_piece_is_silent_or_final() {
    for case in [Case::deep("4", INT4), Case::small("7", F32), Case::small("7a", LANES)] {
        let case = Case { cut: true, ..case };
        case.survives(|planned| case.flash::<4>(planned), reads);
    }
    let case = Case { cut: true, ..Case::small("6", INT8) };
    case.survives(|planned| case.flash::<512>(planned), reads);
}

#[test]
fn no_fault_at_any_sector_is_silent_or_final() {
    let case = Case::deep("7", INT8);
    case.survives(|planned| case.flash::<512>(planned), reads);
}

#[test]
fn no_fault_of_a_driver_is_silent_or_final() {
    let case = Case::small("5.1", INT4);
    case.survives(|planned| Nor(Driver(case.flash::<4>(planned))), reads);
    case.survives(|planned| NorAsync(Driver(case.flash::<256>(planned))), reads);
    case.survives(|planned| Sectors(Driver(case.flash::<SECTOR>(planned))), reads);
}

#[test]
fn no_fault_of_a_card_is_silent_or_final() {
    let case = Case { silent: true, ..Case::small("6", INT8) };
    let card = |planned: Planned| {
        let mut card = case.card(7);
        card.fault = planned;
        Sectors(SdCard::new(Slot::new(card)))
    };
    case.survives(card, |reads| reads.bytes / SECTOR as u64);
}

/// A card that is changed between two tokens is told apart from one that fails, and nothing is lost
/// once the first one is back.
#[test]
fn a_changed_card_is_told_and_the_first_one_goes_on() {
    let case = Case::small("4", INT4);
    let image = case.file.open().unwrap();
    let header = *image.header();
    let slot = Slot::new(case.card(7));
    let medium = Sectors(SdCard::new(slot.clone()));
    let mut buffer = vec![0; buffer_words(&header, SECTOR)];
    let stream = Buffered::<_, true>::new(medium, FIRST as u32, header.bytes(), &mut buffer);
    let mut memory = Memory::new(&image);
    let (mut state, scratch) = memory.split(&image).unwrap();
    let mut undo = vec![0.0; header.state_words()];
    let mut model = Model::new(header, stream.unwrap(), scratch).unwrap();
    model = model.with_undo(&mut undo).unwrap();
    let mut digests = Vec::new();
    for token in PROMPT {
        let mut step = || {
            let mut digest = Digest::default();
            model.step(state.reborrow(), token, &mut digest)?;
            Digest::token(&header, &state, digest)
        };
        let first = slot.put(Some(case.card(8)));
        // What was on the way has not been set up; then it is another card, however often.
        if token != PROMPT[0] {
            assert!(matches!(step(), Err(Error::Stream(StreamError::Medium { .. }))));
        }
        for _ in 0..2 {
            if token != PROMPT[0] {
                assert!(matches!(step(), Err(Error::Stream(StreamError::Changed { .. }))));
            }
        }
        slot.put(first);
        digests.push(step().unwrap());
    }
    assert_eq!(digests, expected(&image));
}
