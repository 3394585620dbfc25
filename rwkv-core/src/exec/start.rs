//! The state before the first token.

use super::{
    blocks::{Blocks, Parts, Piece, Place, is_cut},
    step::{checked, parse},
};
use crate::{
    error::Error,
    image::{Header, Id, RECORD_WORDS, Shape},
    state::StateView,
    stream::Stream,
};

/// What the section of a start state must hold: the words of a state, in their order.
pub(crate) fn shape(header: &Header) -> Shape {
    let words = u32::try_from(header.state_words()).unwrap_or(u32::MAX);
    Shape::vectors(Id::StartState, words, 1)
}

/// Sets a state to where the image begins: at its start state, or where nothing was read.
///
/// The stream keeps its place. An error leaves the state marked broken, but one of another shape
/// as it was.
pub(crate) async fn begin<S: Stream>(
    header: &Header,
    stream: &mut S,
    mut state: StateView<'_>,
) -> Result<(), Error> {
    state.fits(header)?;
    state.clear(header);
    if header.start_offset == 0 {
        return Ok(());
    }
    state.set_broken(true);
    let mut at = header.start_offset as usize / 4;
    let head = stream.read_at(at, RECORD_WORDS).await?;
    let record = parse(head, &shape(header), header.start_offset)?;
    at = at.saturating_add(RECORD_WORDS);
    let [shift, recurrent] = state.words_mut();
    let mut places = shift.iter_mut().chain(recurrent);
    for (_, rows) in record.tiles() {
        // One vector of floats: a row is a word.
        let parts = Parts::plain(rows, 1);
        let mut all_finite = true;
        let mut store = |words: &[u32]| {
            for (word, place) in words.iter().zip(places.by_ref()) {
                *place = f32::from_bits(*word);
                all_finite &= place.is_finite();
            }
        };
        if is_cut(stream, parts.words()) {
            let visit = &mut |piece: Piece<'_>| {
                let Piece::Line(_, words, _) = piece else { return Err(Error::Internal) };
                store(words);
                Ok(())
            };
            S::Blocks::pieces(stream, parts, Place::At(at), visit).await?;
        } else {
            store(checked::<S>(stream.read_at(at, parts.words()).await?, at)?);
        }
        if !all_finite {
            return Err(Error::NonFinite);
        }
        at = at.saturating_add(parts.words());
    }
    state.set_broken(false);
    Ok(())
}
