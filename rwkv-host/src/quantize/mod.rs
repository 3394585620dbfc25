//! Rounding matrices to integers, by what is known of their inputs.
//!
//! - [`recipe`](Recipe) says how each tensor is stored;
//! - `metric` weighs errors: the correlation of the inputs over a text, taken apart;
//! - `round` chooses scales, sub-scales and integers, one weight after the other;
//! - `matrix` does so for a matrix in its layout;
//! - `fold` chooses how channels are scaled before.

mod fold;
mod matrix;
mod metric;
mod outliers;
mod recipe;
mod round;

use std::collections::BTreeMap;

use rwkv_core::{Error, Image, image::Id};

pub(crate) use fold::{MOST, Reader, exponents, scale, two_to};
pub(crate) use matrix::Quantised;
pub(crate) use metric::Correlation;
pub(crate) use outliers::outliers;
pub use recipe::{Recipe, RecipeError, Rule};

use crate::{memory::Memory, prefill};

/// Tokens that are read at once.
pub(crate) const CALIBRATION_PIECE: usize = 1024;

/// The correlations of the inputs of all products.
#[derive(Debug, Default)]
pub(crate) struct Correlations(BTreeMap<(Option<u32>, Id), Correlation>);

impl Correlations {
    /// Reads a text; `progress` hears of the pieces that were read.
    pub(crate) fn measure(
        image: &Image<'_>,
        tokens: &[u32],
        progress: &mut impl FnMut(usize),
    ) -> Result<Self, Error> {
        let mut all = Self::default();
        let mut memory = Memory::new(image);
        for (piece, tokens) in tokens.chunks(CALIBRATION_PIECE).enumerate() {
            prefill::watched(image, memory.state(image)?, tokens, &mut all)?;
            progress(piece + 1);
        }
        Ok(all)
    }

    /// What is known of the inputs of a matrix.
    pub(crate) fn of(&self, layer: Option<u32>, id: Id) -> Option<&Correlation> {
        self.0.get(&(layer, id))
    }
}

impl prefill::Watch for Correlations {
    fn inputs(&mut self, layer: Option<u32>, id: Id, inputs: &[&[f32]]) {
        let len = inputs.first().map_or(0, |x| x.len());
        self.0.entry((layer, id)).or_insert_with(|| Correlation::new(len)).add(inputs);
    }
}
