//! The state of a model: all it remembers, in memory of fixed size.

use crate::{
    error::Error,
    image::{Dims, Header, Version},
};

/// The exponent row of version 4 before the first token.
const EMPTY_EXPONENT: f32 = -1e30;

/// The state of one sequence, as a plain array for products: `DIM` is the model width and `WIDTH`
/// is 3 for version 4 (numerator, denominator, exponent per channel) and the head size from
/// version 5 on. The numbers come from [`Header::parse`] in a `const`.
///
/// ```
/// use rwkv_core::State;
/// static mut MEMORY: State<4, 128, 3> = State::new();
/// assert_eq!(size_of::<State<4, 128, 3>>(), 4 * 128 * (3 + 2) * 4 + 4);
/// ```
#[derive(Debug, Clone)]
pub struct State<const LAYERS: usize, const DIM: usize, const WIDTH: usize> {
    shift: [[[f32; DIM]; 2]; LAYERS],
    recurrent: [[[f32; DIM]; WIDTH]; LAYERS],
    ready: bool,
}

crate::brief!([const LAYERS: usize, const DIM: usize, const WIDTH: usize]
    State<LAYERS, DIM, WIDTH>, |_state| "State({} layers of {}, width {})", LAYERS, DIM, WIDTH);

impl<const LAYERS: usize, const DIM: usize, const WIDTH: usize> State<LAYERS, DIM, WIDTH> {
    /// Memory for a state, all zeros, so that it takes no flash as a static. Where a sequence
    /// begins is the image's to say: no token is computed before [`crate::Model::reset`],
    /// [`StateView::clear`] or [`StateView::restore`].
    pub const fn new() -> Self {
        Self {
            shift: [[[0.0; DIM]; 2]; LAYERS],
            recurrent: [[[0.0; DIM]; WIDTH]; LAYERS],
            ready: false,
        }
    }

    /// The unsized view that kernels and model text see.
    pub const fn view(&mut self) -> StateView<'_> {
        StateView {
            shift: self.shift.as_flattened_mut().as_flattened_mut(),
            recurrent: self.recurrent.as_flattened_mut().as_flattened_mut(),
            ready: &mut self.ready,
        }
    }
}

impl<const LAYERS: usize, const DIM: usize, const WIDTH: usize> Default
    for State<LAYERS, DIM, WIDTH>
{
    fn default() -> Self {
        Self::new()
    }
}

/// A state of any size: two token-shift rows and the recurrent rows of every layer.
#[derive(Debug)]
pub struct StateView<'a> {
    shift: &'a mut [f32],
    recurrent: &'a mut [f32],
    ready: &'a mut bool,
}

crate::brief!([] StateView<'_>, |state| "StateView({} words, ready: {})", state.len(), *state.ready);

impl<'a> StateView<'a> {
    /// A view over memory of [`Header::state_words`] words, as a generic agent has it. `ready`
    /// says whether they are a state: it is false at first, and the view keeps it.
    ///
    /// # Errors
    /// [`Error::StateSize`].
    pub fn over(
        header: &Header,
        memory: &'a mut [f32],
        ready: &'a mut bool,
    ) -> Result<Self, Error> {
        let needed = header.state_words();
        let given = memory.len();
        let wrong = Error::StateSize { needed: needed as u32, given: given as u32 };
        let memory = memory.get_mut(..needed).ok_or(wrong)?;
        let shift = header.shift_words();
        let (shift, recurrent) = memory.split_at_mut_checked(shift).ok_or(wrong)?;
        Ok(Self { shift, recurrent, ready })
    }

    /// The state that has read nothing, whatever the image begins with: for that, there are
    /// [`crate::Model::reset`] and [`crate::Image::reset`].
    pub fn clear(&mut self, header: &Header) {
        self.shift.fill(0.0);
        self.recurrent.fill(0.0);
        if header.version == Version::V4 {
            let dim = header.dims.dim as usize;
            for row in self.recurrent.chunks_exact_mut(dim.max(1)).skip(2).step_by(3) {
                row.fill(EMPTY_EXPONENT);
            }
        }
        *self.ready = true;
    }

    /// Takes over the values of a saved state, in the order of [`StateView::words`].
    ///
    /// # Errors
    /// [`Error::StateSize`] if they are too few or too many: the state is broken then.
    pub fn restore(&mut self, words: impl IntoIterator<Item = f32>) -> Result<(), Error> {
        *self.ready = false;
        let needed = self.len() as u32;
        let mut words = words.into_iter();
        let mut given = 0;
        for (value, word) in self.shift.iter_mut().chain(&mut *self.recurrent).zip(&mut words) {
            *value = word;
            given += 1;
        }
        given += words.count() as u32;
        if given != needed {
            return Err(Error::StateSize { needed, given });
        }
        *self.ready = true;
        Ok(())
    }

    /// The same view for a shorter time.
    pub const fn reborrow(&mut self) -> StateView<'_> {
        StateView {
            shift: &mut *self.shift,
            recurrent: &mut *self.recurrent,
            ready: &mut *self.ready,
        }
    }

    /// Whether a token may be computed: a state of the image's shape, and not a broken one.
    ///
    /// # Errors
    /// [`Error::BrokenState`] or [`Error::StateSize`].
    pub const fn check(&self, header: &Header) -> Result<(), Error> {
        if !*self.ready {
            return Err(Error::BrokenState);
        }
        self.fits(header)
    }

    /// Whether it has the shape of the image's states.
    ///
    /// # Errors
    /// [`Error::StateSize`].
    pub(crate) const fn fits(&self, header: &Header) -> Result<(), Error> {
        let needed = header.state_words();
        let shift = header.shift_words();
        if self.shift.len() != shift || self.len() != needed {
            return Err(Error::StateSize { needed: needed as u32, given: self.len() as u32 });
        }
        Ok(())
    }

    /// Words.
    pub const fn len(&self) -> usize {
        self.shift.len() + self.recurrent.len()
    }

    /// Whether there are no words.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the values are those of no token: never set, or left by one that failed half-way.
    pub const fn is_broken(&self) -> bool {
        !*self.ready
    }

    /// Marks the values as those of no token, or as restored.
    pub const fn set_broken(&mut self, broken: bool) {
        *self.ready = !broken;
    }

    /// The two token-shift rows and the recurrent rows of a layer.
    pub fn layer(&self, dims: &Dims, layer: usize) -> [&[f32]; 2] {
        let rows = |all: &'_ [f32]| {
            let len = all.len() / (dims.layers as usize).max(1);
            layer * len..(layer + 1) * len
        };
        [
            self.shift.get(rows(self.shift)).unwrap_or_default(),
            self.recurrent.get(rows(self.recurrent)).unwrap_or_default(),
        ]
    }

    /// As [`StateView::layer`], to write.
    pub fn layer_mut(&mut self, dims: &Dims, layer: usize) -> [&mut [f32]; 2] {
        let rows = |all: &'_ [f32]| {
            let len = all.len() / (dims.layers as usize).max(1);
            layer * len..(layer + 1) * len
        };
        let (shift, recurrent) = (rows(self.shift), rows(self.recurrent));
        [
            self.shift.get_mut(shift).unwrap_or_default(),
            self.recurrent.get_mut(recurrent).unwrap_or_default(),
        ]
    }

    /// All values: the shift rows of every layer, then the recurrent rows of every layer.
    pub fn words(&self) -> [&[f32]; 2] {
        [self.shift, self.recurrent]
    }

    /// As [`StateView::words`], to restore a saved state.
    pub fn words_mut(&mut self) -> [&mut [f32]; 2] {
        [self.shift, self.recurrent]
    }
}
