//! Where logits go, and who looks on.

use super::Work;

/// Where logits go, run by run in the order of token ids, so that no buffer need hold them all.
pub trait Logits {
    /// Whether anybody looks: if not, the head is not computed.
    const WANTED: bool = true;

    /// Whether anybody looks at the hidden vector; it costs a norm, and no logit.
    const HIDDEN: bool = false;

    /// Whether anybody looks at what operations write.
    const LOOKS: bool = false;

    /// Whether there is room for so many; asked before a token is computed.
    fn fits(&self, vocab: u32) -> bool {
        let _ = vocab;
        true
    }

    /// Takes the hidden vector that the logits are products with: the last layer's output after
    /// the last norm, `dim` elements, all finite. It comes before the logits.
    #[inline]
    fn hidden(&mut self, x: &[f32]) {
        let _ = x;
    }

    /// Takes the logits of the tokens from `first` on. All are finite.
    fn push(&mut self, first: u32, logits: &[f32]);

    /// Hears of every piece of work as it is done, to tell where a token's time goes.
    #[inline]
    fn spent(&mut self, work: Work) {
        let _ = work;
    }

    /// Sees what an operation has written, from its element `first` on, before anything reads it:
    /// what is changed here is what the token goes on with. Pieces of a vector come in their order,
    /// and the first of them begins at element 0. The step executor asks; others need not.
    #[inline]
    fn wrote(&mut self, work: Work, first: u32, values: &mut [f32]) {
        let _ = (work, first, values);
    }
}

/// Nobody looks: for a prompt's tokens but the last.
impl Logits for () {
    const WANTED: bool = false;

    fn push(&mut self, _: u32, _: &[f32]) {}
}

/// Both look.
impl<A: Logits, B: Logits> Logits for (A, B) {
    const WANTED: bool = A::WANTED || B::WANTED;
    const HIDDEN: bool = A::HIDDEN || B::HIDDEN;
    const LOOKS: bool = A::LOOKS || B::LOOKS;

    fn hidden(&mut self, x: &[f32]) {
        self.0.hidden(x);
        self.1.hidden(x);
    }

    fn fits(&self, vocab: u32) -> bool {
        self.0.fits(vocab) && self.1.fits(vocab)
    }

    fn push(&mut self, first: u32, logits: &[f32]) {
        self.0.push(first, logits);
        self.1.push(first, logits);
    }

    fn spent(&mut self, work: Work) {
        self.0.spent(work);
        self.1.spent(work);
    }

    fn wrote(&mut self, work: Work, first: u32, values: &mut [f32]) {
        self.0.wrote(work, first, values);
        self.1.wrote(work, first, values);
    }
}

impl<L: Logits> Logits for &mut L {
    const WANTED: bool = L::WANTED;
    const HIDDEN: bool = L::HIDDEN;
    const LOOKS: bool = L::LOOKS;

    fn hidden(&mut self, x: &[f32]) {
        (**self).hidden(x);
    }

    fn fits(&self, vocab: u32) -> bool {
        (**self).fits(vocab)
    }

    fn push(&mut self, first: u32, logits: &[f32]) {
        (**self).push(first, logits);
    }

    fn spent(&mut self, work: Work) {
        (**self).spent(work);
    }

    fn wrote(&mut self, work: Work, first: u32, values: &mut [f32]) {
        (**self).wrote(work, first, values);
    }
}

/// Somebody looks, perhaps.
impl<L: Logits> Logits for Option<L> {
    const WANTED: bool = L::WANTED;
    const HIDDEN: bool = L::HIDDEN;
    const LOOKS: bool = L::LOOKS;

    fn hidden(&mut self, x: &[f32]) {
        if let Some(sink) = self {
            sink.hidden(x);
        }
    }

    fn fits(&self, vocab: u32) -> bool {
        self.as_ref().is_none_or(|sink| sink.fits(vocab))
    }

    fn push(&mut self, first: u32, logits: &[f32]) {
        if let Some(sink) = self {
            sink.push(first, logits);
        }
    }

    fn spent(&mut self, work: Work) {
        if let Some(sink) = self {
            sink.spent(work);
        }
    }

    fn wrote(&mut self, work: Work, first: u32, values: &mut [f32]) {
        if let Some(sink) = self {
            sink.wrote(work, first, values);
        }
    }
}

/// A buffer for all of them.
impl Logits for [f32] {
    fn fits(&self, vocab: u32) -> bool {
        self.len() >= vocab as usize
    }

    fn push(&mut self, first: u32, logits: &[f32]) {
        let rest = self.get_mut(first as usize..).unwrap_or_default();
        rest.iter_mut().zip(logits).for_each(|(y, x)| *y = *x);
    }
}

impl Logits for &mut [f32] {
    fn fits(&self, vocab: u32) -> bool {
        (**self).fits(vocab)
    }

    fn push(&mut self, first: u32, logits: &[f32]) {
        (**self).push(first, logits);
    }
}

/// The hidden vector instead of logits, which are not computed: what a model makes of all that it
/// has read, for a search or a classifier.
///
/// An image whose channels are scaled by powers of two has them scaled here too, the same ones for
/// every text: see the book's chapter *Quantisation*.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Hidden<'a>(
    /// Where it goes, [`crate::image::Dims::dim`] elements; what is beyond is cut off.
    pub &'a mut [f32],
);

impl Logits for Hidden<'_> {
    const WANTED: bool = false;
    const HIDDEN: bool = true;

    fn hidden(&mut self, x: &[f32]) {
        self.0.iter_mut().zip(x).for_each(|(y, x)| *y = *x);
    }

    fn push(&mut self, _: u32, _: &[f32]) {}
}

impl Logits for crate::sampler::Sampler {
    fn push(&mut self, first: u32, logits: &[f32]) {
        self.push(first, logits);
    }
}
