//! Products of matrices that lie in slices.

use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder, linalg::general_mat_mul};
use rwkv_core::Error;

/// Values as a matrix of so many columns, whose rows begin `stride` apart.
pub(super) fn matrix(
    values: &[f32],
    (rows, cols): (usize, usize),
    stride: usize,
) -> Result<ArrayView2<'_, f32>, Error> {
    let shape = (rows, cols).strides((stride, 1));
    ArrayView2::from_shape(shape, values).map_err(|_| Error::Internal)
}

/// Values as a matrix of so many columns, and as many rows as there are.
pub(super) fn packed(values: &[f32], cols: usize) -> Result<ArrayView2<'_, f32>, Error> {
    matrix(values, (values.len() / cols.max(1), cols), cols)
}

/// `out = a·b + scale·out`, row after row.
pub(super) fn multiply(
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    scale: f32,
    out: &mut [f32],
) -> Result<(), Error> {
    if a.ncols() != b.nrows() {
        return Err(Error::Internal);
    }
    let out = ArrayViewMut2::from_shape((a.nrows(), b.ncols()), out);
    general_mat_mul(1.0, &a, &b, scale, &mut out.map_err(|_| Error::Internal)?);
    Ok(())
}
