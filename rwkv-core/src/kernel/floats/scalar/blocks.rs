//! A head's value indices in blocks, whose sums stay in registers while the keys pass by.

/// Value indices of a block.
pub(super) const BLOCK: usize =
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 16 } else { 8 };

/// The scalars of a recurrence: what it reads per key.
pub(crate) trait Recurrence: Copy {
    /// A block of value indices: `state` starts at its first column, and rows lie `n` apart.
    fn block<const B: usize>(self, values: (&[f32; B], &mut [f32; B]), state: &mut [f32], n: usize);
}

/// A recurrence from value index `first` on, in blocks of `B`.
#[inline(always)]
pub(crate) fn from<const B: usize>(
    first: usize,
    keys: impl Recurrence,
    v: &[f32],
    state: &mut [f32],
    y: &mut [f32],
) {
    let n = v.len();
    let first = blocks::<B>(keys, (v, y), state, (n, first));
    let first = blocks::<4>(keys, (v, y), state, (n, first));
    blocks::<1>(keys, (v, y), state, (n, first));
}

/// As many blocks of `B` value indices as there are from `first` on; returns where they end.
#[inline(always)]
fn blocks<const B: usize>(
    keys: impl Recurrence,
    (v, y): (&[f32], &mut [f32]),
    state: &mut [f32],
    (n, first): (usize, usize),
) -> usize {
    let v = v.get(first..).unwrap_or_default().as_chunks::<B>().0;
    let y = y.get_mut(first..).unwrap_or_default().as_chunks_mut::<B>().0;
    let mut at = first;
    for (v, y) in v.iter().zip(y) {
        keys.block((v, y), state.get_mut(at..).unwrap_or_default(), n);
        at += B;
    }
    at
}
