//! Models: weights and memory, ready to compute tokens.

use rwkv_core::StateView;

use crate::{
    error::{Fault, rwkv_detail, rwkv_error},
    image::rwkv_image,
    opaque::{self, Opaque},
    output::{Sink, rwkv_output},
    pointer,
    state::rwkv_state,
    weights::{Loaded, Memory},
};

/// A model.
#[repr(C)]
pub struct rwkv_model {
    /// Not for the caller.
    pub words: [u64; 24],
    /// Not for the caller: what is smaller where pointers are.
    pub pointers: [usize; 22],
}

/// The memory of a model, all of it the caller's. The sizes are in words of four bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_memory {
    /// What a token is computed in.
    pub scratch: *mut f32,
    /// Words of it: rwkv_scratch_words or more.
    pub scratch_words: usize,
    /// A copy of the state while a token is computed, so that one that fails leaves the state as it
    /// was and may be tried again; null for none. Weights in memory hardly fail.
    pub undo: *mut f32,
    /// Words of it: rwkv_state_words or more.
    pub undo_words: usize,
    /// What weights on a medium are read into, all buffers one after the other; null for weights in
    /// memory.
    pub buffer: *mut u32,
    /// Words of it: rwkv_buffer_words or more, or fewer, for long rows in pieces:
    /// rwkv_least_buffer_words.
    pub buffer_words: usize,
}

impl Opaque for rwkv_model {
    type Value = Loaded;
    const MARK: u32 = 0x4D4B_5752;
}

impl Loaded {
    fn prefill(
        &mut self,
        state: &mut StateView<'_>,
        tokens: impl Iterator<Item = u32>,
        mut sink: Sink<'_>,
    ) -> Result<(), Fault> {
        let mut tokens = tokens.peekable();
        while let Some(token) = tokens.next() {
            let last = tokens.peek().is_none();
            if last {
                sink.begin();
            }
            match self.step(state.reborrow(), token, last.then_some(&mut sink)) {
                Ok(()) if last => sink.end(),
                Ok(()) => {}
                Err(error) => {
                    // Part of a row is none.
                    sink.begin();
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

/// A model over an image, in memory of the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_model_init(
    model: *mut rwkv_model,
    image: *const rwkv_image,
    memory: *const rwkv_memory,
) -> rwkv_error {
    // SAFETY: the caller's promises: the memory is nobody else's for as long as the model is used.
    unsafe {
        let load = || {
            let image = opaque::value(image)?;
            let memory = pointer::shared(memory)?;
            let memory = Memory {
                scratch: pointer::unique_slice(memory.scratch, memory.scratch_words)?,
                undo: pointer::optional_slice(memory.undo, memory.undo_words)?,
                buffer: pointer::optional_slice(memory.buffer, memory.buffer_words)?,
            };
            (image.loader)(image, memory)
        };
        opaque::init(model, load())
    }
}

/// Does something with a model and a state.
///
/// # Safety
/// Where the pointers are not null, a model and a state lie there that nobody else uses.
unsafe fn with(
    model: *mut rwkv_model,
    state: *mut rwkv_state,
    work: impl FnOnce(&mut Loaded, StateView<'_>) -> Result<(), Fault>,
) -> rwkv_error {
    // SAFETY: the caller's promise.
    unsafe {
        opaque::with(model, |model| {
            let header = *model.header();
            pointer::unique(state)?.with(&header, |view| work(model, view))
        })
    }
}

/// Sets a state to where the image begins: where nothing was read, or at the image's own start
/// state. Every sequence starts with this, or with rwkv_state_restore.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_reset(model: *mut rwkv_model, state: *mut rwkv_state) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe { with(model, state, |model, view| Ok(model.reset(view)?)) }
}

/// Computes one token: the state moves on by it, results go to `output`, which may be null. What is
/// wrong with the arguments leaves the state as it was. So does a later failure, of a medium or of
/// values that become infinite, if the model has memory to undo; else the state is broken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_step(
    model: *mut rwkv_model,
    state: *mut rwkv_state,
    token: u32,
    output: *const rwkv_output,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe { rwkv_prefill(model, state, &raw const token, 1, output) }
}

/// Computes `count` tokens, one after the other; results are those of the last one. No tokens do
/// nothing. Where one fails, those before it are computed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_prefill(
    model: *mut rwkv_model,
    state: *mut rwkv_state,
    tokens: *const u32,
    count: usize,
    output: *const rwkv_output,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        with(model, state, |model, mut view| {
            let tokens = pointer::shared_slice(tokens, count)?;
            let sink = Sink::new(output, model.header().dims.dim)?;
            model.prefill(&mut view, tokens.iter().copied(), sink)
        })
    }
}

/// As rwkv_prefill for the tokens of a text, which need no memory. The image has a tokenizer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_prompt(
    model: *mut rwkv_model,
    state: *mut rwkv_state,
    text: *const u8,
    len: usize,
    output: *const rwkv_output,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        with(model, state, |model, mut view| {
            let tokenizer = model.tokenizer.ok_or(rwkv_error::NoTokenizer)?;
            let text = pointer::shared_slice(text, len)?;
            let sink = Sink::new(output, model.header().dims.dim)?;
            model.prefill(&mut view, tokenizer.encode(text), sink)
        })
    }
}

/// Columns of sparse products in all tokens so far, and how many of them were needed. Either may be
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_model_columns(
    model: *mut rwkv_model,
    needed: *mut u64,
    all: *mut u64,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        opaque::with(model, |model| {
            let columns = model.columns();
            for (at, count) in [(needed, columns.live), (all, columns.all)] {
                if !at.is_null() {
                    pointer::put(at, count)?;
                }
            }
            Ok(())
        })
    }
}

/// Details of the model's last failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_model_detail(model: *const rwkv_model) -> rwkv_detail {
    // SAFETY: the caller's promises.
    unsafe { opaque::detail(model) }
}
