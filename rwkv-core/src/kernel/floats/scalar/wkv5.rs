//! The recurrence of versions 5 and 6 over the keys of a head, in plain Rust.

use super::blocks::{BLOCK, Recurrence, from};

/// What the recurrence of versions 5 and 6 reads of a head: one value per key each.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Keys5<'a> {
    /// Decay.
    pub w: &'a [f32],
    /// Key.
    pub k: &'a [f32],
    /// Receptance.
    pub r: &'a [f32],
}

/// See [`crate::kernel::Kernel::wkv5`].
#[inline(always)]
pub(crate) fn wkv5(keys: Keys5<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
    from::<BLOCK>(0, keys, v, state, y);
}

impl Recurrence for Keys5<'_> {
    #[inline(always)]
    fn block<const B: usize>(
        self,
        (v, y): (&[f32; B], &mut [f32; B]),
        state: &mut [f32],
        n: usize,
    ) {
        let mut sum = [0.0; B];
        let scalars = self.w.iter().zip(self.k).zip(self.r);
        for (row, ((&w, &k), &r)) in state.chunks_mut(n.max(1)).zip(scalars) {
            let Some(row) = row.first_chunk_mut::<B>() else { continue };
            // A copy, since a store to the row could change what lies behind the other references.
            let mut s = *row;
            for ((s, v), y) in s.iter_mut().zip(v).zip(&mut sum) {
                *y += *s * r;
                *s = *s * w + v * k;
            }
            *row = s;
        }
        *y = sum;
    }
}
