//! Tensors as strided views of the file, checked once and decoded on demand.

use std::{fmt, ops::Range};

use half::{bf16, f16};

use super::{
    CheckpointError,
    blocks::{self, Blocks},
    map::File,
};

/// More dimensions than any weight has; bounds the recursion and what a shape may cost.
pub(super) const MAX_RANK: usize = 8;

/// How the values of a tensor are stored, always little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of an IEEE binary32.
    Bf16,
    /// Integers in blocks of 32.
    Quantised(Blocks),
}

impl Dtype {
    /// What ggml calls so, if it is read.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "F32" | "FP32" => Self::F32,
            "F16" | "FP16" => Self::F16,
            "BF16" => Self::Bf16,
            "Q4_0" => Self::Quantised(Blocks::Q4_0),
            "Q4_1" => Self::Quantised(Blocks::Q4_1),
            "Q5_0" => Self::Quantised(Blocks::Q5_0),
            "Q5_1" => Self::Quantised(Blocks::Q5_1),
            "Q8_0" => Self::Quantised(Blocks::Q8_0),
            _ => return None,
        })
    }

    /// Values that are stored together, and their bytes.
    pub(super) fn unit(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Quantised(blocks) => (blocks::LEN, blocks.size()),
        }
    }

    /// Bytes of a tensor of this shape, unless its innermost dimension ends inside a block or the
    /// number is out of all bounds.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let (len, bytes) = self.unit();
        let count = shape.iter().try_fold(1, |count: usize, &n| count.checked_mul(n))?;
        let whole = len == 1 || shape.last().is_some_and(|n| n.is_multiple_of(len));
        if whole { (count / len).checked_mul(bytes) } else { None }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Quantised(blocks) => return write!(f, "{blocks:?}"),
        })
    }
}

/// A tensor in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Size along each dimension, outermost first, as in the official checkpoint, except that a
    /// vector stored as `(1, 1, C)` has the shape `[C]`.
    pub shape: Vec<usize>,
    /// How the values are stored.
    pub dtype: Dtype,
    /// Distance in values between neighbours along each dimension.
    strides: Vec<usize>,
    /// Index of the first value in the storage.
    offset: usize,
    /// Bytes of the file that hold the values, those of other tensors perhaps included.
    storage: Range<usize>,
    /// How often the values are to be doubled.
    doublings: u8,
    /// Which of the checkpoint's files it is.
    pub(super) file: usize,
}

/// The values of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Size along each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The values, row-major and contiguous.
    pub data: Vec<f32>,
}

/// Where a container says that a tensor lies.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) dtype: Dtype,
    /// Bytes of the file that hold the values, those of other tensors perhaps included.
    pub(super) storage: Range<usize>,
    /// Index of the first value in the storage.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl View {
    /// A row-major view of a whole storage. Hostile shapes may saturate the strides, which
    /// [`View::check`] then finds out of bounds.
    pub(super) fn contiguous(dtype: Dtype, storage: Range<usize>, shape: Vec<usize>) -> Self {
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = shape[i].saturating_mul(strides[i]);
        }
        Self { dtype, storage, offset: 0, shape, strides }
    }

    /// Checks that every value lies within the storage and the storage within the file.
    pub(super) fn check(mut self, file: File<'_>, name: &str) -> Result<Entry, CheckpointError> {
        if self.storage.end > file.bytes.len() || !self.is_within() {
            return Err(CheckpointError::Bounds {
                path: file.path.into(),
                tensor: name.into(),
                available: self.available(),
                shape: self.shape,
                strides: self.strides,
                offset: self.offset,
            });
        }
        if let [1, 1, _] = self.shape[..] {
            self.shape.drain(..2);
            self.strides.drain(..2);
        }
        let Self { dtype, storage, offset, shape, strides } = self;
        Ok(Entry { shape, dtype, strides, offset, storage, doublings: 0, file: 0 })
    }

    fn available(&self) -> usize {
        let (len, bytes) = self.dtype.unit();
        self.storage.len() / bytes * len
    }

    /// Whether all values lie within the storage.
    fn is_within(&self) -> bool {
        let rank = self.shape.len();
        let count = self.shape.iter().try_fold(1, |count: usize, &n| count.checked_mul(n));
        // Strides of zero could make more values than there are bytes.
        if rank > MAX_RANK
            || rank != self.strides.len()
            || count.is_none_or(|count| count > self.available())
        {
            return false;
        }
        let last = self.shape.iter().zip(&self.strides).try_fold(self.offset, |at, (n, stride)| {
            at.checked_add(n.checked_sub(1)?.checked_mul(*stride)?)
        });
        count == Some(0) || last.is_some_and(|last| last < self.available())
    }
}

impl Entry {
    /// Bytes of the file that its values take; other tensors may take the same.
    pub(super) fn bytes(&self) -> usize {
        let (len, bytes) = self.dtype.unit();
        // The count was checked; an empty tensor may have any other dimension.
        let count = self.shape.iter().fold(1, |count: usize, &n| count.saturating_mul(n));
        count.saturating_mul(bytes) / len
    }

    /// Exchanges the two innermost dimensions, if there are as many.
    pub(super) fn transpose(&mut self) -> bool {
        let rank = self.shape.len();
        if rank >= 2 {
            self.shape.swap(rank - 2, rank - 1);
            self.strides.swap(rank - 2, rank - 1);
        }
        rank >= 2
    }

    /// Splits the innermost dimension into groups of `size`, if it is a multiple of that.
    pub(super) fn split_last(&mut self, size: usize) -> bool {
        let (Some(last), Some(&stride)) = (self.shape.last_mut(), self.strides.last()) else {
            return false;
        };
        if size == 0 || !last.is_multiple_of(size) {
            return false;
        }
        *last /= size;
        self.shape.push(size);
        if let Some(last) = self.strides.last_mut() {
            *last = stride.saturating_mul(size);
        }
        self.strides.push(stride);
        true
    }

    /// Has every value doubled so many times, if an f32 has the power of two.
    pub(super) fn double(&mut self, times: usize) -> bool {
        self.doublings = u8::try_from(times).unwrap_or(u8::MAX);
        self.doublings <= 127
    }

    /// The tensors along the first dimension, if there are `count` and they have dimensions left.
    pub(super) fn parts(&self, count: usize) -> Option<Vec<Self>> {
        let (&[first, ref shape @ ..], &[stride, ref strides @ ..]) =
            (&self.shape[..], &self.strides[..])
        else {
            return None;
        };
        if first != count || shape.is_empty() {
            return None;
        }
        // Dimensions of one before the last say nothing.
        let ones = shape[..shape.len() - 1].iter().take_while(|&&size| size == 1).count();
        let part = |i| Self {
            shape: shape[ones..].to_vec(),
            strides: strides[ones..].to_vec(),
            offset: self.offset.saturating_add(stride.saturating_mul(i)),
            ..self.clone()
        };
        Some((0..count).map(part).collect())
    }

    /// Decodes the values. `bytes` is the file that the entry was checked against.
    pub(super) fn read(&self, bytes: &[u8]) -> Tensor {
        let bytes = &bytes[self.storage.clone()];
        let mut data = match self.dtype {
            Dtype::F32 => self.gather(bytes.as_chunks().0, |x| f32::from_le_bytes(*x)),
            Dtype::F16 => self.gather(bytes.as_chunks().0, |x| f16::from_le_bytes(*x).to_f32()),
            Dtype::Bf16 => self.gather(bytes.as_chunks().0, |x| bf16::from_le_bytes(*x).to_f32()),
            Dtype::Quantised(blocks) => self.gather(&blocks.decode(bytes), |x| *x),
        };
        if self.doublings > 0 {
            let power = f32::from_bits((127 + u32::from(self.doublings)) << 23);
            data.iter_mut().for_each(|x| *x *= power);
        }
        Tensor { shape: self.shape.clone(), data }
    }

    /// The values in row-major order.
    fn gather<T>(&self, values: &[T], decode: impl Fn(&T) -> f32) -> Vec<f32> {
        // The count was checked; an empty tensor may have any other dimension.
        if self.shape.contains(&0) {
            return Vec::new();
        }
        let mut data = Vec::with_capacity(self.shape.iter().product());
        let mut visit = |value: &T| data.push(decode(value));
        gather(values, &self.shape, &self.strides, self.offset, &mut visit);
        data
    }
}

/// Visits the values of a view in row-major order.
fn gather<T>(
    values: &[T],
    shape: &[usize],
    strides: &[usize],
    start: usize,
    visit: &mut impl FnMut(&T),
) {
    match (shape, strides) {
        (&[n], &[stride]) => (0..n).for_each(|i| visit(&values[start + i * stride])),
        (&[n, ref shape @ ..], &[stride, ref strides @ ..]) => {
            (0..n).for_each(|i| gather(values, shape, strides, start + i * stride, visit));
        }
        _ => visit(&values[start]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn view(shape: &[usize], strides: &[usize], offset: usize) -> View {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        View { dtype: Dtype::F32, storage: 4..28, offset, shape, strides }
    }

    fn read(view: View) -> Result<Tensor, CheckpointError> {
        let bytes: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let file = File { path: Path::new("memory"), bytes: &bytes };
        Ok(view.check(file, "t")?.read(&bytes))
    }

    #[test]
    fn views_are_read_row_major() {
        for (shape, strides, offset, expected) in [
            (&[2, 3][..], &[3, 1][..], 0, &[1., 2., 3., 4., 5., 6.][..]),
            (&[3, 2], &[1, 3], 0, &[1., 4., 2., 5., 3., 6.]),
            (&[2], &[2], 1, &[2., 4.]),
            (&[], &[], 5, &[6.]),
            (&[0, 3], &[usize::MAX, 1], 9, &[]),
        ] {
            let tensor = read(view(shape, strides, offset)).unwrap();
            assert_eq!((&tensor.shape[..], &tensor.data[..]), (shape, expected));
        }
        assert_eq!(read(view(&[1, 1, 6], &[6, 6, 1], 0)).unwrap().shape, [6]);
        assert_eq!(read(view(&[1, 6], &[6, 1], 0)).unwrap().shape, [1, 6]);
    }

    #[test]
    fn views_beyond_their_storage_are_refused() {
        for (shape, strides, offset) in [
            (&[7][..], &[1][..], 0),
            (&[6], &[1], 1),
            (&[1], &[1], usize::MAX),
            (&[2, 3], &[4, 1], 0),
            (&[2, 2], &[usize::MAX, usize::MAX], 0),
            (&[7], &[0], 0),
            (&[usize::MAX, usize::MAX], &[0, 0], 0),
            (&[2, 3], &[1], 0),
            (&[1; 9], &[1; 9], 0),
        ] {
            let error = read(view(shape, strides, offset)).unwrap_err();
            assert!(matches!(error, CheckpointError::Bounds { .. }), "{error}");
        }
        let beyond = View::contiguous(Dtype::F32, 28..36, vec![2]);
        assert!(matches!(read(beyond), Err(CheckpointError::Bounds { available: 2, .. })));
        let huge = View::contiguous(Dtype::F32, 0..32, vec![usize::MAX; 3]);
        assert!(matches!(read(huge), Err(CheckpointError::Bounds { .. })));
    }

    /// Two blocks of 32 values with the scale 1: -8 to 7, each twice, then all 0.
    #[test]
    fn blocks_are_read_through_any_view() {
        let mut bytes = vec![0, 0x3c];
        bytes.extend((0..16).map(|i| i << 4 | i));
        bytes.extend([&[0, 0x3c][..], &[0x88; 16]].concat());
        let file = File { path: Path::new("memory"), bytes: &bytes };
        let dtype = Dtype::Quantised(Blocks::Q4_0);
        assert_eq!(dtype.bytes(&[2, 32]), Some(36));
        assert_eq!((dtype.bytes(&[32, 2]), dtype.bytes(&[])), (None, None));
        let entry = View::contiguous(dtype, 0..36, vec![2, 32]).check(file, "t").unwrap();
        let values = entry.read(&bytes).data;
        assert!((0..64).all(|i| values[i] == if i < 32 { (i % 16) as f32 - 8. } else { 0. }));
        let mut transposed = entry.clone();
        assert!(transposed.transpose());
        assert_eq!(transposed.read(&bytes).data[..4], [-8., 0., -7., 0.]);
        assert_eq!(entry.parts(2).unwrap()[1].read(&bytes).data, [0.; 32]);
        assert!(View::contiguous(dtype, 0..35, vec![2, 32]).check(file, "t").is_err());
    }

    #[test]
    fn halves_widen_exactly() {
        let bytes = [0x00, 0x3c, 0x01, 0x00, 0x80, 0xbf, 0x01, 0x00];
        let file = File { path: Path::new("memory"), bytes: &bytes };
        let read = |dtype, storage| {
            View::contiguous(dtype, storage, vec![2]).check(file, "t").unwrap().read(&bytes).data
        };
        assert_eq!(read(Dtype::F16, 0..4), [1.0, 5.9604645e-8]);
        assert_eq!(read(Dtype::Bf16, 4..8), [-1.0, f32::from_bits(0x1_0000)]);
    }
}
