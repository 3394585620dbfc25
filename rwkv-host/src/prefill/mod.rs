//! A whole prompt at once: the sequence executor.

mod backend;
mod cpu;
pub mod cuda;
pub mod fast;

pub use backend::{Backend, Runner};

use rwkv_core::{
    Digest, Error, Image, Logits, StateView, exec,
    image::Id,
    kernel::{Kernel, native},
    model, poll,
};

use cpu::{Arithmetic, Exact};

/// Tokens that run at once: bounds the scratch of a long prompt.
const PIECE: usize = 256;

/// Bytes of an image from which on several threads are faster with one token than one is.
const LARGE: usize = 4 << 20;

/// Whether a single token is faster as a sequence of one, on the threads that there are, than as a
/// step. The bits are the same.
pub fn pays_for_one(image: &Image<'_>) -> bool {
    image.bytes().len() >= LARGE && rayon::current_num_threads() > 1
}

/// Sees the inputs of every product before they are quantised.
pub(crate) trait Watch {
    /// Whether anybody looks.
    const WANTED: bool = true;

    /// The inputs of a matrix of a layer (or of the head), token by token.
    fn inputs(&mut self, layer: Option<u32>, id: Id, inputs: &[&[f32]]);
}

/// Nobody looks.
impl Watch for () {
    const WANTED: bool = false;

    fn inputs(&mut self, _: Option<u32>, _: Id, _: &[&[f32]]) {}
}

/// As [`prefill`], and shows the inputs of every product before they are quantised.
pub(crate) fn watched(
    image: &Image<'_>,
    state: StateView<'_>,
    tokens: &[u32],
    watch: &mut impl Watch,
) -> Result<(), Error> {
    // One of them each, so that the head's inputs are shown for every token.
    let mut logits = vec![(); tokens.len()];
    run(Exact(native()), image, state, tokens, (&mut logits, None), watch)
}

/// Runs a prompt: the state moves on by all tokens, with the bits of as many steps.
///
/// `logits` are sinks for the last tokens, one each; none are needed.
///
/// # Errors
/// As [`rwkv_core::exec::Step::run`]: tokens are checked beforehand, and an error after that
/// leaves the state marked broken.
pub fn prefill<L: Logits + Send>(
    image: &Image<'_>,
    state: StateView<'_>,
    tokens: &[u32],
    logits: &mut [L],
) -> Result<(), Error> {
    run(Exact(native()), image, state, tokens, (logits, None), &mut ())
}

/// As [`prefill`], and returns the digest of every token as a device reports it.
///
/// # Errors
/// As [`prefill`].
pub fn digests(
    image: &Image<'_>,
    state: StateView<'_>,
    tokens: &[u32],
) -> Result<Vec<Digest>, Error> {
    let mut logits = vec![Digest::default(); tokens.len()];
    digests_with(native(), image, state, tokens, &mut logits, |digest| *digest)
}

/// As [`digests`], with kernels of choice and sinks that do more than digest; `digest` finds the
/// logits' digest in a sink.
///
/// # Errors
/// As [`prefill`]; [`Error::Internal`] if there is not one sink per token.
pub fn digests_with<L: Logits + Send>(
    kernel: impl Kernel,
    image: &Image<'_>,
    state: StateView<'_>,
    tokens: &[u32],
    logits: &mut [L],
    digest: impl Fn(&L) -> Digest,
) -> Result<Vec<Digest>, Error> {
    if logits.len() != tokens.len() {
        return Err(Error::Internal);
    }
    let layers = image.header().dims.layers;
    let mut states = vec![Digest::default(); tokens.len() * layers as usize];
    run(Exact(kernel), image, state, tokens, (&mut *logits, Some(&mut states)), &mut ())?;
    let tokens = states.chunks_exact(layers as usize).zip(logits);
    Ok(tokens
        .map(|(states, logits)| {
            let mut all = Digest::default();
            (0..).zip(states).for_each(|(layer, state)| all.fold(layer, *state));
            all.fold(layers, digest(logits));
            all
        })
        .collect())
}

fn run<L: Logits + Send>(
    arithmetic: impl Arithmetic,
    image: &Image<'_>,
    mut state: StateView<'_>,
    tokens: &[u32],
    (logits, mut states): (&mut [L], Option<&mut [Digest]>),
    watch: &mut impl Watch,
) -> Result<(), Error> {
    let header = image.header();
    exec::check(header, &state, tokens, logits)?;
    state.set_broken(true);
    let mut unwatched = tokens.len().saturating_sub(logits.len());
    let mut logits = logits;
    for piece in tokens.chunks(PIECE) {
        let silent = unwatched.min(piece.len());
        unwatched -= silent;
        let (now, later) = logits.split_at_mut((piece.len() - silent).min(logits.len()));
        logits = later;
        let digests = states.take().map(|all| {
            let (now, later) = all.split_at_mut(piece.len() * header.dims.layers as usize);
            states = Some(later);
            now
        });
        let state = state.reborrow();
        let mut sequence = cpu::Sequence::new(arithmetic, image, state, piece, now, digests, watch);
        // Memory never waits, so one poll completes it.
        poll::once(model::token(header.version, &mut sequence)).unwrap_or(Err(Error::Internal))?;
    }
    state.set_broken(false);
    Ok(())
}
