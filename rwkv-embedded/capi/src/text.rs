//! Between text and tokens.

use core::{
    ffi::c_void,
    fmt::{self, Write},
};

use rwkv_core::tokenizer::Utf8Stream;

use crate::{
    error::{Fault, rwkv_error},
    image::rwkv_image,
    opaque::{self, Opaque},
    pointer,
};

/// Takes `len` bytes of text; from rwkv_utf8_push, they are whole characters of UTF-8. Returns 0, or
/// anything else to stop.
pub type rwkv_write = Option<
    unsafe extern "C" fn(context: *mut c_void, text: *const u8, len: usize) -> core::ffi::c_int,
>;

/// Makes whole characters of bytes that come in pieces.
#[repr(C)]
pub struct rwkv_utf8 {
    /// Not for the caller.
    pub words: [u32; 5],
}

impl Opaque for rwkv_utf8 {
    type Value = Utf8Stream;
    const MARK: u32 = 0x554B_5752;
}

pub(crate) fn code(result: Result<(), Fault>) -> rwkv_error {
    result.err().map_or(rwkv_error::Ok, |fault| fault.error)
}

/// The tokens of a text. `count` receives how many there are, `tokens` as many of them as it has
/// room for, in elements: where that is too little, the error is RWKV_ERROR_ROOM. A token has one
/// byte of text or more. `tokens` may be null where `room` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_encode(
    image: *const rwkv_image,
    text: *const u8,
    len: usize,
    tokens: *mut u32,
    room: usize,
    count: *mut usize,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    code(unsafe { encode(image, (text, len), (tokens, room), count) })
}

/// # Safety
/// As the function above.
unsafe fn encode(
    image: *const rwkv_image,
    (text, len): (*const u8, usize),
    (tokens, room): (*mut u32, usize),
    count: *mut usize,
) -> Result<(), Fault> {
    // SAFETY: the caller's promises.
    unsafe {
        let tokenizer = opaque::value(image)?.tokenizer().ok_or(rwkv_error::NoTokenizer)?;
        let text = pointer::shared_slice(text, len)?;
        let out = pointer::unique_slice(tokens, room)?;
        let mut needed = 0;
        for token in tokenizer.encode(text) {
            if let Some(place) = out.get_mut(needed) {
                *place = token;
            }
            needed += 1;
        }
        pointer::put(count, needed)?;
        if needed > room { Err(Fault::room(room, needed)) } else { Ok(()) }
    }
}

/// The bytes of a token, in the image or the library; they are not to be changed. A token may end
/// inside a character: see rwkv_utf8_push.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_decode(
    image: *const rwkv_image,
    token: u32,
    text: *mut *const u8,
    len: *mut usize,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    let decode = || unsafe {
        let tokenizer = opaque::value(image)?.tokenizer().ok_or(rwkv_error::NoTokenizer)?;
        let bytes = tokenizer.decode(token)?;
        pointer::put(text, bytes.as_ptr())?;
        Ok(pointer::put(len, bytes.len())?)
    };
    code(decode())
}

/// The token that ends a text, or RWKV_NO_TOKEN where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_end_of_text(image: *const rwkv_image) -> u32 {
    // SAFETY: the caller's promises.
    let tokenizer = unsafe { opaque::value(image) }.ok().and_then(|image| image.tokenizer());
    tokenizer.and_then(|t| t.end_of_text()).unwrap_or(crate::state::RWKV_NO_TOKEN)
}

/// A stream at its start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_utf8_init(stream: *mut rwkv_utf8) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe { opaque::init(stream, Ok(Utf8Stream::new())) }
}

/// Takes bytes and writes the characters that they complete; U+FFFD stands for what is no
/// character. Where the function fails, the rest of the bytes is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_utf8_push(
    stream: *mut rwkv_utf8,
    bytes: *const u8,
    len: usize,
    write: rwkv_write,
    context: *mut c_void,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    let push = || unsafe {
        let slot = opaque::slot(stream)?;
        let mut out = Out { write: write.ok_or(rwkv_error::NullPointer)?, context };
        let bytes = pointer::shared_slice(bytes, len)?;
        slot.get().push(bytes, &mut out).map_err(|_| rwkv_error::Write)
    };
    push().err().unwrap_or(rwkv_error::Ok)
}

/// Writes U+FFFD if the text ends inside a character, and begins anew.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_utf8_finish(
    stream: *mut rwkv_utf8,
    write: rwkv_write,
    context: *mut c_void,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    let finish = || unsafe {
        let slot = opaque::slot(stream)?;
        let mut out = Out { write: write.ok_or(rwkv_error::NullPointer)?, context };
        slot.get().finish(&mut out).map_err(|_| rwkv_error::Write)
    };
    finish().err().unwrap_or(rwkv_error::Ok)
}

struct Out {
    write: unsafe extern "C" fn(*mut c_void, *const u8, usize) -> core::ffi::c_int,
    context: *mut c_void,
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the caller's function, with the context that came with it.
        match unsafe { (self.write)(self.context, text.as_ptr(), text.len()) } {
            0 => Ok(()),
            _ => Err(fmt::Error),
        }
    }
}
