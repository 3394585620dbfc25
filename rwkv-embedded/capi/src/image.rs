//! Images, and what they say of themselves.

use core::ffi::c_char;

use rwkv_core::{
    Header, Image,
    image::{HEADER_BYTES, SECTION_BYTES, TokenizerKind, Version},
    tokenizer::Tokenizer,
};
use rwkv_embedded::stream;

use crate::{
    error::{Fault, rwkv_detail, rwkv_error},
    medium::{Beginning, UNIT, Waiting},
    opaque::{self, Opaque},
    open::Placement,
    pointer,
    weights::{AHEAD_WORDS, Loader, in_place},
};

/// An image that was opened. Zeroed memory is one that was not.
#[repr(C)]
pub struct rwkv_image {
    /// Not for the caller.
    pub words: [u64; 22],
    /// Not for the caller: what is smaller where pointers are.
    pub pointers: [usize; 3],
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
    /// Words of the buffer for weights on a medium that has room for every block.
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

/// Where the weights are.
#[derive(Clone, Copy)]
pub(crate) enum Weights {
    Memory(Image<'static>),
    Medium(Held<Waiting>),
    Ahead(Held<Beginning>),
}

/// An image on a medium.
#[derive(Clone, Copy)]
pub(crate) struct Held<M> {
    pub(crate) medium: M,
    /// Where it begins.
    pub(crate) first: u32,
    /// Parts of it that lie in flash, and in RAM.
    pub(crate) placed: [Placement; 2],
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
            (_, TokenizerKind::Bytes) => Some(Tokenizer::Bytes),
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

/// As [`buffer_words`], with room for blocks of so many words; longer ones come in pieces.
pub(crate) fn buffer_words_for(image: &Opened, piece: usize) -> usize {
    let piece = piece.max(header_bytes(&image.header) / 4);
    match image.weights {
        Weights::Memory(_) => 0,
        Weights::Medium(_) => piece,
        Weights::Ahead(_) => AHEAD_WORDS + 2 * piece + stream::row_words(&image.header, UNIT),
    }
}

/// Room for the largest block and for the header, on a medium; twice that, for a row of a table,
/// and for what is known of the reads, where it is read ahead; none for weights in memory.
pub(crate) fn buffer_words(image: &Opened) -> usize {
    buffer_words_for(image, stream::buffer_words(&image.header, UNIT))
}

pub(crate) fn header_bytes(header: &Header) -> usize {
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

/// Words of the buffer for weights on a medium that has room for every block, for both buffers and
/// more where it is read ahead; 0 for weights in memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_buffer_words(image: *const rwkv_image) -> usize {
    // SAFETY: the caller's promises.
    unsafe { opaque::value(image) }.map_or(0, buffer_words)
}

/// As rwkv_buffer_words, of the shortest buffer for an image that `rwkv convert --block-bytes 512`,
/// or less, has made: longer rows come in pieces. For any other image, `rwkv info` says how few words
/// are enough.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_least_buffer_words(image: *const rwkv_image) -> usize {
    // SAFETY: the caller's promises.
    unsafe { opaque::value(image) }
        .map_or(0, |image| buffer_words_for(image, stream::least_buffer_words(&image.header, UNIT)))
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
