//! A model ready to step.

use crate::{
    error::Error,
    exec::{Columns, Logits, Step, start},
    image::Header,
    kernel::{Kernel, Native, native},
    poll,
    state::StateView,
    stream::Stream,
    undo::Undo,
};

/// A header, a stream of weights and scratch memory: everything but the state, so that several
/// sequences can share it.
#[derive(Debug)]
pub struct Model<'a, S, K = Native> {
    header: Header,
    stream: S,
    scratch: &'a mut [f32],
    kernel: K,
    columns: Columns,
    undo: Option<&'a mut [f32]>,
}

crate::brief!([S, K] Model<'_, S, K>, |model| "Model({})", model.header);

impl<'a, S: Stream> Model<'a, S> {
    /// A model over memory of at least [`Header::scratch_words`] words.
    ///
    /// # Errors
    /// [`Error::ScratchSize`].
    pub fn new(header: Header, stream: S, scratch: &'a mut [f32]) -> Result<Self, Error> {
        Self::with_kernel(header, stream, scratch, native())
    }
}

impl<'a, S: Stream, K: Kernel> Model<'a, S, K> {
    /// As [`Model::new`], with kernels of choice.
    ///
    /// # Errors
    /// [`Error::ScratchSize`].
    pub fn with_kernel(
        header: Header,
        stream: S,
        scratch: &'a mut [f32],
        kernel: K,
    ) -> Result<Self, Error> {
        let (needed, given) = (header.scratch_words, scratch.len() as u32);
        if given < needed {
            return Err(Error::ScratchSize { needed, given });
        }
        let (columns, undo) = (Columns::default(), None);
        Ok(Self { header, stream, scratch, kernel, columns, undo })
    }

    /// The same model with a buffer for a copy of the state, of [`Header::state_words`] words: a
    /// token that fails, or is dropped half-way, leaves the state as it was, and the same token may
    /// be tried again. Without it, such a state is marked broken.
    ///
    /// # Errors
    /// [`Error::StateSize`] if the buffer is too small.
    pub fn with_undo(self, buffer: &'a mut [f32]) -> Result<Self, Error> {
        let (needed, given) = (self.header.state_words(), buffer.len());
        if given < needed {
            return Err(Error::StateSize { needed: needed as u32, given: given as u32 });
        }
        Ok(Self { undo: Some(buffer), ..self })
    }

    /// The header of the image.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The stream of weights, between tokens.
    pub const fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Columns of sparse products in all tokens so far, and how many were not skipped.
    pub const fn columns(&self) -> Columns {
        self.columns
    }

    /// Sets a state to where the image begins and waits for the stream where it must: at the
    /// image's start state, if it has one, else where nothing was read. Every sequence starts with
    /// this, or with a state that was saved.
    ///
    /// # Errors
    /// [`Error::StateSize`], which leaves the state as it was; where the start state cannot be read
    /// or is not one, [`Error::Stream`], [`Error::Image`] or [`Error::NonFinite`], which leave the
    /// state marked broken.
    pub async fn reset_async(&mut self, state: StateView<'_>) -> Result<(), Error> {
        let begun = start::begin(&self.header, &mut self.stream, state).await;
        if begun.is_err() {
            self.stream.forget();
        }
        begun
    }

    /// As [`Model::reset_async`], over a stream that never waits.
    ///
    /// # Errors
    /// As there; [`Error::Internal`] if the stream does wait.
    pub fn reset(&mut self, state: StateView<'_>) -> Result<(), Error> {
        poll::once(self.reset_async(state)).unwrap_or(Err(Error::Internal))
    }

    /// Runs one token and waits for the stream where it must; logits go to `logits`, or are not
    /// computed for `()`.
    ///
    /// # Errors
    /// See [`Step::run`].
    pub async fn step_async(
        &mut self,
        state: StateView<'_>,
        token: u32,
        logits: impl Logits,
    ) -> Result<(), Error> {
        let (header, scratch) = (&self.header, &mut *self.scratch);
        let mut undo = Undo::new(header, state, self.undo.as_deref_mut());
        let (stream, state) = (&mut self.stream, undo.state.reborrow());
        match Step::run(header, self.kernel, stream, state, scratch, token, logits).await {
            Ok(Columns { live, all }) => {
                self.columns.live += live;
                self.columns.all += all;
                undo.keep();
                Ok(())
            }
            Err(error) => {
                self.stream.forget();
                Err(error)
            }
        }
    }

    /// Runs one token over a stream that never waits.
    ///
    /// # Errors
    /// See [`Step::run`]; [`Error::Internal`] if the stream does wait.
    pub fn step(
        &mut self,
        state: StateView<'_>,
        token: u32,
        logits: impl Logits,
    ) -> Result<(), Error> {
        poll::once(self.step_async(state, token, logits)).unwrap_or(Err(Error::Internal))
    }

    /// Runs a prompt and waits for the stream where it must; only the last token's logits are
    /// computed.
    ///
    /// # Errors
    /// See [`Step::run`]. With an undo buffer the state is then the one after the tokens before the
    /// one that failed.
    pub async fn prefill_async(
        &mut self,
        mut state: StateView<'_>,
        tokens: impl IntoIterator<Item = u32>,
        logits: impl Logits,
    ) -> Result<(), Error> {
        let mut tokens = tokens.into_iter();
        let Some(mut token) = tokens.next() else { return Ok(()) };
        for next in tokens {
            self.step_async(state.reborrow(), token, ()).await?;
            token = next;
        }
        self.step_async(state, token, logits).await
    }

    /// As [`Model::prefill_async`], over a stream that never waits.
    ///
    /// # Errors
    /// As there; [`Error::Internal`] if the stream does wait.
    pub fn prefill(
        &mut self,
        state: StateView<'_>,
        tokens: impl IntoIterator<Item = u32>,
        logits: impl Logits,
    ) -> Result<(), Error> {
        poll::once(self.prefill_async(state, tokens, logits)).unwrap_or(Err(Error::Internal))
    }
}
