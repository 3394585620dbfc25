//! Media: what the core cannot address, read by functions of the caller's.

use core::{
    ffi::{c_int, c_void},
    future::poll_fn,
    marker::PhantomData,
    task::Poll,
};

use rwkv_core::StreamError;
use rwkv_embedded::stream::Medium;

/// What a medium's functions return where another card is there than the one that was read first.
pub const RWKV_CHANGED: c_int = -2;

/// Reads `len` bytes at byte `offset` of a medium into `out`; both are multiples of four. Returns
/// 0; RWKV_CHANGED; or anything else where not all of them could be read.
pub type rwkv_read = Option<
    unsafe extern "C" fn(context: *mut c_void, offset: u32, out: *mut c_void, len: u32) -> c_int,
>;

/// Begins such a read and returns at once: 0 if it was begun, anything else if not. Until
/// `rwkv_ready` says that it has ended, `out` is the medium's, and no other read is begun.
pub type rwkv_begin = rwkv_read;

/// Whether the read that was begun has ended: 0 if all bytes are there, a positive number while it
/// goes on, a negative one if it has failed, RWKV_CHANGED among them. Whoever returns 0 or a
/// negative number has seen to it that nothing is written into `out` any more. It is asked again
/// and again while the read goes on, between blocks of computing and where there is nothing to
/// compute, and not after its end.
pub type rwkv_ready = Option<unsafe extern "C" fn(context: *mut c_void) -> c_int>;

/// A medium that the core cannot address: a flash chip, a card.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_medium {
    /// How it is read: by a function that waits until it has. Not used by rwkv_image_open_ahead.
    pub read: rwkv_read,
    /// Handed to the functions.
    pub context: *mut c_void,
    /// Where the image begins, in bytes, a multiple of four.
    pub offset: u32,
    /// How it is read while the core computes, for rwkv_image_open_ahead; else null.
    pub begin: rwkv_begin,
    /// Whether it has been read, for rwkv_image_open_ahead; else null.
    pub ready: rwkv_ready,
}

/// What a function's number tells of a read at byte `offset`.
const fn failed(code: c_int, offset: u32) -> StreamError {
    match code {
        RWKV_CHANGED => StreamError::Changed { offset },
        _ => StreamError::Medium { offset },
    }
}

/// Places and lengths of reads are multiples of this many bytes.
pub(crate) const UNIT: usize = 4;

/// A medium that can be read and waited for.
pub(crate) trait Blocking: Copy {
    fn get(self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError>;
}

/// A medium whose function waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    read: unsafe extern "C" fn(*mut c_void, u32, *mut c_void, u32) -> c_int,
    context: *mut c_void,
}

impl Waiting {
    /// `None` if the medium has no such function.
    pub(crate) fn of(medium: &rwkv_medium) -> Option<Self> {
        Some(Self { read: medium.read?, context: medium.context })
    }
}

impl Blocking for Waiting {
    fn get(self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        let (out, len) = (bytes.as_mut_ptr().cast(), bytes.len() as u32);
        // SAFETY: the caller's function, with the context that came with it, and memory for as
        // many bytes as it is told.
        match unsafe { (self.read)(self.context, offset, out, len) } {
            0 => Ok(()),
            code => Err(failed(code, offset)),
        }
    }
}

/// One of them behind a stream that waits.
#[derive(Debug)]
pub(crate) struct Blocked<M>(pub(crate) M);

impl<M: Blocking> Medium for Blocked<M> {
    const UNIT: usize = UNIT;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        self.0.get(offset, bytes)
    }
}

/// A medium that reads while the core computes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beginning {
    begin: unsafe extern "C" fn(*mut c_void, u32, *mut c_void, u32) -> c_int,
    ready: unsafe extern "C" fn(*mut c_void) -> c_int,
    context: *mut c_void,
}

impl Beginning {
    /// `None` if the medium lacks one of the functions.
    pub(crate) fn of(medium: &rwkv_medium) -> Option<Self> {
        Some(Self { begin: medium.begin?, ready: medium.ready?, context: medium.context })
    }

    fn begin(self, offset: u32, bytes: &mut [u8]) -> Result<Transfer<'_>, StreamError> {
        let (out, len) = (bytes.as_mut_ptr().cast(), bytes.len() as u32);
        // SAFETY: the caller's function, with the context that came with it, and memory for as
        // many bytes as it is told, which the transfer keeps until it has ended.
        match unsafe { (self.begin)(self.context, offset, out, len) } {
            0 => Ok(Transfer { medium: self, offset, runs: true, bytes: PhantomData }),
            code => Err(failed(code, offset)),
        }
    }
}

impl Blocking for Beginning {
    fn get(self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        let mut transfer = self.begin(offset, bytes)?;
        loop {
            if let Poll::Ready(result) = transfer.poll() {
                return result;
            }
        }
    }
}

impl Medium for Beginning {
    const UNIT: usize = UNIT;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        let mut transfer = self.begin(offset, bytes)?;
        poll_fn(|_| transfer.poll()).await
    }
}

/// A read that was begun. Where nobody wants it any more, such as after a block that turned out to
/// be damaged, its end is waited for all the same: until then the medium writes into the bytes.
struct Transfer<'b> {
    medium: Beginning,
    offset: u32,
    runs: bool,
    bytes: PhantomData<&'b mut [u8]>,
}

impl Transfer<'_> {
    fn poll(&mut self) -> Poll<Result<(), StreamError>> {
        // SAFETY: the caller's function, with the context that came with it.
        let code = unsafe { (self.medium.ready)(self.medium.context) };
        self.runs = code > 0;
        match code {
            0 => Poll::Ready(Ok(())),
            1.. => Poll::Pending,
            _ => Poll::Ready(Err(failed(code, self.offset))),
        }
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        while self.runs {
            let _ = self.poll();
        }
    }
}
