//! What is done to values for the sake of a token's speed, and how it is undone.

use rwkv_core::{Image, image::SectionKind};
use serde_json::Value;

/// Weight and bias of `ln0`, which the embedding was normalised by.
pub(super) fn ln0(image: &Image<'_>) -> Option<[Vec<f32>; 2]> {
    let metadata: Value = serde_json::from_slice(image.section(SectionKind::Metadata)?).ok()?;
    let vector = |name: &str| {
        let values = metadata["ln0"][name].as_array()?;
        let values: Option<Vec<f32>> = values.iter().map(|x| Some(x.as_f64()? as f32)).collect();
        values.filter(|values| values.len() == image.header().dims.dim as usize)
    };
    Some([vector("weight")?, vector("bias")?])
}

/// A row of an embedding that a layer norm makes `row` of, over `row` itself.
///
/// The mean and the length of the row that there was are lost, and free: the norm takes them away.
/// A row that no norm gives, as rounding to integers makes them, becomes the nearest one that a
/// norm does give.
pub(super) fn normalised(row: &mut [f32], [weight, bias]: &[Vec<f32>; 2], epsilon: f32) {
    /// Of a variance that is 1 but for rounding: rows of a length around 3.
    const LEAST: f64 = 1e-6;
    let known = |i: usize| weight[i] != 0.0;
    let mut x: Vec<f64> = row
        .iter()
        .enumerate()
        .map(|(i, y)| (f64::from(*y) - f64::from(bias[i])) / f64::from(weight[i]))
        .collect();
    // Where the weight is zero any value would do: such that the mean of all is zero.
    let unknown = (0..x.len()).filter(|i| !known(*i)).count();
    let sum: f64 = (0..x.len()).filter(|i| known(*i)).map(|i| x[i]).sum();
    let (fill, mean) = match unknown {
        0 => (0.0, sum / x.len() as f64),
        n => (-sum / n as f64, 0.0),
    };
    for (i, x) in x.iter_mut().enumerate() {
        *x = if known(i) { *x - mean } else { fill };
    }
    // With v the variance before a norm and s after it: s = v / (v + epsilon).
    let after = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let rest = if 1.0 - after > LEAST { 1.0 - after } else { LEAST };
    let before = f64::from(epsilon) * after / rest;
    let factor = if after > 0.0 { (before / after).sqrt() } else { 0.0 };
    row.iter_mut().zip(x).for_each(|(y, x)| *y = (x * factor) as f32);
}

/// A parameter that `f`, which rises or falls throughout, maps to `value`, or nearest to it.
/// `None` if none comes near.
pub(super) fn inverse(f: fn(f32) -> f32, value: f32) -> Option<f32> {
    /// Beyond them exponentials are zero or infinite.
    const ENDS: [f64; 2] = [-110.0, 88.0];
    const NEIGHBOURS: i32 = 64;
    let [mut low, mut high] = ENDS;
    let rises = f(high as f32) > f(low as f32);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if (f(middle as f32) < value) == rises { low = middle } else { high = middle }
    }
    let middle = low as f32;
    let off = |x: f32| f64::from(f(x) - value).abs();
    let mut best = middle;
    let (mut up, mut down) = (middle, middle);
    for _ in 0..NEIGHBOURS {
        (up, down) = (up.next_up(), down.next_down());
        for x in [up, down] {
            if off(x) < off(best) {
                best = x;
            }
        }
    }
    (off(best) <= 1e-5 * f64::from(value.abs())).then_some(best)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rwkv_core::{math, op};

    use super::*;

    proptest! {
        #[test]
        fn parameters_are_found(raw in -9f32..4.0) {
            for f in [|w| -math::exp(w), |w| math::exp(-math::exp(w)), math::exp] as [fn(f32) -> f32; 3] {
                let found = inverse(f, f(raw)).unwrap();
                prop_assert_eq!(f(found).to_bits(), f(raw).to_bits());
            }
        }

        /// Rows short and long, and norms that leave channels out.
        #[test]
        fn norms_are_undone(
            row in proptest::collection::vec(-1f32..1.0, 48),
            power in -14i32..8,
            zeros in 0usize..3,
        ) {
            let epsilon = 1e-5;
            let weight: Vec<f32> = (0..48).map(|i| if i < zeros { 0.0 } else { 0.5 + i as f32 / 20.0 }).collect();
            let ln0 = [weight, (0..48).map(|i| i as f32 / 100.0 - 0.2).collect()];
            let params: Vec<f32> = (0..48).flat_map(|i| [ln0[0][i], ln0[1][i]]).collect();
            let norm = |row: &mut [f32]| op::normalise_in_place(row, op::moments(row, epsilon), &params);
            // Where weights are zero, values are lost: those that are left have the mean of all.
            let mut row: Vec<f32> = row.into_iter().map(|x| x * 2f32.powi(power)).collect();
            let mean = row[zeros..].iter().sum::<f32>() / (48 - zeros) as f32;
            row[..zeros].fill(mean);
            norm(&mut row);
            let mut found = row.clone();
            normalised(&mut found, &ln0, epsilon);
            norm(&mut found);
            for (found, wanted) in found.iter().zip(&row) {
                prop_assert!((found - wanted).abs() < 2e-6 * (1.0 + wanted.abs()), "{found} {wanted}");
            }
        }
    }

    #[test]
    fn values_that_nothing_leads_to_have_none() {
        let decay = |w| math::exp(-math::exp(w));
        assert_eq!(inverse(decay, 1.5), None);
        assert_eq!(inverse(|w| -math::exp(w), 0.5), None);
        for (f, value) in [(decay as fn(f32) -> f32, 1.0), (decay, 0.0), (math::exp, 0.0)] {
            assert_eq!(f(inverse(f, value).unwrap()), value);
        }
    }
}
