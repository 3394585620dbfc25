//! The quantised types of ggml: blocks of 32 values with a scale of their own.

use half::f16;

/// Values of a block.
pub(super) const LEN: usize = 32;

/// A type of blocks. A value is `scale * (q - offset)`, or `scale * q + least` in types whose name
/// ends in 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Four bits, offset 8.
    Q4_0,
    /// Four bits and a least value.
    Q4_1,
    /// Five bits, offset 16.
    Q5_0,
    /// Five bits and a least value.
    Q5_1,
    /// Eight bits with a sign.
    Q8_0,
}

impl Blocks {
    /// Bits of a value, and whether there is a least one.
    const fn form(self) -> (usize, bool) {
        match self {
            Self::Q4_0 => (4, false),
            Self::Q4_1 => (4, true),
            Self::Q5_0 => (5, false),
            Self::Q5_1 => (5, true),
            Self::Q8_0 => (8, false),
        }
    }

    /// Bytes of a block.
    pub(super) const fn size(self) -> usize {
        let (bits, has_least) = self.form();
        LEN * bits / 8 + if has_least { 4 } else { 2 }
    }

    /// The values of whole blocks, in order.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::with_capacity(bytes.len() / self.size() * LEN);
        bytes.chunks_exact(self.size()).for_each(|block| self.block(block, &mut values));
        values
    }

    /// Scale, least value, all fifth bits, and the other bits: value i shares a byte with i + 16.
    fn block(self, block: &[u8], values: &mut Vec<f32>) {
        let (bits, has_least) = self.form();
        let (floats, rest) = block.split_at(if has_least { 4 } else { 2 });
        let (fifth, low) = rest.split_at(if bits == 5 { 4 } else { 0 });
        let float = |at: usize| f16::from_le_bytes([floats[at], floats[at + 1]]).to_f32();
        let scale = float(0);
        let fifth = fifth.first_chunk().map_or(0, |bits| u32::from_le_bytes(*bits));
        let four = |i: usize| i32::from(low[i % 16] >> (i / 16 * 4) & 15);
        let five = |i: usize| four(i) + 16 * (fifth >> i & 1) as i32;
        let value = |q: i32| scale * q as f32;
        match self {
            Self::Q4_0 => values.extend((0..LEN).map(|i| value(four(i) - 8))),
            Self::Q4_1 => values.extend((0..LEN).map(|i| value(four(i)) + float(2))),
            Self::Q5_0 => values.extend((0..LEN).map(|i| value(five(i) - 16))),
            Self::Q5_1 => values.extend((0..LEN).map(|i| value(five(i)) + float(2))),
            Self::Q8_0 => values.extend(low.iter().map(|q| value(i32::from(*q as i8)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the package `gguf` makes of the bytes of `golden/blocks.py`.
    #[test]
    fn values_are_those_of_another_implementation() {
        let golden = include_bytes!("../../tests/golden/blocks.bin");
        let mut golden = &golden[..];
        for blocks in [Blocks::Q4_0, Blocks::Q4_1, Blocks::Q5_0, Blocks::Q5_1, Blocks::Q8_0] {
            let (bytes, rest) = golden.split_at(3 * blocks.size());
            let (values, rest) = rest.split_at(3 * LEN * 4);
            let found: Vec<u8> =
                blocks.decode(bytes).iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(found, values, "{blocks:?}");
            golden = rest;
        }
        assert!(golden.is_empty());
    }
}
