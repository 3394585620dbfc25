//! Images: weights in memory, or on a medium that a function of the caller reads.

use core::ffi::{c_char, c_int, c_void};

use rwkv_core::{
    Header, Image, StreamError,
    image::{HEADER_BYTES, SECTION_BYTES, TokenizerKind, Version},
    tokenizer::Tokenizer,
};
use rwkv_embedded::stream::Medium;

use crate::{
    error::{Fault, rwkv_detail, rwkv_error},
    model::{Loader, in_place, on_medium},
    opaque::{self, Opaque},
    pointer,
};

/// An image that was opened. Zeroed memory is one that was not.
#[repr(C)]
pub struct rwkv_image {
    /// Not for the caller.
    pub words: [u64; 24],
}

/// Reads `len` bytes at byte `offset` of a medium into `out`; both are multiples of four. Returns
/// 0, or anything else where not all of them could be read.
pub type rwkv_read = Option<
    unsafe extern "C" fn(context: *mut c_void, offset: u32, out: *mut c_void, len: u32) -> c_int,
>;

/// A medium that the core cannot address: a flash chip, a card.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_medium {
    /// How it is read.
    pub read: rwkv_read,
    /// Handed to the function.
    pub context: *mut c_void,
    /// Where the image begins, in bytes, a multiple of four.
    pub offset: u32,
}

/// What an image says of itself.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_info {
    /// RWKV version: ten times the number, so 40, 50, 52, 60, 70; 71 for 7a.
    pub version: u32,
    /// Layers.
    pub layers: u32,
    /// Model width: elements of the hidden vector.
    pub dim: u32,
    /// Width of the channel mix.
    pub ffn: u32,
    /// Tokens in the vocabulary: elements of the logits.
    pub vocab: u32,
    /// Channels per head; 0 for version 4.
    pub head_size: u32,
    /// Rows of recurrent state per layer: the width of RWKV_STATE_WORDS.
    pub state_width: u32,
    /// Words of a state, and of a buffer that undoes a token.
    pub state_words: u32,
    /// Words of scratch.
    pub scratch_words: u32,
    /// Words of the buffer that weights on a medium need.
    pub buffer_words: u32,
    /// Bytes of the image.
    pub bytes: u32,
    /// Names the image: a checksum of all of it.
    pub identity: u32,
    /// Whether rwkv_encode and rwkv_decode work.
    pub has_tokenizer: bool,
    /// Whether it begins with a state of its own, such as a prompt that was read on the host.
    pub has_start_state: bool,
}

/// What reads a medium.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Callback(rwkv_medium);

impl Medium for Callback {
    const UNIT: usize = 4;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        let failed = StreamError::Medium { offset };
        let read = self.0.read.ok_or(failed)?;
        let (out, len) = (bytes.as_mut_ptr().cast(), bytes.len() as u32);
        // SAFETY: the caller's function, with the context that came with it, and memory for as
        // many bytes as it is told.
        match unsafe { read(self.0.context, offset, out, len) } {
            0 => Ok(()),
            _ => Err(failed),
        }
    }
}

/// Where the weights are.
#[derive(Clone, Copy)]
pub(crate) enum Weights {
    Memory(Image<'static>),
    Medium(Callback, u32),
}

pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) identity: u32,
    pub(crate) weights: Weights,
    /// Only what is opened is linked.
    pub(crate) loader: Loader,
}

impl Opaque for rwkv_image {
    type Value = Opened;
    const MARK: u32 = 0x494B_5752;
}

impl Opened {
    pub(crate) fn tokenizer(&self) -> Option<Tokenizer<'static>> {
        match (&self.weights, self.header.tokenizer) {
            (Weights::Memory(image), _) => image.tokenizer(),
            (Weights::Medium(..), TokenizerKind::Bytes) => Some(Tokenizer::Bytes),
            _ => None,
        }
    }
}

/// Opens an image in memory that the core can address, and checks every byte of it. It starts at a
/// multiple of four bytes; what follows it in `len` bytes is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_image_open(
    image: *mut rwkv_image,
    bytes: *const u8,
    len: usize,
) -> rwkv_error {
    // SAFETY: the caller's promises: the bytes are there and stay as they are.
    unsafe {
        let opened = pointer::shared_slice(bytes, len).map_err(Fault::from).and_then(|bytes| {
            let image = Image::open_prefix(bytes)?;
            let (header, identity) = (*image.header(), image.identity());
            Ok(Opened { header, identity, weights: Weights::Memory(image), loader: in_place })
        });
        opaque::init(image, opened)
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
        let open = || {
            let medium = *pointer::shared(medium)?;
            if medium.read.is_none() {
                return Err(rwkv_error::NullPointer.into());
            }
            read_header(medium, pointer::unique_slice(buffer, words)?)
        };
        opaque::init(image, open())
    }
}

fn read_header(medium: rwkv_medium, buffer: &mut [u32]) -> Result<Opened, Fault> {
    let first = medium.offset;
    if !first.is_multiple_of(4) {
        return Err(StreamError::Misplaced { offset: first }.into());
    }
    let mut callback = Callback(medium);
    let head = read_bytes(&mut callback, first, buffer, HEADER_BYTES)?;
    let all = header_bytes(&Header::parse(head)?);
    let head = read_bytes(&mut callback, first, buffer, all)?;
    let header = Header::parse(head)?;
    header.verify(head)?;
    let identity = bytemuck::cast_slice(head).get(3).copied().unwrap_or_default();
    let weights = Weights::Medium(callback, first);
    Ok(Opened { header, identity, weights, loader: on_medium })
}

fn read_bytes<'b>(
    callback: &mut Callback,
    first: u32,
    buffer: &'b mut [u32],
    len: usize,
) -> Result<&'b [u8], Fault> {
    let room = Fault::room(buffer.len(), len / 4);
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(buffer.get_mut(..len / 4).ok_or(room)?);
    let read = rwkv_core::poll::once(callback.read(first, bytes));
    read.unwrap_or(Err(StreamError::Medium { offset: first }))?;
    Ok(bytes)
}

/// What the image says of itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_image_info(
    image: *const rwkv_image,
    info: *mut rwkv_info,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        let told = opaque::value(image).and_then(|image| pointer::put(info, describe(image)));
        told.err().unwrap_or(rwkv_error::Ok)
    }
}

fn describe(image: &Opened) -> rwkv_info {
    let header = &image.header;
    let dims = &header.dims;
    rwkv_info {
        version: header.version as u32,
        layers: dims.layers,
        dim: dims.dim,
        ffn: dims.ffn,
        vocab: dims.vocab,
        head_size: dims.head_size,
        state_width: header.state_width(),
        state_words: u32::try_from(header.state_words()).unwrap_or(u32::MAX),
        scratch_words: header.scratch_words,
        buffer_words: buffer_words(image) as u32,
        bytes: header.bytes(),
        identity: image.identity,
        has_tokenizer: image.tokenizer().is_some(),
        has_start_state: header.start_offset != 0,
    }
}

/// Room for the largest block and for the header, on a medium; none for weights in memory.
pub(crate) fn buffer_words(image: &Opened) -> usize {
    match image.weights {
        Weights::Memory(_) => 0,
        Weights::Medium(..) => {
            let block = rwkv_embedded::stream::buffer_words(&image.header, Callback::UNIT);
            block.max(header_bytes(&image.header) / 4)
        }
    }
}

fn header_bytes(header: &Header) -> usize {
    HEADER_BYTES + usize::from(header.section_count()) * SECTION_BYTES
}

/// Words of a state of the image, and of a buffer that undoes a token; 0 for an image that was not
/// opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_state_words(image: *const rwkv_image) -> usize {
    // SAFETY: the caller's promises.
    unsafe { opaque::value(image) }.map_or(0, |image| image.header.state_words())
}

/// Words of scratch that a model needs; 0 for an image that was not opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_scratch_words(image: *const rwkv_image) -> usize {
    // SAFETY: the caller's promises.
    unsafe { opaque::value(image) }.map_or(0, |image| image.header.scratch_words as usize)
}

/// Words of the buffer that a model needs for weights on a medium; 0 for weights in memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_buffer_words(image: *const rwkv_image) -> usize {
    // SAFETY: the caller's promises.
    unsafe { opaque::value(image) }.map_or(0, buffer_words)
}

/// Details of why the image could not be opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_image_detail(image: *const rwkv_image) -> rwkv_detail {
    // SAFETY: the caller's promises.
    unsafe { opaque::detail(image) }
}

/// The number that people use for an RWKV version, such as "5.2"; null for a code that is none.
#[unsafe(no_mangle)]
pub extern "C" fn rwkv_version_name(version: u32) -> *const c_char {
    let version = u8::try_from(version).ok().and_then(Version::from_code);
    let name = version.and_then(|version| match version {
        Version::V4 => Some(c"4"),
        Version::V50 => Some(c"5.0"),
        Version::V52 => Some(c"5.2"),
        Version::V6 => Some(c"6"),
        Version::V7 => Some(c"7"),
        Version::V7a => Some(c"7a"),
        _ => None,
    });
    name.map_or(core::ptr::null(), |name| name.as_ptr())
}

/// Whether the core's floats are those that the bits rest on: subnormals kept, rounding to nearest
/// even, nothing fused. To be called once at start, before the first token.
#[unsafe(no_mangle)]
pub extern "C" fn rwkv_self_test() -> rwkv_error {
    rwkv_embedded::selftest::floats().err().map_or(rwkv_error::Ok, rwkv_error::from)
}
