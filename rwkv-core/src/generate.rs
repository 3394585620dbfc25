//! Text in, text out: a model, its state, the tokenizer and the sampler in one type.

use core::fmt;

use crate::{
    error::{Error, ImageError},
    image::Header,
    kernel::{Kernel, Native},
    poll,
    sampler::{Mask, Sampler, SamplerConfig, SamplerError},
    saved::{Saved, SavedError},
    session::Model,
    state::StateView,
    stream::Stream,
    tokenizer::{EmptyStopText, StopStream, Tokenizer},
};

/// Reads texts and continues them.
///
/// The last token that was chosen is *pending*: it is read when the next one is asked for, or
/// ahead of the next text. A token that fails therefore may be tried again if the model has an
/// undo buffer ([`Model::with_undo`]), and so may one whose future is dropped half-way; without
/// one, the state is broken until [`Generator::reset`].
///
/// ```no_run
/// # use rwkv_core::{GenerateError, Generator, stream::Stream, tokenizer::StopStream};
/// # fn demo(mut generator: Generator<'_, impl Stream>) -> Result<(), GenerateError> {
/// # let write = |text: &[u8]| ();
/// generator.reset()?; // where the image begins
/// generator.read(b"X:1\nT:")?;
/// let mut stop = StopStream::new(&[b"\n\n"])?;
/// generator.generate(200, &mut stop, write)?;
/// stop.finish(write); // at the limit, what might have been the start of the stop text
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Generator<'a, S, K = Native, M = ()> {
    model: Model<'a, S, K>,
    state: StateView<'a>,
    tokenizer: Tokenizer<'a>,
    /// Has seen the logits of the last token that was read.
    sampler: Sampler,
    mask: M,
    /// Chosen and not read.
    pending: Option<u32>,
    /// Tokens that the state has read.
    position: u64,
    /// A text is being read, or reading one failed: the state has read no one knows what.
    reading: bool,
}

crate::brief!([S, K, M] Generator<'_, S, K, M>, |generator| "Generator({} tokens read, {} pending)",
    generator.position, generator.pending);

/// Why a generator stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Ending {
    /// As many tokens were chosen as it was allowed.
    Limit,
    /// The model ended its text.
    EndOfText,
    /// This stop text came, by its place among them.
    Stop(usize),
}

impl<'a, S: Stream, K: Kernel> Generator<'a, S, K> {
    /// Joins them. The state stays as it is: a text begins with [`Generator::reset`], or with a
    /// state that was saved and [`Generator::resume`].
    pub const fn new(
        model: Model<'a, S, K>,
        state: StateView<'a>,
        tokenizer: Tokenizer<'a>,
        sampler: Sampler,
    ) -> Self {
        let (mask, pending, position, reading) = ((), None, 0, false);
        Self { model, state, tokenizer, sampler, mask, pending, position, reading }
    }

    /// The same, which chooses only tokens that a mask allows. It is asked when a token's logits
    /// appear, so it must stand before [`Generator::read`] or [`Generator::next_token`].
    pub fn with_mask<M: Mask>(self, mask: M) -> Generator<'a, S, K, M> {
        let Self { model, state, tokenizer, sampler, pending, position, reading, .. } = self;
        Generator { model, state, tokenizer, sampler, mask, pending, position, reading }
    }
}

impl<'a, S: Stream, K: Kernel, M: Mask> Generator<'a, S, K, M> {
    /// Back to where the image begins. The sampler forgets what it counted for the penalties; its
    /// random numbers go on, so the same prompt may be continued in another way. For the same way,
    /// or for other settings, there is [`Generator::reset_with_async`].
    ///
    /// # Errors
    /// See [`Model::reset_async`].
    pub async fn reset_async(&mut self) -> Result<(), GenerateError> {
        self.begin(0, None);
        self.mask.restart();
        self.reading = true;
        self.model.reset_async(self.state.reborrow()).await?;
        self.reading = false;
        Ok(())
    }

    /// As [`Generator::reset_async`], over a stream that never waits.
    ///
    /// # Errors
    /// As there; [`Error::Internal`] if the stream does wait.
    pub fn reset(&mut self) -> Result<(), GenerateError> {
        once(self.reset_async())
    }

    /// Back to where the image begins, with a sampler that begins anew with these settings: what
    /// follows is what a new generator writes.
    ///
    /// # Errors
    /// What [`SamplerConfig::validate`] finds, then everything is as it was; see
    /// [`Model::reset_async`].
    pub async fn reset_with_async(&mut self, config: SamplerConfig) -> Result<(), GenerateError> {
        self.sampler.reset(config)?;
        self.reset_async().await
    }

    /// As [`Generator::reset_with_async`], over a stream that never waits.
    ///
    /// # Errors
    /// As there; [`Error::Internal`] if the stream does wait.
    pub fn reset_with(&mut self, config: SamplerConfig) -> Result<(), GenerateError> {
        once(self.reset_with_async(config))
    }

    /// Reads a text, after the token that is pending. Where there is neither, nothing changes.
    ///
    /// # Errors
    /// See [`Model::prefill_async`]. After an error, or when this was dropped half-way, everything
    /// fails with [`Error::BrokenState`] up to [`Generator::reset`] or [`Generator::resume`].
    pub async fn read_async(&mut self, text: &[u8]) -> Result<(), GenerateError> {
        self.check()?;
        if self.pending.is_none() && text.is_empty() {
            return Ok(());
        }
        // All of the text is heard of before the logits behind it.
        self.tokenizer.encode(text).for_each(|token| self.mask.advance(token));
        let mut count = 0;
        let tokens = self.pending.into_iter().chain(self.tokenizer.encode(text));
        let tokens = tokens.inspect(|_| count += 1);
        self.reading = true;
        self.sampler.begin();
        let logits = self.sampler.within(&self.mask);
        self.model.prefill_async(self.state.reborrow(), tokens, logits).await?;
        self.reading = false;
        self.pending = None;
        self.position += count;
        Ok(())
    }

    /// As [`Generator::read_async`], over a stream that never waits.
    ///
    /// # Errors
    /// As there; [`Error::Internal`] if the stream does wait.
    pub fn read(&mut self, text: &[u8]) -> Result<(), GenerateError> {
        once(self.read_async(text))
    }

    /// Reads the token that is pending and chooses the next one. Returns its bytes, none for a
    /// token without a text; `None` if it ends the text.
    ///
    /// # Errors
    /// See [`Model::step_async`] and [`Sampler::finish`]; [`SamplerError::NoLogits`] if nothing was
    /// read since [`Generator::reset`].
    pub async fn next_token_async(&mut self) -> Result<Option<&'a [u8]>, GenerateError> {
        self.check()?;
        if let Some(token) = self.pending {
            self.sampler.begin();
            let logits = self.sampler.within(&self.mask);
            self.model.step_async(self.state.reborrow(), token, logits).await?;
            self.pending = None;
            self.position += 1;
        }
        let token = self.sampler.finish()?;
        self.pending = Some(token);
        self.mask.advance(token);
        if self.pending == self.tokenizer.end_of_text() {
            return Ok(None);
        }
        // A model may have more tokens than its vocabulary: they stand for nothing.
        Ok(Some(self.tokenizer.decode(token).unwrap_or_default()))
    }

    /// As [`Generator::next_token_async`], over a stream that never waits.
    ///
    /// # Errors
    /// As there; [`Error::Internal`] if the stream does wait.
    pub fn next_token(&mut self) -> Result<Option<&'a [u8]>, GenerateError> {
        once(self.next_token_async())
    }

    /// Continues what was read by up to `limit` tokens, and gives the text to `out`, in pieces that
    /// may end inside a character ([`crate::tokenizer::Utf8Stream`] mends that). It ends before the
    /// first of the stop texts; a token that goes on behind it is read as a whole all the same.
    ///
    /// `stop` holds back what may be the start of a stop text. At the end of the text it gives that
    /// out and begins anew. At the limit, after an error, and when this was dropped half-way, it
    /// keeps it: with the same `stop`, the next call goes on as if there had been one call, and
    /// [`StopStream::finish`] gives out the rest if there is none.
    ///
    /// # Errors
    /// See [`Generator::next_token_async`].
    pub async fn generate_async(
        &mut self,
        limit: usize,
        stop: &mut StopStream<'_>,
        mut out: impl FnMut(&[u8]),
    ) -> Result<Ending, GenerateError> {
        for _ in 0..limit {
            let ending = match self.next_token_async().await? {
                Some(bytes) => stop.push(bytes, &mut out).map(Ending::Stop),
                None => Some(Ending::EndOfText),
            };
            if let Some(ending) = ending {
                stop.finish(out);
                return Ok(ending);
            }
        }
        Ok(Ending::Limit)
    }

    /// As [`Generator::generate_async`], over a stream that never waits.
    ///
    /// # Errors
    /// As there; [`Error::Internal`] if the stream does wait.
    pub fn generate(
        &mut self,
        limit: usize,
        stop: &mut StopStream<'_>,
        out: impl FnMut(&[u8]),
    ) -> Result<Ending, GenerateError> {
        once(self.generate_async(limit, stop, out))
    }

    /// What saves the state as it is, with its position and the token that is pending: for
    /// [`Saved::to_bytes`], or a snapshot in flash. `identity` is [`crate::Image::identity`].
    ///
    /// # Errors
    /// See [`Saved::of`].
    pub fn saved(&self, identity: u32) -> Result<Saved, SavedError> {
        if self.reading {
            return Err(SavedError::Broken);
        }
        let saved = Saved::of(identity, self.header(), &self.state)?;
        Ok(Saved { position: self.position, pending: self.pending, ..saved })
    }

    /// Goes on from a saved state whose words were put into [`Generator::state`]. The sampler
    /// forgets what it counted for the penalties; a mask that follows the text stays where it is
    /// ([`Generator::mask`]).
    ///
    /// # Errors
    /// Those of [`Saved::of`] and [`Saved::check`]; [`SavedError::Checksum`] if the words are not
    /// those that were saved. Everything fails with [`Error::BrokenState`] then, up to
    /// [`Generator::reset`] or a resumption that succeeds.
    pub fn resume(&mut self, saved: &Saved) -> Result<(), SavedError> {
        self.begin(saved.position, saved.pending);
        self.reading = true;
        saved.check(saved.identity, self.header())?;
        let found = Saved::of(saved.identity, self.header(), &self.state)?;
        if found.crc != saved.crc {
            return Err(SavedError::Checksum);
        }
        self.reading = false;
        Ok(())
    }

    /// The header of the image.
    pub const fn header(&self) -> &Header {
        self.model.header()
    }

    /// The model.
    pub const fn model(&self) -> &Model<'a, S, K> {
        &self.model
    }

    /// The state, to save or to restore.
    pub const fn state(&mut self) -> StateView<'_> {
        self.state.reborrow()
    }

    /// The mask, which may change from token to token.
    pub const fn mask(&mut self) -> &mut M {
        &mut self.mask
    }

    /// Tokens that the state has read, the one that is pending left out.
    pub const fn position(&self) -> u64 {
        self.position
    }

    fn begin(&mut self, position: u64, pending: Option<u32>) {
        self.sampler.forget();
        (self.position, self.pending, self.reading) = (position, pending, false);
    }

    const fn check(&self) -> Result<(), GenerateError> {
        match self.reading {
            true => Err(GenerateError::Model(Error::BrokenState)),
            false => Ok(()),
        }
    }
}

fn once<T>(future: impl Future<Output = Result<T, GenerateError>>) -> Result<T, GenerateError> {
    poll::once(future).unwrap_or(Err(GenerateError::Model(Error::Internal)))
}

/// Why there is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum GenerateError {
    /// A token could not be computed, or the image is of no use.
    Model(Error),
    /// No token could be chosen, or the sampler's settings are out of range.
    Sampler(SamplerError),
    /// A stop text is empty.
    StopText(EmptyStopText),
    /// The image's tokenizer is one that only the host has.
    NoTokenizer,
}

impl From<Error> for GenerateError {
    fn from(error: Error) -> Self {
        Self::Model(error)
    }
}

impl From<ImageError> for GenerateError {
    fn from(error: ImageError) -> Self {
        Self::Model(Error::Image(error))
    }
}

impl From<SamplerError> for GenerateError {
    fn from(error: SamplerError) -> Self {
        Self::Sampler(error)
    }
}

impl From<EmptyStopText> for GenerateError {
    fn from(error: EmptyStopText) -> Self {
        Self::StopText(error)
    }
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(error) => error.fmt(f),
            Self::Sampler(error) => error.fmt(f),
            Self::StopText(error) => error.fmt(f),
            Self::NoTokenizer => f.write_str(
                "the image holds no tokenizer: convert it with --tokenizer, or give tokens to the model itself",
            ),
        }
    }
}

impl core::error::Error for GenerateError {}
