//! Where the results of a token go.

use core::ffi::c_void;

use rwkv_core::{Digest, Hidden, Logits, Surprise};

use crate::{
    error::{Fault, rwkv_error},
    opaque, pointer,
    sampler::{Choice, rwkv_sampler},
};

/// Takes the logits of `count` tokens from `first` on. All tokens come, in order.
pub type rwkv_push =
    Option<unsafe extern "C" fn(context: *mut c_void, first: u32, logits: *const f32, count: u32)>;

/// Two sums over the bits of values: equal where all bits are, on any machine.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct rwkv_digest {
    /// The first sum.
    pub low: u32,
    /// The second sum.
    pub high: u32,
}

/// How much a token surprises the model: -log2 of the probability that it gave it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct rwkv_surprise {
    /// The caller's: the token that comes next.
    pub next: u32,
    /// What it costs in bits, 0 or more; -1 if the token failed, or the vocabulary has no such
    /// next one.
    pub bits: f32,
}

/// Where the results of a token go. Each may be null or left out, and costs nothing then; without
/// logits, push, sampler, digest and surprise the head of the network is not computed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_output {
    /// The logits of all tokens.
    pub logits: *mut f32,
    /// Elements of it: the vocabulary or more.
    pub logits_count: usize,
    /// Takes logits as they are computed, so that no array need hold them.
    pub push: rwkv_push,
    /// Handed to the function.
    pub context: *mut c_void,
    /// Sees every logit, and then chooses a token: rwkv_sampler_next.
    pub sampler: *mut rwkv_sampler,
    /// The digest of the logits, for rwkv_token_digest.
    pub digest: *mut rwkv_digest,
    /// The vector that the logits are computed from: what the model makes of all that it has read.
    pub hidden: *mut f32,
    /// Elements of it: the model width or more.
    pub hidden_count: usize,
    /// How much the token surprises that comes next, where the caller knows it.
    pub surprise: *mut rwkv_surprise,
}

/// The same with references.
#[derive(Default)]
pub(crate) struct Sink<'a> {
    logits: Option<&'a mut [f32]>,
    push: Option<Push>,
    sampler: Option<&'a mut Choice>,
    digest: Option<&'a mut rwkv_digest>,
    hidden: Option<&'a mut [f32]>,
    surprise: Option<(&'a mut rwkv_surprise, Surprise)>,
}

#[derive(Clone, Copy)]
struct Push {
    call: unsafe extern "C" fn(*mut c_void, u32, *const f32, u32),
    context: *mut c_void,
}

impl<'a> Sink<'a> {
    /// # Safety
    /// Where the pointer is not null, an output lies there whose pointers are good.
    pub(crate) unsafe fn new(output: *const rwkv_output, dim: u32) -> Result<Self, Fault> {
        if output.is_null() {
            return Ok(Self::default());
        }
        // SAFETY: the caller's promise.
        unsafe {
            let output = pointer::shared(output)?;
            let hidden = pointer::optional_slice(output.hidden, output.hidden_count)?;
            if let Some(given) = hidden.as_ref().map(|x| x.len()).filter(|n| *n < dim as usize) {
                return Err(Fault::room(given, dim as usize));
            }
            let optional = |null: bool| if null { None } else { Some(()) };
            let sampler = optional(output.sampler.is_null()).map(|()| opaque::slot(output.sampler));
            let digest = optional(output.digest.is_null()).map(|()| pointer::unique(output.digest));
            let surprise =
                optional(output.surprise.is_null()).map(|()| pointer::unique(output.surprise));
            let surprise = surprise.transpose()?;
            Ok(Self {
                surprise: surprise.map(|out| {
                    let surprise = Surprise::of(out.next);
                    (out, surprise)
                }),
                logits: pointer::optional_slice(output.logits, output.logits_count)?,
                push: output.push.map(|call| Push { call, context: output.context }),
                sampler: sampler.transpose()?.map(|slot| slot.get()),
                digest: digest.transpose()?,
                hidden,
            })
        }
    }

    /// Whether anybody looks at logits.
    pub(crate) const fn wants_logits(&self) -> bool {
        self.logits.is_some()
            || self.push.is_some()
            || self.sampler.is_some()
            || self.digest.is_some()
            || self.surprise.is_some()
    }

    /// Forgets the logits of an earlier token.
    pub(crate) fn begin(&mut self) {
        if let Some(sampler) = &mut self.sampler {
            sampler.begin();
        }
        if let Some(digest) = &mut self.digest {
            **digest = rwkv_digest::default();
        }
        if let Some((out, _)) = &mut self.surprise {
            out.bits = -1.0;
        }
    }

    /// All logits have come.
    pub(crate) fn end(&mut self) {
        if let Some((out, surprise)) = &mut self.surprise {
            out.bits = surprise.bits().unwrap_or(-1.0);
        }
    }

    /// The hidden vector alone.
    pub(crate) fn hidden_only(&mut self) -> Option<Hidden<'_>> {
        self.hidden.as_deref_mut().map(Hidden)
    }
}

impl Logits for Sink<'_> {
    const HIDDEN: bool = true;

    fn fits(&self, vocab: u32) -> bool {
        self.logits.as_ref().is_none_or(|logits| logits.fits(vocab))
    }

    fn hidden(&mut self, x: &[f32]) {
        if let Some(out) = &mut self.hidden {
            out.iter_mut().zip(x).for_each(|(y, x)| *y = *x);
        }
    }

    fn push(&mut self, first: u32, logits: &[f32]) {
        if let Some(out) = &mut self.logits {
            out.push(first, logits);
        }
        if let Some(Push { call, context }) = self.push {
            // SAFETY: the caller's function, with the context that came with it.
            unsafe { call(context, first, logits.as_ptr(), logits.len() as u32) };
        }
        if let Some(sampler) = &mut self.sampler {
            sampler.push(first, logits);
        }
        if let Some(out) = &mut self.digest {
            let mut digest = Digest(out.low, out.high);
            digest.push(first, logits);
            **out = digest.into();
        }
        if let Some((_, surprise)) = &mut self.surprise {
            surprise.push(first, logits);
        }
    }
}

impl From<Digest> for rwkv_digest {
    fn from(Digest(low, high): Digest) -> Self {
        Self { low, high }
    }
}

impl From<rwkv_digest> for Digest {
    fn from(digest: rwkv_digest) -> Self {
        Self(digest.low, digest.high)
    }
}

impl From<Fault> for rwkv_error {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}
