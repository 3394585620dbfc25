//! Opening images on media, of which parts may lie in memory as well.

use rwkv_core::{
    Header, StreamError,
    image::{self, HEADER_BYTES, PIECE_WORDS},
    poll,
};
use rwkv_embedded::stream::{Buffered, PlacedRange};

use crate::{
    error::{Fault, rwkv_error},
    image::{Held, Opened, Weights, header_bytes, rwkv_image},
    medium::{Beginning, Blocked, Blocking, UNIT, Waiting, rwkv_medium},
    opaque, pointer,
    weights::{Loader, ahead, on_medium, placed},
};

/// Parts of an image that lie in memories as well, as `rwkv place` chooses them. A range is three
/// numbers: its first word in the image, how many words, and where they begin in the memory. All
/// zeros places nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_placement {
    /// PLACED_IDENTITY: the identity of the image that the ranges are of.
    pub identity: u32,
    /// Ranges of the image in flash that the core can address, in ascending order.
    pub flash_ranges: *const [u32; 3],
    /// How many.
    pub flash_count: usize,
    /// Their words: `flash.bin`.
    pub flash: *const u32,
    /// How many.
    pub flash_words: usize,
    /// Ranges of the image in RAM, in ascending order.
    pub ram_ranges: *const [u32; 3],
    /// How many.
    pub ram_count: usize,
    /// Memory for their words, which are read from the medium when the image is opened.
    pub ram: *mut u32,
    /// How many.
    pub ram_words: usize,
}

/// Ranges of an image, and the memory that they lie in.
pub(crate) type Placement = (&'static [PlacedRange], &'static [u32]);

/// # Safety
/// Where the pointer is not null, `count` ranges lie there.
unsafe fn ranges(at: *const [u32; 3], count: usize) -> Result<&'static [PlacedRange], rwkv_error> {
    const { assert!(size_of::<PlacedRange>() == size_of::<[u32; 3]>()) };
    // SAFETY: a range is three words in the order of C's; the rest is the caller's promise.
    unsafe { pointer::shared_slice(at.cast(), count) }
}

impl rwkv_placement {
    /// What lies in flash, and what in RAM.
    ///
    /// # Safety
    /// The pointers are good, and nobody writes to what is there.
    unsafe fn memories(&self) -> Result<[Placement; 2], rwkv_error> {
        // SAFETY: the caller's promise.
        unsafe {
            let flash = pointer::shared_slice(self.flash, self.flash_words)?;
            let ram = pointer::shared_slice(self.ram, self.ram_words)?;
            Ok([
                (ranges(self.flash_ranges, self.flash_count)?, flash),
                (ranges(self.ram_ranges, self.ram_count)?, ram),
            ])
        }
    }

    /// Reads what lies in RAM.
    ///
    /// # Safety
    /// The pointers are good, and the RAM is nobody else's.
    unsafe fn load<M: Blocking>(&self, header: &Header, held: &Held<M>) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        let (ranges, ram) = unsafe {
            let ram = pointer::unique_slice(self.ram, self.ram_words)?;
            (ranges(self.ram_ranges, self.ram_count)?, ram)
        };
        for PlacedRange { first, words, at } in ranges.iter().copied() {
            let small = StreamError::Buffer { words };
            let into = ram.get_mut(at as usize..).and_then(|ram| ram.get_mut(..words as usize));
            let beyond = StreamError::OutOfBounds { offset: first.wrapping_mul(UNIT as u32) };
            let end = first.checked_add(words).filter(|end| *end <= header.bytes() / UNIT as u32);
            end.ok_or(beyond)?;
            let offset = held.first.checked_add(first.wrapping_mul(UNIT as u32));
            let mut offset = offset.ok_or(beyond)?;
            for piece in into.ok_or(small)?.chunks_mut(header.block_words.max(1) as usize) {
                held.medium.get(offset, bytemuck::cast_slice_mut(piece))?;
                offset = offset.wrapping_add((piece.len() * UNIT) as u32);
            }
        }
        Ok(())
    }
}

/// Opens an image on a medium and checks its header and the table of its sections; weights are
/// checked as they are read. `buffer` holds both meanwhile, and is free again afterwards:
/// RWKV_ERROR_ROOM says how many words it needs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_image_open_medium(
    image: *mut rwkv_image,
    medium: *const rwkv_medium,
    buffer: *mut u32,
    words: usize,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        let opened = open(medium, Waiting::of, (buffer, words));
        opaque::init(image, opened.map(|open| open.with(Weights::Medium, on_medium)))
    }
}

/// As rwkv_image_open_medium, with parts of the image in memories. What lies in one is not read
/// from the medium, and blocks of it are checked as all others are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_image_open_placed(
    image: *mut rwkv_image,
    medium: *const rwkv_medium,
    placement: *const rwkv_placement,
    buffer: *mut u32,
    words: usize,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        let opened = open(medium, Waiting::of, (buffer, words));
        let opened = opened.and_then(|open| open.place(pointer::shared(placement)?));
        opaque::init(image, opened.map(|open| open.with(Weights::Medium, placed)))
    }
}

/// As rwkv_image_open_placed, from a medium that reads by itself, with DMA or interrupts: a model
/// reads the next words into one buffer while it computes from another. `placement` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_image_open_ahead(
    image: *mut rwkv_image,
    medium: *const rwkv_medium,
    placement: *const rwkv_placement,
    buffer: *mut u32,
    words: usize,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        let opened = open(medium, Beginning::of, (buffer, words)).and_then(|open| {
            if placement.is_null() { Ok(open) } else { open.place(pointer::shared(placement)?) }
        });
        opaque::init(image, opened.map(|open| open.with(Weights::Ahead, ahead)))
    }
}

/// Words of a buffer for rwkv_image_check.
pub const RWKV_CHECK_WORDS: u32 = 128;
const _: () = assert!(RWKV_CHECK_WORDS as usize == PIECE_WORDS);

/// Reads the whole image and checks every byte of it, as rwkv_image_open does in memory: at the
/// start, or when the medium was written. `buffer` has RWKV_CHECK_WORDS or more, and is free again
/// afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_image_check(
    image: *mut rwkv_image,
    buffer: *mut u32,
    words: usize,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        opaque::with(image, |image| {
            let buffer = pointer::unique_slice(buffer, words)?;
            match &image.weights {
                Weights::Memory(_) => Ok(()),
                Weights::Medium(held) => check(held, &image.header, buffer),
                Weights::Ahead(held) => check(held, &image.header, buffer),
            }
        })
    }
}

fn check<M: Blocking>(held: &Held<M>, header: &Header, buffer: &mut [u32]) -> Result<(), Fault> {
    let medium = Blocked(held.medium);
    let mut stream = Buffered::<_, true>::new(medium, held.first, header.bytes(), buffer)?;
    let checked = poll::once(image::check(&mut stream, header.bytes()));
    checked.ok_or(rwkv_error::Internal)??;
    Ok(())
}

/// An image on a medium, and what it is.
struct Open<M> {
    held: Held<M>,
    header: Header,
    identity: u32,
}

/// # Safety
/// Where the pointers are not null, they are good.
unsafe fn open<M: Blocking>(
    medium: *const rwkv_medium,
    of: impl FnOnce(&rwkv_medium) -> Option<M>,
    (buffer, words): (*mut u32, usize),
) -> Result<Open<M>, Fault> {
    // SAFETY: the caller's promise.
    let (medium, buffer) =
        unsafe { (pointer::shared(medium)?, pointer::unique_slice(buffer, words)?) };
    let first = medium.offset;
    let medium = of(medium).ok_or(rwkv_error::NullPointer)?;
    let held = Held { medium, first, placed: [(&[], &[]); 2] };
    let (header, identity) = read_header(&held, buffer)?;
    Ok(Open { held, header, identity })
}

impl<M: Blocking> Open<M> {
    /// # Safety
    /// The pointers are good, and the RAM is nobody else's.
    unsafe fn place(mut self, placement: &rwkv_placement) -> Result<Self, Fault> {
        if placement.identity != self.identity {
            let other = rwkv_error::StreamOtherImage;
            return Err(Fault::new(other, placement.identity, self.identity));
        }
        // SAFETY: the caller's promise.
        unsafe {
            placement.load(&self.header, &self.held)?;
            self.held.placed = placement.memories()?;
        }
        Ok(self)
    }

    fn with(self, weights: impl FnOnce(Held<M>) -> Weights, loader: Loader) -> Opened {
        let Self { held, header, identity } = self;
        Opened { header, identity, weights: weights(held), loader }
    }
}

/// The header, and the image's identity.
fn read_header<M: Blocking>(held: &Held<M>, buffer: &mut [u32]) -> Result<(Header, u32), Fault> {
    if !(held.first as usize).is_multiple_of(UNIT) {
        return Err(StreamError::Misplaced { offset: held.first }.into());
    }
    let head = read_bytes(held, buffer, HEADER_BYTES)?;
    let all = header_bytes(&Header::parse(head)?);
    let head = read_bytes(held, buffer, all)?;
    let header = Header::parse(head)?;
    header.verify(head)?;
    let identity = bytemuck::cast_slice(head).get(3).copied().unwrap_or_default();
    Ok((header, identity))
}

fn read_bytes<'b, M: Blocking>(
    held: &Held<M>,
    buffer: &'b mut [u32],
    len: usize,
) -> Result<&'b [u8], Fault> {
    let room = Fault::room(buffer.len(), len / UNIT);
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(buffer.get_mut(..len / UNIT).ok_or(room)?);
    held.medium.get(held.first, bytes)?;
    Ok(bytes)
}
