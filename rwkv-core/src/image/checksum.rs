//! The checksum of a block.

/// The word checksum of a block: `h = (rotl(h, 7) ^ w) · 0x9E3779B1` for each word, from the
/// number of words plus one.
///
/// Every step is a bijection of `h` for a given word and of the word for a given `h`, so a change
/// confined to one word is always found, and a block of zeros never has the checksum 0.
pub fn checksum(words: &[u32]) -> u32 {
    let mut fold = Fold::new(words.len());
    fold.add(words);
    fold.end()
}

/// A [`checksum`] of words that come in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fold(u32);

impl Fold {
    /// Of so many words, none of which has come.
    pub(crate) const fn new(words: usize) -> Self {
        Self((words as u32).wrapping_add(1))
    }

    /// After some more of them.
    pub(crate) fn add(&mut self, words: &[u32]) {
        self.0 = words.iter().fold(self.0, |h, w| (h.rotate_left(7) ^ w).wrapping_mul(0x9E37_79B1));
    }

    /// The checksum, once all have come.
    pub(crate) const fn end(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    #[test]
    fn every_change_of_one_word_is_found() {
        let words: Vec<u32> = (0..64u32).map(|i| i.wrapping_mul(0x1234_5677)).collect();
        let sum = checksum(&words);
        for place in 0..words.len() {
            for bit in 0..32 {
                let mut changed = words.clone();
                changed[place] ^= 1 << bit;
                assert_ne!(checksum(&changed), sum);
            }
        }
    }

    /// A data line that is stuck, or two flips of the same bit anywhere.
    #[test]
    fn the_same_bit_flipped_twice_is_found() {
        let words: Vec<u32> = (0..64u32).map(|i| i.wrapping_mul(0x1234_5677)).collect();
        let sum = checksum(&words);
        for bit in 0..32 {
            for first in 0..words.len() {
                for second in 0..first {
                    let mut changed = words.clone();
                    changed[first] ^= 1 << bit;
                    changed[second] ^= 1 << bit;
                    assert_ne!(checksum(&changed), sum, "bit {bit} of {first} and {second}");
                }
            }
            let stuck: Vec<u32> = words.iter().map(|w| w | 1 << bit).collect();
            assert_ne!(checksum(&stuck), sum, "bit {bit} stuck");
        }
    }

    #[test]
    fn erased_flash_has_no_valid_block() {
        for erased in [0, u32::MAX] {
            for len in 0..5000 {
                let block = vec![erased; len];
                assert_ne!(checksum(&block), erased);
            }
        }
    }
}
