//! States that survive a power failure, in two slots of a flash.

use core::ffi::{c_int, c_void};

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use rwkv_embedded::snapshot::Snapshots;

use crate::{
    error::{Fault, rwkv_detail, rwkv_error},
    image::{Opened, rwkv_image},
    medium::rwkv_read,
    opaque::{self, Opaque},
    pointer,
    state::{rwkv_place, rwkv_state},
};

/// Two slots in a flash.
#[repr(C)]
pub struct rwkv_snapshots {
    /// Not for the caller.
    pub words: [u64; 12],
}

/// Writes `len` bytes at byte `offset` of a flash, where it is erased; both are multiples of 64.
/// Returns 0, or anything else where not all of them could be written.
pub type rwkv_flash_write = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        offset: u32,
        bytes: *const c_void,
        len: u32,
    ) -> c_int,
>;

/// Erases `len` bytes at byte `offset` of a flash, whole pieces that it erases. Returns 0, or
/// anything else where that has failed.
pub type rwkv_flash_erase =
    Option<unsafe extern "C" fn(context: *mut c_void, offset: u32, len: u32) -> c_int>;

/// A flash that can be written, and its geometry. All functions wait until they have done.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_flash {
    /// How it is read: 64 bytes at a time, from multiples of 64 on.
    pub read: rwkv_read,
    /// How it is written.
    pub write: rwkv_flash_write,
    /// How it is erased.
    pub erase: rwkv_flash_erase,
    /// Handed to the functions.
    pub context: *mut c_void,
    /// Bytes of the flash.
    pub bytes: u32,
    /// Bytes of the pieces that it reads, of which 64 bytes are whole ones; 1 for any.
    pub read_size: u32,
    /// Bytes of the pieces that it writes, of which 64 bytes are whole ones; 1 for any.
    pub write_size: u32,
    /// Bytes of the pieces that it erases, a multiple of 64.
    pub erase_size: u32,
}

/// The pieces that snapshots are read and written in.
const PIECE: usize = 64;

/// The flash behind the functions, which are there.
pub(crate) struct Flash {
    read: unsafe extern "C" fn(*mut c_void, u32, *mut c_void, u32) -> c_int,
    write: unsafe extern "C" fn(*mut c_void, u32, *const c_void, u32) -> c_int,
    erase: unsafe extern "C" fn(*mut c_void, u32, u32) -> c_int,
    context: *mut c_void,
    bytes: u32,
}

/// A function returned something else than 0.
#[derive(Debug)]
pub(crate) struct Failed;

impl Failed {
    const fn unless_zero(code: c_int) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self) }
    }
}

impl NorFlashError for Failed {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ErrorType for Flash {
    type Error = Failed;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = PIECE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Failed> {
        let (out, len) = (bytes.as_mut_ptr().cast(), bytes.len() as u32);
        // SAFETY: the caller's function, with the context that came with it, and memory for as
        // many bytes as it is told.
        Failed::unless_zero(unsafe { (self.read)(self.context, offset, out, len) })
    }

    fn capacity(&self) -> usize {
        self.bytes as usize
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = PIECE;
    /// The least that there is; how much it is, is known when the program runs.
    const ERASE_SIZE: usize = PIECE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Failed> {
        // SAFETY: the caller's function, with the context that came with it.
        Failed::unless_zero(unsafe { (self.erase)(self.context, from, to.wrapping_sub(from)) })
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Failed> {
        let (from, len) = (bytes.as_ptr().cast(), bytes.len() as u32);
        // SAFETY: as for reading.
        Failed::unless_zero(unsafe { (self.write)(self.context, offset, from, len) })
    }
}

impl Opaque for rwkv_snapshots {
    type Value = Snapshots<Flash>;
    const MARK: u32 = 0x464B_5752;
}

fn open(flash: &rwkv_flash, first: u32, image: &Opened) -> Result<Snapshots<Flash>, Fault> {
    let rwkv_flash { read, write, erase, context, bytes, .. } = *flash;
    let (Some(read), Some(write), Some(erase)) = (read, write, erase) else {
        return Err(rwkv_error::NullPointer.into());
    };
    let whole = |size: u32| size > 0 && PIECE.is_multiple_of(size as usize);
    let erased = flash.erase_size as usize;
    if !whole(flash.read_size)
        || !whole(flash.write_size)
        || erased == 0
        || !erased.is_multiple_of(PIECE)
    {
        return Err(rwkv_error::SnapshotGeometry.into());
    }
    let flash = Flash { read, write, erase, context, bytes };
    Ok(Snapshots::erasing(flash, erased, first, &image.header)?)
}

/// Two slots for states of an image, one after the other, from byte `first` of a flash on, where it
/// can be erased: RWKV_SNAPSHOTS_BYTES. What is there is left as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_snapshots_init(
    snapshots: *mut rwkv_snapshots,
    flash: *const rwkv_flash,
    first: u32,
    image: *const rwkv_image,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        let open = || open(pointer::shared(flash)?, first, opaque::value(image)?);
        opaque::init(snapshots, open())
    }
}

/// Keeps a state of an image, with its place. Wherever power is lost meanwhile, and after an error,
/// the snapshot before is still there, unless the new one is whole.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_snapshots_save(
    snapshots: *mut rwkv_snapshots,
    state: *mut rwkv_state,
    image: *const rwkv_image,
    place: rwkv_place,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        opaque::with(snapshots, |snapshots| {
            let image = opaque::value(image)?;
            pointer::unique(state)?
                .with(&image.header, |view| Ok(snapshots.save(place.saved(image, &view)?, &view)?))
        })
    }
}

/// Takes up the newest snapshot that is whole; RWKV_ERROR_NO_SNAPSHOT if there is none. That, and a
/// snapshot of another image, leaves the state as it was; a flash that fails half-way leaves it
/// broken. `place` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_snapshots_load(
    snapshots: *mut rwkv_snapshots,
    state: *mut rwkv_state,
    image: *const rwkv_image,
    place: *mut rwkv_place,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        opaque::with(snapshots, |snapshots| {
            let image = opaque::value(image)?;
            pointer::unique(state)?.with(&image.header, |mut view| {
                let found = snapshots.load(image.identity, &image.header, &mut view)?;
                let saved = found.ok_or(rwkv_error::NoSnapshot)?;
                Ok(rwkv_place::of(&saved).put(place)?)
            })
        })
    }
}

/// Details of the last failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_snapshots_detail(snapshots: *const rwkv_snapshots) -> rwkv_detail {
    // SAFETY: the caller's promises.
    unsafe { opaque::detail(snapshots) }
}
