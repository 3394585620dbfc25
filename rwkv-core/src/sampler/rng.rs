//! The generator behind sampling: 32-bit operations only, 16 bytes of state.

/// xoshiro128** 1.1 of Blackman and Vigna (<https://prng.di.unimi.it/xoshiro128starstar.c>),
/// period 2^128 - 1. Not for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Xoshiro128StarStar {
    state: [u32; 4],
}

impl Xoshiro128StarStar {
    /// Fills the state with two outputs of splitmix64, low halves first.
    pub const fn from_seed(seed: u64) -> Self {
        let (seed, a) = splitmix64(seed);
        let (_, b) = splitmix64(seed);
        // Successive outputs differ, so the state is never all zeros.
        Self { state: [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32] }
    }

    /// 32 uniform bits.
    pub const fn next_u32(&mut self) -> u32 {
        let [mut s0, mut s1, mut s2, mut s3] = self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s1 << 9;
        s2 ^= s0;
        s3 ^= s1;
        s1 ^= s2;
        s0 ^= s3;
        s2 ^= t;
        s3 = s3.rotate_left(11);
        self.state = [s0, s1, s2, s3];
        result
    }

    /// A multiple of 2^-24, uniform in [0, 1): the upper 24 bits of one [`next_u32`](Self::next_u32).
    pub const fn next_unit(&mut self) -> f32 {
        const UNIT: f32 = 1.0 / 16_777_216.0;
        (self.next_u32() >> 8) as f32 * UNIT
    }
}

/// The next state and its output.
const fn splitmix64(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first<const N: usize>(mut rng: Xoshiro128StarStar) -> [u32; N] {
        core::array::from_fn(|_| rng.next_u32())
    }

    /// Output of the authors' C code.
    #[test]
    fn equals_the_reference() {
        assert_eq!(
            first(Xoshiro128StarStar { state: [1, 2, 3, 4] }),
            [11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849]
        );
        assert_eq!(
            first(Xoshiro128StarStar { state: [0x964d4a0c, 0xd40ab895, 0xad7fdecb, 0x3006f0f0] }),
            [0xf1391922, 0x6fe53806, 0xa5be2840, 0xf510ee70]
        );
        let (state, a) = splitmix64(1234567);
        let (state, b) = splitmix64(state);
        let (_, c) = splitmix64(state);
        assert_eq!([a, b, c], [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn seeds_are_pinned() {
        let sequences = [
            (0, [0xdec9045d, 0x9a089d75, 0xab77d362, 0xc3e16405]),
            (42, [0x69e85a2a, 0xf843fad0, 0x0105185f, 0x8a1f1ea6]),
            (u64::MAX, [0x1c78f79c, 0x94a7662a, 0x211f3ea0, 0x243a6ba3]),
        ];
        for (seed, sequence) in sequences {
            assert_eq!(first(Xoshiro128StarStar::from_seed(seed)), sequence);
        }
    }

    #[test]
    fn units_are_the_upper_24_bits() {
        let mut rng = Xoshiro128StarStar::from_seed(42);
        assert_eq!(rng.next_unit(), 0x69e85a as f32 / 16_777_216.0);
        assert!((0..10_000).all(|_| (0.0..1.0).contains(&rng.next_unit())));
    }
}
