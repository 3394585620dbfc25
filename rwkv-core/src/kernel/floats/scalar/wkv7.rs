//! The recurrence of version 7 over the keys of a head, in plain Rust.

use super::blocks::{BLOCK, Recurrence, from};

/// What the recurrence of version 7 reads of a head: one value per key each.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Keys7<'a> {
    /// Decay.
    pub w: &'a [f32],
    /// Key.
    pub k: &'a [f32],
    /// Removal key, normalised.
    pub kk: &'a [f32],
    /// `kk` times the in-context learning rate.
    pub b: &'a [f32],
    /// Receptance.
    pub r: &'a [f32],
}

/// See [`crate::kernel::Kernel::wkv7`].
#[inline(always)]
pub(crate) fn wkv7(keys: Keys7<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
    from::<BLOCK>(0, keys, v, state, y);
}

impl Recurrence for Keys7<'_> {
    #[inline(always)]
    fn block<const B: usize>(
        self,
        (v, y): (&[f32; B], &mut [f32; B]),
        state: &mut [f32],
        n: usize,
    ) {
        let mut sa = [0.0; B];
        for (row, kk) in state.chunks(n.max(1)).zip(self.kk) {
            let Some(row) = row.first_chunk::<B>() else { continue };
            sa.iter_mut().zip(row).for_each(|(sa, s)| *sa += s * kk);
        }
        let mut sum = [0.0; B];
        let scalars = self.w.iter().zip(self.k).zip(self.b).zip(self.r);
        for (row, (((&w, &k), &b), &r)) in state.chunks_mut(n.max(1)).zip(scalars) {
            let Some(row) = row.first_chunk_mut::<B>() else { continue };
            // A copy, since a store to the row could change what lies behind the other references.
            let mut s = *row;
            for (((s, sa), v), y) in s.iter_mut().zip(&sa).zip(v).zip(&mut sum) {
                *s = *s * w - sa * b + v * k;
                *y += *s * r;
            }
            *row = s;
        }
        *y = sum;
    }
}
