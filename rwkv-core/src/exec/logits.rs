//! Where logits go, and who looks on.

use super::Work;

/// Where logits go, run by run in the order of token ids, so that no buffer need hold them all.
pub trait Logits {
    /// Whether anybody looks: if not, the head is not computed.
    const WANTED: bool = true;

    /// Whether there is room for so many; asked before a token is computed.
    fn fits(&self, vocab: u32) -> bool {
        let _ = vocab;
        true
    }

    /// Takes the logits of the tokens from `first` on. All are finite.
    fn push(&mut self, first: u32, logits: &[f32]);

    /// Hears of every piece of work as it is done, to tell where a token's time goes.
    #[inline]
    fn spent(&mut self, work: Work) {
        let _ = work;
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
}

impl<L: Logits> Logits for &mut L {
    const WANTED: bool = L::WANTED;

    fn fits(&self, vocab: u32) -> bool {
        (**self).fits(vocab)
    }

    fn push(&mut self, first: u32, logits: &[f32]) {
        (**self).push(first, logits);
    }

    fn spent(&mut self, work: Work) {
        (**self).spent(work);
    }
}

/// Somebody looks, perhaps.
impl<L: Logits> Logits for Option<L> {
    const WANTED: bool = L::WANTED;

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

impl Logits for crate::sampler::Sampler {
    fn push(&mut self, first: u32, logits: &[f32]) {
        self.push(first, logits);
    }
}
