//! Values in blocks of 32 integers with a scale, as ggml defines them.

use half::f16;

/// The kinds of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// 8 bits and a scale.
    Q8_0,
    /// 4 bits around 8 and a scale.
    Q4_0,
    /// 5 bits, a scale and a least value.
    Q5_1,
}

impl Blocks {
    /// Its code in a GGUF file.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Q4_0 => 2,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
        }
    }

    /// Scale and offset of a block, both binary16, and its integers.
    fn quantise(self, values: &[f32]) -> (f16, f16, Vec<u8>) {
        let (least, most) = values.iter().fold((0f32, 0f32), |(a, b), x| (a.min(*x), b.max(*x)));
        let (scale, offset) = match self {
            Self::Q8_0 => (most.max(-least) / 127.0, 0.0),
            Self::Q4_0 => (most.max(-least) / 7.0, 0.0),
            Self::Q5_1 => ((most - least) / 31.0, least),
        };
        let (scale, offset) = (f16::from_f32(scale), f16::from_f32(offset));
        let steps = |x: &f32| ((x - offset.to_f32()) / scale.to_f32()).round();
        let integer = |x: &f32| match self {
            Self::Q8_0 => (steps(x).clamp(-128.0, 127.0) as i8).cast_unsigned(),
            Self::Q4_0 => (steps(x) + 8.0).clamp(0.0, 15.0) as u8,
            Self::Q5_1 => steps(x).clamp(0.0, 31.0) as u8,
        };
        (scale, offset, values.iter().map(integer).collect())
    }
}

/// The bytes of values in blocks.
pub(crate) fn encode(values: &[f32], blocks: Blocks) -> Vec<u8> {
    let mut bytes = Vec::new();
    for values in values.chunks_exact(32) {
        let (scale, offset, integers) = blocks.quantise(values);
        bytes.extend(scale.to_le_bytes());
        if blocks == Blocks::Q8_0 {
            bytes.extend(integers);
            continue;
        }
        if blocks == Blocks::Q5_1 {
            bytes.extend(offset.to_le_bytes());
            let high = |bits: u32, (i, q): (usize, &u8)| bits | u32::from(q >> 4) << i;
            bytes.extend(integers.iter().enumerate().fold(0, high).to_le_bytes());
        }
        bytes.extend((0..16).map(|i| integers[i] & 15 | integers[i + 16] << 4));
    }
    bytes
}

/// What the blocks say.
pub(crate) fn round(values: &[f32], blocks: Blocks) -> Vec<f32> {
    let block = |values: &[f32]| -> Vec<f32> {
        let (scale, offset, integers) = blocks.quantise(values);
        let value = |q: &u8| match blocks {
            Blocks::Q8_0 => f32::from(q.cast_signed()) * scale.to_f32(),
            Blocks::Q4_0 => (f32::from(*q) - 8.0) * scale.to_f32(),
            Blocks::Q5_1 => f32::from(*q) * scale.to_f32() + offset.to_f32(),
        };
        integers.iter().map(value).collect()
    };
    values.chunks_exact(32).flat_map(block).collect()
}
