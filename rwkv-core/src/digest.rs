//! Digests: what two devices compare to learn whether they computed the same bits.
//!
//! A digest is two wrapping sums over a mix of each value's bits and its position, so the order
//! in which values appear does not matter and no buffer is needed. Normative: see the book.

use crate::{error::Error, exec::Logits, image::Header, state::StateView};

/// Two wrapping sums over mixed bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Digest(pub u32, pub u32);

/// The finaliser of MurmurHash3 over a value's bits and its position.
const fn mix(bits: u32, position: u32) -> u32 {
    let mut h = bits ^ position.wrapping_mul(0x9E37_79B1);
    h = (h ^ (h >> 16)).wrapping_mul(0x85EB_CA6B);
    h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
    h ^ (h >> 16)
}

impl Digest {
    /// Adds the values that stand at `first` and the positions after it.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a value is infinite or not a number: then the digest is of no use.
    pub fn add(&mut self, first: u32, values: &[f32]) -> Result<(), Error> {
        let mut finite = true;
        for (i, value) in values.iter().enumerate() {
            finite &= value.is_finite();
            self.add_bits(first.wrapping_add(i as u32), value.to_bits());
        }
        if finite { Ok(()) } else { Err(Error::NonFinite) }
    }

    /// Appends another digest, as the next part in a fixed order.
    pub fn fold(&mut self, part: u32, other: Self) {
        self.add_bits(2 * part, other.0);
        self.add_bits(2 * part + 1, other.1);
    }

    /// Adds what another digest took of other positions.
    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
        self.1 = self.1.wrapping_add(other.1);
    }

    fn add_bits(&mut self, position: u32, bits: u32) {
        let h = mix(bits, position);
        self.0 = self.0.wrapping_add(h);
        self.1 = self.1.wrapping_add(h.rotate_left(15).wrapping_mul(0x27D4_EB2F));
    }

    /// The digest of a layer's state: its shift rows, then its recurrent rows.
    ///
    /// # Errors
    /// As [`Digest::add`].
    pub fn layer(header: &Header, state: &StateView<'_>, layer: usize) -> Result<Self, Error> {
        let mut digest = Self::default();
        let [shift, recurrent] = state.layer(&header.dims, layer);
        digest.add(0, shift)?;
        digest.add(shift.len() as u32, recurrent)?;
        Ok(digest)
    }

    /// The digest of a token: that of every layer's state in order, then that of the logits.
    ///
    /// # Errors
    /// As [`Digest::add`].
    pub fn token(header: &Header, state: &StateView<'_>, logits: Self) -> Result<Self, Error> {
        let mut digest = Self::default();
        for layer in 0..header.dims.layers {
            digest.fold(layer, Self::layer(header, state, layer as usize)?);
        }
        digest.fold(header.dims.layers, logits);
        Ok(digest)
    }
}

/// Logits fold in as they appear; executors hand on finite ones only.
impl Logits for Digest {
    fn push(&mut self, first: u32, logits: &[f32]) {
        for (i, value) in logits.iter().enumerate() {
            self.add_bits(first.wrapping_add(i as u32), value.to_bits());
        }
    }
}
