//! Memory for a model on the host.

use rwkv_core::{Error, Image, StateView};

/// The state and the scratch of one sequence, of exactly the size that the image asks for.
#[derive(Debug, Clone)]
pub struct Memory {
    state: Vec<f32>,
    ready: bool,
    scratch: Vec<f32>,
}

impl Memory {
    /// Memory for an image, the state where the image begins.
    pub fn new(image: &Image<'_>) -> Self {
        let header = image.header();
        let mut memory = Self {
            state: vec![0.0; header.state_words()],
            ready: false,
            scratch: vec![0.0; header.scratch_words as usize],
        };
        memory.reset(image);
        memory
    }

    /// Back to where the image begins: at its start state, if it has one.
    pub fn reset(&mut self, image: &Image<'_>) {
        // Memory for another image stays as it is and is refused where it is used.
        if let Ok(state) = self.state(image) {
            let _ = image.reset(state);
        }
    }

    /// The state.
    ///
    /// # Errors
    /// If the memory was made for another image.
    pub fn state(&mut self, image: &Image<'_>) -> Result<StateView<'_>, Error> {
        StateView::over(image.header(), &mut self.state, &mut self.ready)
    }

    /// The state and the scratch.
    ///
    /// # Errors
    /// If the memory was made for another image.
    pub fn split(&mut self, image: &Image<'_>) -> Result<(StateView<'_>, &mut [f32]), Error> {
        let state = StateView::over(image.header(), &mut self.state, &mut self.ready)?;
        Ok((state, &mut self.scratch))
    }
}
