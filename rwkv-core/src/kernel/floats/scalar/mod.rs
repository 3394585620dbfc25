//! Plain Rust: the reference, and what other targets run.

#![cfg_attr(rwkv_vfp, allow(dead_code, reason = "the cases of the kernels compare with it"))]

mod blocks;
mod wkv5;
mod wkv7;

use crate::math;

#[cfg(rwkv_vfp)]
pub(crate) use blocks::from;
pub use wkv5::Keys5;
pub(crate) use wkv5::wkv5;
pub use wkv7::Keys7;
pub(crate) use wkv7::wkv7;

/// The end of the rule of eight.
pub(crate) fn fold(a: &[f32; 8]) -> f32 {
    ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}

/// Sum with the rule of eight of what `f` makes of each element.
#[inline]
fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut acc = [0f32; 8];
    let (eights, tail) = x.as_chunks::<8>();
    for x in eights {
        acc.iter_mut().zip(x).for_each(|(acc, x)| *acc += f(*x));
    }
    acc.iter_mut().zip(tail).for_each(|(acc, x)| *acc += f(*x));
    fold(&acc)
}

/// `Σ x` with the rule of eight.
pub(crate) fn sum(x: &[f32]) -> f32 {
    sum_of(x, |x| x)
}

/// `Σ (x - mean)²` with the rule of eight.
pub(crate) fn squares(x: &[f32], mean: f32) -> f32 {
    sum_of(x, |x| (x - mean) * (x - mean))
}

/// `x = (x - mean)·inverse·w + b`; `params` is `[w, b]` per channel.
pub(crate) fn normalise(x: &mut [f32], (mean, inverse): (f32, f32), params: &[f32]) {
    for (x, [w, b]) in x.iter_mut().zip(params.as_chunks().0) {
        *x = (*x - mean) * inverse * w + b;
    }
}

/// `out = x`.
pub(crate) fn copy(x: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(y, x)| *y = *x);
}

/// `x += y`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `x += (target - x)·weight`.
pub(crate) fn lerp(x: &mut [f32], target: &[f32], weight: &[f32]) {
    for ((x, t), w) in x.iter_mut().zip(target).zip(weight) {
        *x += (t - *x) * w;
    }
}

/// `x = sigmoid(x)`.
pub(crate) fn sigmoid(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::sigmoid(*x));
}

/// `x = e^(-0.606531·sigmoid(x))`.
pub(crate) fn decay(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::exp_within_87(math::DECAY * math::sigmoid(*x)));
}
