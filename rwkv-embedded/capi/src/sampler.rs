//! From logits to a token.

use rwkv_core::sampler::{MAX_CANDIDATES, Order, Sampler, SamplerConfig};

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

impl Opaque for rwkv_sampler {
    type Value = Sampler;
    const MARK: u32 = 0x534B_5752;
}

/// What a factor of 0 stands for.
fn or_off(factor: f32) -> f32 {
    if factor == 0.0 { 1.0 } else { factor }
}

fn build(config: &rwkv_sampler_config) -> Result<Sampler, Fault> {
    // What does not fit is too large in any case.
    let top_k = u16::try_from(config.top_k).unwrap_or(u16::MAX);
    let order = match config.order {
        0 => Order::Common,
        1 => Order::Official,
        _ => return Err(Fault::from(rwkv_error::SamplerOrder)),
    };
    Ok(Sampler::new(SamplerConfig {
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
    })?)
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

/// Chooses a token from the logits of the last one that was computed with the sampler as an output.
/// A second call chooses again from the same logits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_sampler_next(
    sampler: *mut rwkv_sampler,
    token: *mut u32,
) -> rwkv_error {
    // SAFETY: the caller's promises.
    unsafe { opaque::with(sampler, |sampler| Ok(pointer::put(token, sampler.finish()?)?)) }
}

/// Details of the sampler's last failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rwkv_sampler_detail(sampler: *const rwkv_sampler) -> rwkv_detail {
    // SAFETY: the caller's promises.
    unsafe { opaque::detail(sampler) }
}
