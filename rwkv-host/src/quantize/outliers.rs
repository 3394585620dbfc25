//! Tensors that lose more than others.

/// A tensor stands out if its weights cost this many times what weights cost on average.
const OUTSTANDING: f64 = 2.0;
/// One weight in so many is kept finer, at most.
const SHARE: u64 = 8;

/// The indices of the tensors to keep finer, the most expensive first; of each its cost and its
/// number of weights are given.
pub(crate) fn outliers(tensors: &[(f64, u64)]) -> Vec<usize> {
    let weights: u64 = tensors.iter().map(|(_, weights)| weights).sum();
    let mean = tensors.iter().map(|(cost, _)| cost).sum::<f64>() / weights.max(1) as f64;
    let each = |index: &usize| tensors[*index].0 / tensors[*index].1.max(1) as f64;
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.retain(|index| each(index) > OUTSTANDING * mean);
    order.sort_by(|a, b| each(b).total_cmp(&each(a)));
    let mut room = weights / SHARE;
    order.retain(|index| match room.checked_sub(tensors[*index].1) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_out_is_found_within_bounds() {
        let even = [(1.0, 100); 20];
        assert_eq!(outliers(&even), [0usize; 0]);
        let mut one = even;
        one[3].0 = 9.0;
        assert_eq!(outliers(&one), [3]);
        // 2,000 weights: 250 may be kept finer, the most expensive first.
        let mut many = even;
        (5..8).for_each(|index| many[index].0 = 10.0 + index as f64);
        assert_eq!(outliers(&many), [7, 6]);
        // A large tensor does not keep a small one out.
        many[7].1 = 300;
        many[7].0 = 60.0;
        assert_eq!(outliers(&many), [6, 5]);
        assert_eq!(outliers(&[]), [0usize; 0]);
        assert_eq!(outliers(&[(0.0, 10), (0.0, 10)]), [0usize; 0]);
    }
}
