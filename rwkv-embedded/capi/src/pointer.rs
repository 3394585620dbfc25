//! From pointers of C to references.

use core::{ptr, slice};

use crate::error::rwkv_error;

/// Refuses null pointers and those that are not aligned for what they point to.
fn check<T>(at: *const T) -> Result<(), rwkv_error> {
    if at.is_null() {
        return Err(rwkv_error::NullPointer);
    }
    if !at.is_aligned() {
        return Err(rwkv_error::MisalignedPointer);
    }
    Ok(())
}

/// # Safety
/// Where the pointer is not null, a `T` lies there that nobody writes to.
pub(crate) unsafe fn shared<'a, T>(at: *const T) -> Result<&'a T, rwkv_error> {
    check(at)?;
    // SAFETY: aligned and not null; the rest is the caller's promise.
    Ok(unsafe { &*at })
}

/// # Safety
/// Where the pointer is not null, a `T` lies there that nobody else uses.
pub(crate) unsafe fn unique<'a, T>(at: *mut T) -> Result<&'a mut T, rwkv_error> {
    check(at)?;
    // SAFETY: aligned and not null; the rest is the caller's promise.
    Ok(unsafe { &mut *at })
}

/// # Safety
/// Where the pointer is not null, `count` of `T` lie there that nobody writes to.
pub(crate) unsafe fn shared_slice<'a, T>(
    at: *const T,
    count: usize,
) -> Result<&'a [T], rwkv_error> {
    if count == 0 {
        return Ok(&[]);
    }
    check(at)?;
    // SAFETY: aligned and not null; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(at, count) })
}

/// # Safety
/// Where the pointer is not null, there is memory for `count` of `T`, plain numbers, that nobody
/// else uses.
pub(crate) unsafe fn unique_slice<'a, T>(
    at: *mut T,
    count: usize,
) -> Result<&'a mut [T], rwkv_error> {
    if count == 0 {
        return Ok(&mut []);
    }
    check(at)?;
    // SAFETY: aligned and not null; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(at, count) })
}

/// As [`unique_slice`]; `None` for a null pointer.
///
/// # Safety
/// As there.
pub(crate) unsafe fn optional_slice<'a, T>(
    at: *mut T,
    count: usize,
) -> Result<Option<&'a mut [T]>, rwkv_error> {
    if at.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { unique_slice(at, count) }.map(Some)
}

/// Puts a value where the caller wants it.
///
/// # Safety
/// Where the pointer is not null, there is memory for a `T`.
pub(crate) unsafe fn put<T>(at: *mut T, value: T) -> Result<(), rwkv_error> {
    check(at)?;
    // SAFETY: aligned and not null; the rest is the caller's promise.
    unsafe { ptr::write(at, value) };
    Ok(())
}
