//! A copy of a state, for as long as a token may still fail.

use crate::{image::Header, state::StateView};

/// A state that a token works on, and a copy of what it was. Unless the token is kept, the state
/// is put back when this goes away, also where the token was dropped half-way.
#[derive(Debug)]
pub(crate) struct Undo<'a> {
    pub(crate) state: StateView<'a>,
    copy: Option<&'a mut [f32]>,
}

impl<'a> Undo<'a> {
    /// Copies the state into the buffer, if there is one. A state that no token may run on is left
    /// alone.
    pub(crate) fn new(
        header: &Header,
        state: StateView<'a>,
        buffer: Option<&'a mut [f32]>,
    ) -> Self {
        let copy = match state.check(header) {
            Ok(()) => buffer.and_then(|buffer| buffer.get_mut(..state.len())),
            Err(_) => None,
        };
        let mut undo = Self { state, copy };
        if let Some(copy) = &mut undo.copy {
            let words = undo.state.words().into_iter().flatten();
            copy.iter_mut().zip(words).for_each(|(copy, word)| *copy = *word);
        }
        undo
    }

    /// The token was computed: there is nothing to undo.
    pub(crate) fn keep(mut self) {
        self.copy = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(copy) = &self.copy {
            // As many words as the state has, so this marks it as whole.
            let _ = self.state.restore(copy.iter().copied());
        }
    }
}
