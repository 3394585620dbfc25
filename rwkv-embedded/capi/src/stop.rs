//! The end of a text, found in the bytes of tokens.

use core::ffi::c_void;

use rwkv_core::tokenizer::StopStream;

use crate::{
    error::{Fault, rwkv_error},
    opaque::{self, Opaque},
    pointer,
    text::{code, rwkv_write},
};

/// No stop text was found. The header says it in its own words, in hexadecimal.
///
/// cbindgen:ignore
pub const RWKV_NO_STOP: u32 = 0xFFFF_FFFF;

/// Bytes of a text.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_text {
    /// Where they are.
    pub bytes: *const u8,
    /// How many.
    pub len: usize,
}

/// Finds the first of several stop texts in bytes that come in pieces, and passes on what stands
/// before it. Bytes that may be the start of one are held back until it is certain that they are
/// not. Of several that end at the same byte, the longest is found.
#[repr(C)]
pub struct rwkv_stop {
    /// Not for the caller.
    pub words: [u64; 8],
}

/// A text whose pointer was checked.
#[repr(transparent)]
pub(crate) struct Text(rwkv_text);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the promise of whoever gave the text: as many bytes, which stay as they are.
        unsafe { pointer::shared_slice(self.0.bytes, self.0.len) }.unwrap_or_default()
    }
}

impl Opaque for rwkv_stop {
    type Value = StopStream<'static, Text>;
    const MARK: u32 = 0x454B_5752;
}

/// A stream at its start, over `count` stop texts of a byte or more; without any it has no end.
/// The texts and the array of them stay where they are for as long as the stream is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_stop_init(
    stop: *mut rwkv_stop,
    texts: *const rwkv_text,
    count: usize,
) -> rwkv_error {
    // SAFETY: the caller's promises; a `Text` is an `rwkv_text`, and all of them are checked.
    unsafe {
        let stream = || {
            for text in pointer::shared_slice(texts, count)? {
                pointer::shared_slice(text.bytes, text.len)?;
            }
            let texts = pointer::shared_slice(texts.cast::<Text>(), count)?;
            StopStream::over(texts).map_err(|_| Fault::from(rwkv_error::EmptyStopText))
        };
        opaque::init(stop, stream())
    }
}

/// Takes bytes, as rwkv_decode gives them, and writes those that are certain to stand before a stop
/// text. `found` receives which one was found, in these bytes or before, or RWKV_NO_STOP: whatever
/// comes after it is dropped. Where the function fails, the rest of the bytes is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_stop_push(
    stop: *mut rwkv_stop,
    bytes: *const u8,
    len: usize,
    write: rwkv_write,
    context: *mut c_void,
    found: *mut u32,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    code(unsafe {
        with(stop, write, context, |stream, out| {
            let index = stream.push(pointer::shared_slice(bytes, len)?, out);
            pointer::put(found, index.map_or(RWKV_NO_STOP, |index| index as u32))
        })
    })
}

/// Writes what was held back, which is no stop text, and begins anew.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_stop_finish(
    stop: *mut rwkv_stop,
    write: rwkv_write,
    context: *mut c_void,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    code(unsafe {
        with(stop, write, context, |stream, out| {
            stream.finish(out);
            Ok(())
        })
    })
}

/// Does something with a stream that writes. Nothing more is written once a write has failed.
///
/// # Safety
/// The pointers are good where they are not null, and the function takes the context.
unsafe fn with(
    stop: *mut rwkv_stop,
    write: rwkv_write,
    context: *mut c_void,
    work: impl FnOnce(&mut StopStream<'static, Text>, &mut dyn FnMut(&[u8])) -> Result<(), rwkv_error>,
) -> Result<(), Fault> {
    let write = write.ok_or(rwkv_error::NullPointer)?;
    let mut failed = false;
    let mut out = |bytes: &[u8]| {
        // SAFETY: the caller's function, with the context that came with it.
        failed = failed || unsafe { write(context, bytes.as_ptr(), bytes.len()) } != 0;
    };
    // SAFETY: the caller's promise.
    work(unsafe { opaque::slot(stop) }?.get(), &mut out)?;
    if failed { Err(rwkv_error::Write.into()) } else { Ok(()) }
}
