//! States in a flash whose power fails at any moment.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use rwkv_core::{
    Image,
    saved::{Saved, SavedError},
};
use rwkv_embedded::snapshot::{FlashFault, SnapshotError, Snapshots};
use rwkv_host::{convert::Weights, memory::Memory};
use rwkv_tests::{image, random, step, text};

/// A flash that remembers, and that has power for so many units of work: a byte written, or a
/// hundredth of what is erased. One of its reads may fail.
#[derive(Clone)]
struct Flash<const WRITE: usize> {
    bytes: Vec<u8>,
    power: usize,
    done: usize,
    reads: usize,
    fault: Option<(usize, Fault)>,
}

/// What a read that fails does.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Error,
    /// Another bit for each read.
    Flip,
}

const ERASE: usize = 512;

impl<const WRITE: usize> Flash<WRITE> {
    fn new() -> Self {
        let bytes = vec![0xa5; 64 * ERASE];
        Self { bytes, power: usize::MAX, done: 0, reads: 0, fault: None }
    }

    /// A unit of work, if there is power for it.
    fn work(&mut self) -> Result<(), PowerLoss> {
        if self.done == self.power {
            return Err(PowerLoss);
        }
        self.done += 1;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct PowerLoss;

impl NorFlashError for PowerLoss {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const WRITE: usize> ErrorType for Flash<WRITE> {
    type Error = PowerLoss;
}

impl<const WRITE: usize> ReadNorFlash for Flash<WRITE> {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerLoss> {
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        let fault = self.fault.filter(|(at, _)| *at == self.reads);
        self.reads += 1;
        match fault {
            None => Ok(()),
            Some((_, Fault::Error)) => Err(PowerLoss),
            Some((at, Fault::Flip)) => {
                let byte = 7 * at % bytes.len();
                bytes[byte] ^= 1 << (at % 8);
                Ok(())
            }
        }
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WRITE: usize> NorFlash for Flash<WRITE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerLoss> {
        assert!(from.is_multiple_of(ERASE as u32) && to.is_multiple_of(ERASE as u32));
        // Not in order: what is left of a page is anything.
        let range = from as usize..to as usize;
        let len = range.len();
        for part in 0..100 {
            self.work()?;
            for at in range.clone().skip(part).step_by(100) {
                self.bytes[at] = 0xff;
            }
        }
        assert!(self.bytes[range].iter().all(|byte| *byte == 0xff), "{len}");
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerLoss> {
        assert!((offset as usize).is_multiple_of(WRITE) && bytes.len().is_multiple_of(WRITE));
        for (at, byte) in (offset as usize..).zip(bytes) {
            assert_eq!(self.bytes[at], 0xff, "a byte is written twice");
            self.work()?;
            self.bytes[at] = *byte;
        }
        Ok(())
    }
}

/// The states after each of some tokens.
fn states(image: &Image<'_>, count: usize) -> Vec<Vec<f32>> {
    let mut memory = Memory::new(image);
    let words = |token: &u32| {
        step(&mut memory, image, &[*token]).unwrap();
        memory.state(image).unwrap().words().concat()
    };
    text(count, 3).iter().map(words).collect()
}

fn save<F: NorFlash>(
    snapshots: &mut Snapshots<F>,
    image: &Image<'_>,
    position: usize,
    words: &[f32],
) -> Result<(), SnapshotError> {
    let mut memory = Memory::new(image);
    let mut state = memory.state(image).unwrap();
    state.restore(words.iter().copied()).unwrap();
    let saved = Saved::of(image.identity(), image.header(), &state).unwrap();
    snapshots.save(Saved { position: position as u64, pending: Some(65), ..saved }, &state)
}

/// The position of what is found, and whether the words are those of that state.
fn found<F: NorFlash>(
    snapshots: &mut Snapshots<F>,
    image: &Image<'_>,
    states: &[Vec<f32>],
) -> Option<usize> {
    let mut memory = Memory::new(image);
    let mut state = memory.state(image).unwrap();
    let saved = snapshots.load(image.identity(), image.header(), &mut state).unwrap()?;
    assert_eq!(saved.pending, Some(65));
    let position = saved.position as usize;
    assert!(state.words().concat() == states[position], "{position}");
    Some(position)
}

/// Power fails at every byte that is written and in every erasure, of four snapshots one after the
/// other: what is found then is the last one that was finished, or the one that was being written.
#[test]
fn power_may_fail_at_any_moment() {
    for version in ["4", "7"] {
        let image = image(random::small(version).path(), Weights::Int8);
        let image = image.open().unwrap();
        let states = states(&image, 4);
        let mut power = 0;
        let finished = loop {
            let flash = Flash::<8> { power, ..Flash::new() };
            let mut snapshots =
                Snapshots::new(flash.clone(), ERASE as u32, image.header()).unwrap();
            let mut last = None;
            for (position, words) in states.iter().enumerate() {
                match save(&mut snapshots, &image, position, words) {
                    Ok(()) => last = Some(position),
                    Err(SnapshotError::Flash { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let mut flash = snapshots.into_flash();
            flash.power = usize::MAX;
            let mut snapshots = Snapshots::new(flash, ERASE as u32, image.header()).unwrap();
            let now = found(&mut snapshots, &image, &states);
            let next = last.map_or(0, |last| last + 1);
            assert!(now == last || now == Some(next), "{version}, {power}: {now:?}, not {last:?}");

            // And life goes on.
            save(&mut snapshots, &image, 2, &states[2]).unwrap();
            assert_eq!(found(&mut snapshots, &image, &states), Some(2));
            if last == Some(states.len() - 1) {
                break power;
            }
            power += 1;
        };
        println!("{version}: {finished} moments");
        assert!(finished > 4 * 100);
    }
}

/// A bit of the newest snapshot flips: the one before is found, and it is not the one that the next
/// snapshot is written over.
#[test]
fn a_flipped_bit_costs_the_newest_snapshot_only() {
    let image = image(random::small("4").path(), Weights::Int8);
    let image = image.open().unwrap();
    let states = states(&image, 3);
    let mut snapshots = Snapshots::new(Flash::<4>::new(), 0, image.header()).unwrap();
    assert_eq!(found(&mut snapshots, &image, &states), None);
    for (position, words) in states.iter().enumerate().take(2) {
        save(&mut snapshots, &image, position, words).unwrap();
    }
    let flash = snapshots.into_flash();
    let slot = Snapshots::<Flash<4>>::slot_bytes(image.header()) as usize;
    let len = 128 + 4 * image.header().state_words();
    for at in (0..16).chain(64..len) {
        let mut flash = flash.clone();
        flash.bytes[slot + at] ^= 1 << (at % 8);
        let mut snapshots = Snapshots::new(flash, 0, image.header()).unwrap();
        assert_eq!(found(&mut snapshots, &image, &states), Some(0), "byte {at}");
        let mut flash = snapshots.into_flash();
        flash.power = flash.done + 700;
        let mut snapshots = Snapshots::new(flash, 0, image.header()).unwrap();
        let _ = save(&mut snapshots, &image, 2, &states[2]);
        assert!(matches!(found(&mut snapshots, &image, &states), Some(0 | 2)), "byte {at}");
    }
}

/// Every read of a state that is loaded or saved fails or comes with a flipped bit: a typed error, or
/// a snapshot that is whole; and afterwards nothing is lost.
#[test]
fn a_read_that_fails_loses_no_snapshot() {
    let image = image(random::small("7").path(), Weights::Int8);
    let image = image.open().unwrap();
    let states = states(&image, 3);
    let open = |flash| Snapshots::new(flash, 0, image.header()).unwrap();
    let mut snapshots = open(Flash::<4>::new());
    for (position, words) in states.iter().enumerate().take(2) {
        save(&mut snapshots, &image, position, words).unwrap();
    }
    let flash = Flash { reads: 0, ..snapshots.into_flash() };
    let load = |flash| {
        let (mut snapshots, mut memory) = (open(flash), Memory::new(&image));
        let mut state = memory.state(&image).unwrap();
        let loaded = snapshots.load(image.identity(), image.header(), &mut state);
        if let Ok(Some(saved)) = loaded {
            assert!(state.words().concat() == states[saved.position as usize]);
        }
        (loaded.map(|saved| saved.map(|saved| saved.position)), snapshots.into_flash())
    };
    let write = |flash| {
        let mut snapshots = open(flash);
        (save(&mut snapshots, &image, 2, &states[2]), snapshots.into_flash())
    };
    let [reads, writes] = [load(flash.clone()).1.reads, write(flash.clone()).1.reads];
    assert!(reads > 20 && writes > 20, "{reads} and {writes} reads");
    for fault in [Fault::Error, Fault::Flip] {
        for at in 0..reads {
            let (loaded, after) = load(Flash { fault: Some((at, fault)), ..flash.clone() });
            let name = format!("{fault:?} at read {at}: {loaded:?}");
            match (fault, loaded) {
                (Fault::Error, Err(SnapshotError::Flash { .. })) => {}
                (Fault::Flip, Ok(Some(0 | 1)) | Err(SnapshotError::State(_))) => {}
                _ => panic!("{name}"),
            }
            let again = load(Flash { fault: None, ..after }).0;
            assert_eq!(again, Ok(Some(1)), "{name}");
        }
        for at in 0..writes {
            let (saved, after) = write(Flash { fault: Some((at, fault)), ..flash.clone() });
            let name = format!("{fault:?} at read {at}: {saved:?}");
            let newest = match (fault, saved) {
                // The last read, of what was written last, changes nothing.
                (_, Err(SnapshotError::Flash { .. } | SnapshotError::Worn { .. }))
                    if at == writes - 1 =>
                {
                    2
                }
                (Fault::Error, Err(SnapshotError::Flash { .. })) => 1,
                (Fault::Flip, Err(SnapshotError::Worn { .. })) => 1,
                (Fault::Flip, Ok(())) => 2,
                _ => panic!("{name}"),
            };
            let again = load(Flash { fault: None, ..after }).0;
            assert!(matches!(again, Ok(Some(found)) if found == newest), "{name}: {again:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let [four, seven] =
        ["4", "7"].map(|version| image(random::small(version).path(), Weights::Int8));
    let (four, seven) = (four.open().unwrap(), seven.open().unwrap());
    let room = |first| Snapshots::new(Flash::<4>::new(), first, four.header()).err();
    assert_eq!(room(0), None);
    let needed = 2 * Snapshots::<Flash<4>>::slot_bytes(four.header());
    assert_eq!(room(8), Some(SnapshotError::Room { needed, given: 64 * 512 - 8 }));
    assert_eq!(room(63 * 512), Some(SnapshotError::Room { needed, given: 512 }));
    // Where the flash erases more at once than its type says.
    let erasing =
        |erase, first| Snapshots::erasing(Flash::<4>::new(), erase, first, four.header()).err();
    assert_eq!(erasing(4096, 4096), None);
    let (needed, given) = ((needed / 2).next_multiple_of(4096) * 2, 64 * 512 - 512);
    assert_eq!(erasing(4096, 512), Some(SnapshotError::Room { needed, given }));
    for erase in [0, 256, 768] {
        let kind = FlashFault::NotAligned;
        assert_eq!(erasing(erase, 0), Some(SnapshotError::Flash { offset: 0, kind }));
    }

    let mut snapshots = Snapshots::new(Flash::<4>::new(), 0, four.header()).unwrap();
    let states = states(&four, 1);
    save(&mut snapshots, &four, 0, &states[0]).unwrap();
    let mut memory = Memory::new(&four);
    let state = memory.state(&four).unwrap();
    let saved = Saved::of(four.identity(), four.header(), &state).unwrap();
    let other = Saved { crc: saved.crc ^ 1, ..saved };
    let error = snapshots.save(other, &state).unwrap_err();
    assert_eq!(error, SnapshotError::State(SavedError::Checksum));
    assert_eq!(found(&mut snapshots, &four, &states), Some(0));
    let mut memory = Memory::new(&seven);
    let mut state = memory.state(&seven).unwrap();
    let before = state.words().concat();
    let error = snapshots.load(seven.identity(), seven.header(), &mut state).unwrap_err();
    assert!(matches!(error, SnapshotError::State(SavedError::OtherImage { .. })), "{error}");
    assert!(!state.is_broken() && state.words().concat() == before);
}
