//! States: all that a model remembers, to be kept, compared and taken up again.

use rwkv_core::{
    Digest, Header, StateView,
    saved::{SAVED_BYTES, Saved},
};

use crate::{
    error::{Fault, rwkv_detail, rwkv_error},
    image::{Opened, rwkv_image},
    opaque,
    output::rwkv_digest,
    pointer,
};

/// Bytes of the header of a saved state.
pub const RWKV_SAVED_BYTES: u32 = 64;
const _: () = assert!(RWKV_SAVED_BYTES as usize == SAVED_BYTES);

/// No token. The header says it in its own words, in hexadecimal.
///
/// cbindgen:ignore
pub const RWKV_NO_TOKEN: u32 = 0xFFFF_FFFF;

/// The state of one sequence. Several may share a model.
#[repr(C)]
#[derive(Debug)]
pub struct rwkv_state {
    /// Its words: of every layer the two shift rows, then of every layer the recurrent rows.
    pub words: *mut f32,
    /// How many there are: rwkv_state_words or more; what is beyond is not used.
    pub count: usize,
    /// 1 if the words are a state; 0 before rwkv_reset, and after a token that failed half-way.
    pub ready: u32,
    /// Details of the last failure of a function whose first argument this is.
    pub detail: rwkv_detail,
}

/// What a saved state says beside its words.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_place {
    /// Tokens that the state has read.
    pub position: u64,
    /// The token to read next, or RWKV_NO_TOKEN.
    pub pending: u32,
}

impl rwkv_place {
    /// What saves a state at this place.
    pub(crate) fn saved(self, image: &Opened, view: &StateView<'_>) -> Result<Saved, Fault> {
        let saved = Saved::of(image.identity, &image.header, view)?;
        let pending = Some(self.pending).filter(|token| *token != RWKV_NO_TOKEN);
        let saved = Saved { position: self.position, pending, ..saved };
        saved.check(image.identity, &image.header)?;
        Ok(saved)
    }

    pub(crate) fn of(saved: &Saved) -> Self {
        let pending = saved.pending.unwrap_or(RWKV_NO_TOKEN);
        Self { position: saved.position, pending }
    }

    /// Puts it where the caller wants it; nowhere for a null pointer.
    ///
    /// # Safety
    /// Where the pointer is not null, there is memory for a place.
    pub(crate) unsafe fn put(self, at: *mut Self) -> Result<(), rwkv_error> {
        // SAFETY: the caller's promise.
        if at.is_null() { Ok(()) } else { unsafe { pointer::put(at, self) } }
    }
}

impl rwkv_state {
    /// Does something with the view of an image's state; what becomes of `ready` is kept.
    ///
    /// # Safety
    /// The words are there, and nobody else uses them.
    pub(crate) unsafe fn with(
        &mut self,
        header: &Header,
        work: impl FnOnce(StateView<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        let words = unsafe { pointer::unique_slice(self.words, self.count)? };
        let mut ready = self.ready == 1;
        let result = StateView::over(header, words, &mut ready).map_err(Fault::from).and_then(work);
        self.ready = ready.into();
        result
    }

    fn note(&mut self, result: Result<(), Fault>) -> rwkv_error {
        match result {
            Ok(()) => rwkv_error::Ok,
            Err(Fault { error, detail }) => {
                self.detail = detail;
                error
            }
        }
    }
}

/// Does something with a state of an image.
///
/// # Safety
/// Where the pointers are not null, a state and an image lie there.
unsafe fn with(
    state: *mut rwkv_state,
    image: *const rwkv_image,
    work: impl FnOnce(&Opened, StateView<'_>) -> Result<(), Fault>,
) -> rwkv_error {
    // SAFETY: the caller's promise.
    unsafe {
        let state = match pointer::unique(state) {
            Ok(state) => state,
            Err(error) => return error,
        };
        let result = match opaque::value(image) {
            Ok(image) => state.with(&image.header, |view| work(image, view)),
            Err(error) => Err(error.into()),
        };
        state.note(result)
    }
}

/// A state over memory of `count` words, RWKV_STATE_WORDS or more. It is none before rwkv_reset or
/// rwkv_state_restore.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_state_init(
    state: *mut rwkv_state,
    words: *mut f32,
    count: usize,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        let new = rwkv_state { words, count, ready: 0, detail: rwkv_detail::NONE };
        let checked = pointer::unique_slice(words, count).map(|_| ());
        checked.and_then(|()| pointer::put(state, new)).err().unwrap_or(rwkv_error::Ok)
    }
}

/// The header of a saved state, RWKV_SAVED_BYTES of it. Whoever keeps it keeps the first
/// rwkv_state_words words of the state behind it, as they lie in memory: the file that `rwkv
/// prefill` writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_state_save(
    state: *mut rwkv_state,
    image: *const rwkv_image,
    place: rwkv_place,
    header: *mut u8,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        with(state, image, |image, view| {
            let saved = place.saved(image, &view)?;
            let out = pointer::unique_slice(header, SAVED_BYTES)?;
            out.copy_from_slice(&saved.to_bytes());
            Ok(())
        })
    }
}

/// Takes up a saved state of the image, header and words in `len` bytes. An error leaves the state
/// as it was. `place` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_state_restore(
    state: *mut rwkv_state,
    image: *const rwkv_image,
    bytes: *const u8,
    len: usize,
    place: *mut rwkv_place,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        with(state, image, |image, mut view| {
            let bytes = pointer::shared_slice(bytes, len)?;
            let saved = Saved::parse(bytes)?;
            saved.check(image.identity, &image.header)?;
            let words = bytes.get(SAVED_BYTES..).unwrap_or_default();
            rwkv_place::of(&saved).put(place)?;
            Ok(saved.restore(words, &mut view)?)
        })
    }
}

/// The digest of a token: of the state after it, and of its logits as an rwkv_output has left them.
/// It is equal on every machine, and what `rwkv validate` compares. `logits` may be null for a
/// state alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_token_digest(
    state: *mut rwkv_state,
    image: *const rwkv_image,
    logits: *const rwkv_digest,
    digest: *mut rwkv_digest,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        with(state, image, |image, view| {
            view.check(&image.header)?;
            let logits =
                if logits.is_null() { rwkv_digest::default() } else { *pointer::shared(logits)? };
            let all = Digest::token(&image.header, &view, logits.into())?;
            Ok(pointer::put(digest, all.into())?)
        })
    }
}
