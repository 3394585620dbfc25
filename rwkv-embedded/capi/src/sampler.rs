//! From logits to a token.

use core::ffi::{c_int, c_void};

use rwkv_core::{
    Logits,
    sampler::{Allowed, Banned, MAX_CANDIDATES, Mask, Order, Sampler, SamplerConfig},
};

use crate::{
    error::{Fault, rwkv_detail, rwkv_error},
    opaque::{self, Opaque},
    pointer,
};

/// The most tokens that a sampler chooses from.
pub const RWKV_MAX_CANDIDATES: u32 = 64;
const _: () = assert!(RWKV_MAX_CANDIDATES as usize == MAX_CANDIDATES);

/// A sampler.
#[repr(C)]
pub struct rwkv_sampler {
    /// Not for the caller.
    pub words: [u64; 160],
}

/// How tokens are chosen. All zeros is greedy: the largest logit wins, ties go to the lower token.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_sampler_config {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Probability mass to choose from, 0..=1; 1 for all of it.
    pub top_p: f32,
    /// Choose among this many, up to RWKV_MAX_CANDIDATES, which 0 stands for.
    pub top_k: u32,
    /// Where the random numbers start.
    pub seed: u64,
    /// Least probability, as a share of the most likely token's, 0..=1; 0 is off.
    pub min_p: f32,
    /// Divides positive logits of tokens that were generated, multiplies the others; 0 or 1 is off.
    pub repetition: f32,
    /// Is subtracted from the logits of tokens that were generated; 0 is off.
    pub presence: f32,
    /// Is subtracted once more for each time that a token was generated; 0 is off.
    pub frequency: f32,
    /// What is left of each time after one more token, 0..=1; 0 or 1 forgets nothing.
    pub penalty_decay: f32,
    /// 0: temperature first, as most libraries do it; 1: last, as RWKV's own package does it.
    pub order: u32,
}

/// Says whether a token may be chosen: 0 if not. It is asked once at most for each token of a row,
/// in the order of their ids.
pub type rwkv_allows = Option<unsafe extern "C" fn(context: *mut c_void, token: u32) -> c_int>;

/// Which tokens may be chosen: those that all three allow. All zeros allows every token.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rwkv_mask {
    /// Tokens that may not be chosen, in ascending order.
    pub banned: *const u32,
    /// How many.
    pub banned_count: usize,
    /// A bit for each token that may be chosen, bit `token % 32` of word `token / 32`, and none
    /// beyond the last word; null for every token. The bits may change between tokens.
    pub allowed: *const u32,
    /// Words of them.
    pub allowed_words: usize,
    /// A function that says which may be chosen; null for every token.
    pub allows: rwkv_allows,
    /// Handed to the function.
    pub context: *mut c_void,
}

/// A sampler, and what it may choose.
pub(crate) struct Choice {
    sampler: Sampler,
    mask: Masks,
    /// How it sees logits: only programs that have a mask link one.
    push: fn(&mut Self, u32, &[f32]),
}

impl Choice {
    /// Starts a row.
    pub(crate) fn begin(&mut self) {
        self.sampler.begin();
    }

    pub(crate) fn push(&mut self, first: u32, logits: &[f32]) {
        (self.push)(self, first, logits);
    }
}

type Masks = (Banned<'static>, (Option<Bits>, Option<Ask>));

/// The bits of a mask, which change while nobody looks at them.
#[derive(Clone, Copy)]
struct Bits {
    words: *const u32,
    count: usize,
}

impl Mask for Bits {
    fn allows(&self, token: u32) -> bool {
        // SAFETY: the caller's promise: words that are there. They were checked for alignment.
        let words = unsafe { pointer::shared_slice(self.words, self.count) };
        Allowed(words.unwrap_or_default()).allows(token)
    }
}

/// A function of the caller's.
#[derive(Clone, Copy)]
struct Ask {
    allows: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
    context: *mut c_void,
}

impl Mask for Ask {
    fn allows(&self, token: u32) -> bool {
        // SAFETY: the caller's function, with the context that came with it.
        unsafe { (self.allows)(self.context, token) != 0 }
    }
}

impl Opaque for rwkv_sampler {
    type Value = Choice;
    const MARK: u32 = 0x534B_5752;
}

/// What a factor of 0 stands for.
fn or_off(factor: f32) -> f32 {
    if factor == 0.0 { 1.0 } else { factor }
}

fn build(config: &rwkv_sampler_config) -> Result<Choice, Fault> {
    // What does not fit is too large in any case.
    let top_k = u16::try_from(config.top_k).unwrap_or(u16::MAX);
    let order = match config.order {
        0 => Order::Common,
        1 => Order::Official,
        _ => return Err(Fault::from(rwkv_error::SamplerOrder)),
    };
    let sampler = Sampler::new(SamplerConfig {
        temperature: config.temperature,
        top_k,
        top_p: config.top_p,
        min_p: config.min_p,
        repetition: or_off(config.repetition),
        presence: config.presence,
        frequency: config.frequency,
        penalty_decay: or_off(config.penalty_decay),
        order,
        seed: config.seed,
    })?;
    let (mask, push) = (Masks::default(), |choice: &mut Choice, first, logits: &[f32]| {
        choice.sampler.push(first, logits);
    });
    Ok(Choice { sampler, mask, push })
}

/// A sampler at the start of its random numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_sampler_init(
    sampler: *mut rwkv_sampler,
    config: *const rwkv_sampler_config,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        let built = pointer::shared(config).map_err(Fault::from).and_then(build);
        opaque::init(sampler, built)
    }
}

/// From now on, only tokens that a mask allows are chosen; null for all of them. The mask is asked
/// when a token's logits appear, so it is set before the token is computed. What it points to stays
/// where it is for as long as the sampler has it; on an error, the sampler keeps the mask that it
/// had.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_sampler_within(
    sampler: *mut rwkv_sampler,
    mask: *const rwkv_mask,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe {
        opaque::with(sampler, |choice| {
            choice.mask = masks(mask)?;
            choice.push = |choice, first, logits| {
                choice.sampler.within(&choice.mask).push(first, logits);
            };
            Ok(())
        })
    }
}

/// # Safety
/// Where the pointer is not null, a mask lies there whose pointers are good.
unsafe fn masks(mask: *const rwkv_mask) -> Result<Masks, Fault> {
    // SAFETY: the caller's promise.
    unsafe {
        if mask.is_null() {
            return Ok(Masks::default());
        }
        let mask = pointer::shared(mask)?;
        let banned = Banned::new(pointer::shared_slice(mask.banned, mask.banned_count)?)?;
        let bits = Bits { words: mask.allowed, count: mask.allowed_words };
        if !mask.allowed.is_null() {
            pointer::shared_slice(bits.words, bits.count)?;
        }
        let ask = mask.allows.map(|allows| Ask { allows, context: mask.context });
        Ok((banned, ((!mask.allowed.is_null()).then_some(bits), ask)))
    }
}

/// Chooses a token from the logits of the last one that was computed with the sampler as an output.
/// A second call chooses again from the same logits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_sampler_next(
    sampler: *mut rwkv_sampler,
    token: *mut u32,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe { opaque::with(sampler, |choice| Ok(pointer::put(token, choice.sampler.finish()?)?)) }
}

/// Details of the sampler's last failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_sampler_detail(sampler: *const rwkv_sampler) -> rwkv_detail {
    // SAFETY: the caller's promises.
    unsafe { opaque::detail(sampler) }
}
