//! The state, piece by piece: what the host reads and writes of it.

use rwkv_core::StateView;

use super::{
    Session, Weights,
    protocol::{AgentError, MAX_STATE},
};

impl<S: Weights> Session<'_, S> {
    /// The words from `first` on, as many as a reply holds.
    pub(super) fn read_state(
        &mut self,
        first: u32,
    ) -> Result<heapless::Vec<f32, MAX_STATE>, AgentError> {
        let header = self.model.header();
        let state = StateView::over(header, self.state, &mut self.ready);
        state.and_then(|state| state.check(header)).map_err(AgentError::Model)?;
        let end = self.end();
        let words = self.state.get(first as usize..).filter(|words| !words.is_empty());
        Ok(words.ok_or(end)?.iter().copied().take(MAX_STATE).collect())
    }

    /// Takes the next words of a state, which is of no use until it is accepted.
    pub(super) fn write_state(&mut self, first: u32, words: &[f32]) -> Result<(), AgentError> {
        self.ready = false;
        // The logits were those of another state.
        self.sampler.begin();
        self.pending = None;
        if first == 0 {
            self.written = 0;
        }
        if first != self.written {
            return Err(AgentError::StateOrder { next: self.written });
        }
        let end = self.end();
        let rest = self.state.get_mut(first as usize..).unwrap_or_default();
        let places = rest.get_mut(..words.len()).ok_or(end)?;
        places.iter_mut().zip(words).for_each(|(place, word)| *place = *word);
        self.written += words.len() as u32;
        Ok(())
    }

    /// Makes what was written the state, once it is whole and every value finite.
    pub(super) fn accept_state(&mut self) -> Result<(), AgentError> {
        if self.written as usize != self.state.len() {
            return Err(AgentError::StateOrder { next: self.written });
        }
        if let Some(word) = self.state.iter().position(|x| !x.is_finite()) {
            return Err(AgentError::StateNonFinite { word: word as u32 });
        }
        self.written = 0;
        self.ready = true;
        Ok(())
    }

    fn end(&self) -> AgentError {
        AgentError::StateRange { words: self.state.len() as u32 }
    }
}
