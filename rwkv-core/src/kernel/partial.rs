//! A row that arrives in pieces: its sums, carried from one piece to the next.
//!
//! Scalar, for every core: such rows are longer than what a stream can hand out, and wait for their
//! medium. [`Generic`](super::Generic) computes whole rows of integers with it; its inputs are those that
//! it arranges.

use half::f16;

use super::generic::{STRIDE, dot, lane_nibbles, nibbles};
use crate::{
    image::{Format, GROUP},
    kernel::Arranged,
    kernel::floats::scalar::fold,
    op,
    soft::Rescaler,
};

/// The sums of one line: of a row, or of the two of [`Format::Int4Lanes`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Partial {
    floats: [f32; 8],
    integers: [i32; 2],
}

impl Partial {
    /// Pieces end at multiples of this many words: whole groups, and for floats all eight sums.
    pub(crate) const STEP: usize = 8;

    /// Words of the input of `cols` elements; behind them, the room for it is free.
    pub(crate) const fn input_words(cols: usize) -> usize {
        cols.div_ceil(GROUP) * STRIDE
    }

    /// Adds the products of a piece: the weights from word `first` of the line on, a multiple of
    /// [`Partial::STEP`], the sub-scales of the whole line, the input of the whole row.
    pub(crate) fn add(
        &mut self,
        format: Format,
        (first, words): (usize, &[u32]),
        subs: &[u32],
        x: &[f32],
    ) {
        let elements: &[i16] = bytemuck::cast_slice(x);
        let groups = |words: usize| {
            let elements = elements.get(first / words * GROUP..).unwrap_or_default();
            elements.as_chunks::<GROUP>().0.iter()
        };
        debug_assert!(first.is_multiple_of(Self::STEP), "a piece begins at {first}");
        let subs: &[u8] = bytemuck::cast_slice(subs);
        match format {
            Format::F32 => {
                let products = words.iter().zip(x.get(first..).unwrap_or_default());
                op::add_up(&mut self.floats, products.map(|(w, x)| f32::from_bits(*w) * x));
            }
            Format::F16 => {
                let words: &[u16] = bytemuck::cast_slice(words);
                let products = words.iter().zip(x.get(2 * first..).unwrap_or_default());
                op::add_up(
                    &mut self.floats,
                    products.map(|(w, x)| f16::from_bits(*w).to_f32() * x),
                );
            }
            Format::Int8 => {
                let words: &[u8] = bytemuck::cast_slice(words);
                let [sum, _] = &mut self.integers;
                for (w, x) in words.iter().zip(elements.get(4 * first..).unwrap_or_default()) {
                    *sum = sum.wrapping_add((i32::from(*w) - 128) * i32::from(*x));
                }
            }
            Format::Int4 => {
                let subs = subs.get(first / 4..).unwrap_or_default();
                let [sum, _] = &mut self.integers;
                for ((w, x), sub) in words.as_chunks::<4>().0.iter().zip(groups(4)).zip(subs) {
                    *sum = sum.wrapping_add(dot(nibbles(w), x).wrapping_mul((*sub).into()));
                }
            }
            Format::Int4Lanes => {
                let subs = subs.as_chunks::<2>().0.get(first / 8..).unwrap_or_default();
                for ((w, x), subs) in words.as_chunks::<8>().0.iter().zip(groups(8)).zip(subs) {
                    for (lane, (sum, sub)) in self.integers.iter_mut().zip(subs).enumerate() {
                        let group = dot(lane_nibbles(w, lane), x);
                        *sum = sum.wrapping_add(group.wrapping_mul((*sub).into()));
                    }
                }
            }
        }
    }

    /// The outputs of a row, or of two, whose line has ended. Integers are scaled.
    pub(crate) fn rows(self, arranged: Option<Arranged>, scales: [f32; 2]) -> [f32; 2] {
        let Some(arranged) = arranged else { return [fold(&self.floats), 0.0] };
        let rescaler = Rescaler::new(arranged.scale);
        let ([a, b], [s, t]) = (self.integers, scales);
        [rescaler.apply(a, s), rescaler.apply(b, t)]
    }
}
