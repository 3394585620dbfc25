//! The recurrence of version 7 over the keys of a head, in plain Rust.

/// What the recurrence of version 7 reads of a head: one value per key each.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
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

/// Value indices whose sums stay in registers while the keys pass by.
const BLOCK: usize =
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 16 } else { 8 };

/// See [`crate::kernel::Kernel::wkv7`].
#[inline(always)]
pub(crate) fn wkv7(keys: Keys<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
    wkv7_from::<BLOCK>(0, keys, v, state, y);
}

/// The recurrence from value index `first` on, in blocks of `B`.
#[inline(always)]
pub(super) fn wkv7_from<const B: usize>(
    first: usize,
    keys: Keys<'_>,
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
    keys: Keys<'_>,
    (v, y): (&[f32], &mut [f32]),
    state: &mut [f32],
    (n, first): (usize, usize),
) -> usize {
    let v = v.get(first..).unwrap_or_default().as_chunks::<B>().0;
    let y = y.get_mut(first..).unwrap_or_default().as_chunks_mut::<B>().0;
    let mut at = first;
    for (v, y) in v.iter().zip(y) {
        block(keys, (v, y), state.get_mut(at..).unwrap_or_default(), n);
        at += B;
    }
    at
}

#[inline(always)]
fn block<const B: usize>(
    keys: Keys<'_>,
    (v, y): (&[f32; B], &mut [f32; B]),
    state: &mut [f32],
    n: usize,
) {
    let mut sa = [0.0; B];
    for (row, kk) in state.chunks(n.max(1)).zip(keys.kk) {
        let Some(row) = row.first_chunk::<B>() else { continue };
        sa.iter_mut().zip(row).for_each(|(sa, s)| *sa += s * kk);
    }
    let mut sum = [0.0; B];
    let scalars = keys.w.iter().zip(keys.k).zip(keys.b).zip(keys.r);
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
