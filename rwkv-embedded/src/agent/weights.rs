//! Where the weights are: in memory, or on a medium that the core cannot address.

use core::ops::Range;

use rwkv_core::{
    Error, Image, Model,
    image::{self, Checked, PIECE_WORDS},
    poll,
    stream::{InPlace, Stream},
};

use super::{
    Agent, Board, Session, bytes,
    protocol::{AgentError, ImageInfo},
};
use crate::stream::{Buffered, Medium, buffer_words, words_around};

/// How often the image is read at boot, at most.
const ATTEMPTS: u32 = 3;

/// A stream that an agent runs over.
pub trait Weights: Stream + Sized {
    /// Bytes from the start of the image to the end of the medium, or of the image.
    fn given(&self) -> u32;

    /// Bytes of the medium that were read so far, wrapping around.
    fn bytes_read(&self) -> u32;

    /// Checks the whole image.
    ///
    /// # Errors
    /// As [`image::check`].
    fn check(&mut self) -> Result<Checked, Error> {
        let given = self.given();
        let found = poll::once(image::check(self, given)).unwrap_or(Err(Error::Internal));
        if found.is_err() {
            self.forget();
        }
        found
    }
}

impl Weights for InPlace<'_> {
    fn given(&self) -> u32 {
        bytes(self.words().len())
    }

    /// Reading memory is no reading of a medium.
    fn bytes_read(&self) -> u32 {
        0
    }

    /// The check of an image in memory is compiled already: firmware would have it twice.
    fn check(&mut self) -> Result<Checked, Error> {
        let image = Image::open_prefix(bytemuck::cast_slice(self.words()))?;
        let (header, identity) = (*image.header(), image.identity());
        // Nothing comes in pieces.
        Ok(Checked { header, identity, least_room: 0 })
    }
}

impl<M: Medium, const VERIFY: bool> Weights for Buffered<'_, M, VERIFY> {
    fn given(&self) -> u32 {
        self.bytes()
    }

    fn bytes_read(&self) -> u32 {
        self.reads().bytes as u32
    }
}

/// Tries something a few times, up to the first time that it succeeds.
pub(super) fn insist<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match attempt() {
            Err(_) if left > 0 => {}
            last => return last,
        }
    }
}

/// Checks the whole image.
pub(super) fn check<S: Weights>(stream: &mut S) -> Result<(Checked, ImageInfo), Error> {
    let checked = stream.check()?;
    Ok((checked, ImageInfo::new(&checked.header, checked.identity)))
}

impl<'a, B: Board, M: Medium, const VERIFY: bool> Agent<'a, B, Buffered<'a, M, VERIFY>> {
    /// Checks the image that begins at byte `place.start` of a medium, and ends before `place.end`
    /// at the latest. State, scratch and the buffer of the stream lie in `arena`; where it has room
    /// for one more state, a token that fails leaves the state as it was. Where it has no room for
    /// the largest block, which comes first, long rows come in pieces.
    ///
    /// The image is checked up to three times: a board without a host that could ask again should
    /// not stay without its image for one read that failed. The driver waits: a medium whose reads
    /// give way to other tasks is [`Error::Internal`].
    ///
    /// What goes wrong here is told to the host when it asks.
    #[inline(never)]
    pub fn over(board: B, medium: M, place: Range<u32>, arena: &'a mut [f32]) -> Self {
        let (first, room) = (place.start, place.end.saturating_sub(place.start));
        let words = bytemuck::cast_slice_mut(&mut *arena);
        let found = Buffered::<M, VERIFY>::new(medium, first, room, words)
            .map_err(Error::Stream)
            .and_then(|mut stream| {
                let (checked, info) = insist(|| check(&mut stream))?;
                Ok((checked, info, stream.into_medium()))
            });
        match found {
            Ok((checked, info, medium)) => {
                let session = Session::over(&checked, medium, first, arena);
                Self { board, image: Ok(info), session }
            }
            Err(error) => Self::without(board, error),
        }
    }
}

impl<'a, M: Medium, const VERIFY: bool> Session<'a, Buffered<'a, M, VERIFY>> {
    fn over(
        &Checked { header, least_room, .. }: &Checked,
        medium: M,
        first: u32,
        arena: &'a mut [f32],
    ) -> Result<Self, AgentError> {
        let (state, scratch) = (header.state_words(), header.scratch_words as usize);
        // A check asks for pieces that may be larger than the blocks of the image.
        let least = words_around(least_room.max(PIECE_WORDS), M::UNIT);
        let whole = buffer_words(&header, M::UNIT).max(least);
        let fixed = state.saturating_add(scratch);
        let buffer = arena.len().saturating_sub(fixed).clamp(least, whole);
        let needed = bytes(fixed.saturating_add(least));
        let small = AgentError::Arena { needed, given: bytes(arena.len()) };
        let (state, rest) = arena.split_at_mut_checked(state).ok_or(small)?;
        let (scratch, rest) = rest.split_at_mut_checked(scratch).ok_or(small)?;
        let (buffer, rest) = rest.split_at_mut_checked(buffer).ok_or(small)?;
        let mut buffers = buffer.len();
        let buffer = bytemuck::cast_slice_mut(buffer);
        let stream = Buffered::new(medium, first, header.bytes(), buffer);
        let stream = stream.map_err(|error| AgentError::Model(error.into()))?;
        let mut model = Model::new(header, stream, scratch).map_err(AgentError::Model)?;
        if let Some(undo) = rest.get_mut(..state.len()) {
            buffers += undo.len();
            model = model.with_undo(undo).map_err(AgentError::Model)?;
        }
        Self::start(model, state, bytes(buffers))
    }
}
