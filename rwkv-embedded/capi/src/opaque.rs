//! What lies in the opaque structs of the header.

use core::{mem::MaybeUninit, ptr};

use crate::{
    error::{Fault, rwkv_detail, rwkv_error},
    pointer,
};

/// A struct of the header whose words are nobody's business.
pub(crate) trait Opaque: Sized {
    /// What is in it.
    type Value;
    /// Tells it from memory that nobody has initialised, and from the others.
    const MARK: u32;
}

#[repr(C)]
pub(crate) struct Slot<T> {
    mark: u32,
    pub(crate) detail: rwkv_detail,
    value: MaybeUninit<T>,
}

/// Initialises a struct; one that failed keeps the details and refuses everything else.
///
/// # Safety
/// Where the pointer is not null, there is memory for an `O` that nobody else uses.
pub(crate) unsafe fn init<O: Opaque>(at: *mut O, value: Result<O::Value, Fault>) -> rwkv_error {
    const {
        assert!(size_of::<Slot<O::Value>>() <= size_of::<O>(), "the header's struct is too small");
        assert!(align_of::<Slot<O::Value>>() <= align_of::<O>(), "its alignment is too small");
    }
    let (error, slot) = match value {
        Ok(value) => {
            let value = MaybeUninit::new(value);
            (rwkv_error::Ok, Slot { mark: O::MARK, detail: rwkv_detail::NONE, value })
        }
        Err(Fault { error, detail }) => {
            (error, Slot { mark: !O::MARK, detail, value: MaybeUninit::uninit() })
        }
    };
    // SAFETY: a slot fits into the struct, as asserted above; the rest is the caller's promise.
    match unsafe { pointer::put(at.cast::<Slot<O::Value>>(), slot) } {
        Ok(()) => error,
        Err(error) => error,
    }
}

impl<T> Slot<T> {
    /// Keeps the details of a failure.
    pub(crate) fn note(&mut self, result: Result<(), Fault>) -> rwkv_error {
        match result {
            Ok(()) => rwkv_error::Ok,
            Err(Fault { error, detail }) => {
                self.detail = detail;
                error
            }
        }
    }

    /// The value.
    pub(crate) const fn get(&mut self) -> &mut T {
        // SAFETY: only slots that were initialised are handed out.
        unsafe { self.value.assume_init_mut() }
    }
}

/// The slot of a struct that was initialised.
///
/// # Safety
/// Where the pointer is not null, an `O` lies there that nobody else uses.
pub(crate) unsafe fn slot<'a, O: Opaque>(at: *mut O) -> Result<&'a mut Slot<O::Value>, rwkv_error> {
    // SAFETY: the mark alone is looked at first, a word that any memory has; a slot fits into the
    // struct, as `init` asserts. The rest is the caller's promise.
    unsafe {
        let mark = *pointer::shared(at.cast::<u32>())?;
        if mark != O::MARK {
            return Err(rwkv_error::Uninitialised);
        }
        pointer::unique(at.cast())
    }
}

/// Does something with the value of a struct that was initialised, which keeps the details of a
/// failure.
///
/// # Safety
/// As [`slot`].
pub(crate) unsafe fn with<O: Opaque>(
    at: *mut O,
    work: impl FnOnce(&mut O::Value) -> Result<(), Fault>,
) -> rwkv_error {
    // SAFETY: the caller's promise.
    match unsafe { slot(at) } {
        Ok(slot) => {
            let result = work(slot.get());
            slot.note(result)
        }
        Err(error) => error,
    }
}

/// The value of a struct that was initialised.
///
/// # Safety
/// Where the pointer is not null, an `O` lies there that nobody writes to.
pub(crate) unsafe fn value<'a, O: Opaque>(at: *const O) -> Result<&'a O::Value, rwkv_error> {
    // SAFETY: as in `slot`, and nothing is written.
    unsafe {
        let mark = *pointer::shared(at.cast::<u32>())?;
        if mark != O::MARK {
            return Err(rwkv_error::Uninitialised);
        }
        let slot = pointer::shared(at.cast::<Slot<O::Value>>())?;
        Ok(slot.value.assume_init_ref())
    }
}

/// The details that a struct keeps; none where there is no such struct.
///
/// # Safety
/// As [`value`].
pub(crate) unsafe fn detail<O: Opaque>(at: *const O) -> rwkv_detail {
    // SAFETY: as in `value`; mark and detail are there also in a slot that failed.
    unsafe {
        match pointer::shared(at.cast::<u32>()) {
            Ok(mark) if *mark == O::MARK || *mark == !O::MARK => {
                ptr::read((&raw const (*at.cast::<Slot<O::Value>>()).detail).cast())
            }
            _ => rwkv_detail::NONE,
        }
    }
}
