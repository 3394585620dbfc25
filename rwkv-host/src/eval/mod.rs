//! How good an image is, and how close to its checkpoint.
//!
//! A text is read from where the image begins, and the state is carried through all of it: piece by
//! piece, to bound the memory for logits, on the sequence executor. All tokens but the first are predicted.
//! A reference is read beside it, and then, over the start of the text, once more for each part
//! of the model with the image's weights in that part alone: the divergence that this makes is
//! what storing that part costs.
//!
//! Sums run in the order of the text, so the number of threads changes nothing.
//!
//! Images of floats may be read on the fast path. The start of the text is then read on the exact
//! one as well, and the report says how far they are apart.

mod distribution;
mod reader;
mod report;
mod shard;
mod splice;
#[cfg(test)]
mod tests;

use rayon::prelude::*;
use rwkv_core::{Error, Header, Image, ImageError, exec::record::Request, image::Id};
use thiserror::Error;

use reader::Reader;

pub use report::{Comparison, Deviation, Part, Peak, Report, Score};
pub use shard::{ComparisonSums, MergeError, NotAShard, Shard, Sums, Which, merge};

use crate::{
    convert::{self, ConvertError},
    prefill::fast::{BOUND, FastError},
    tokenizer::{Tokenizer, TokenizerError},
};

/// Logits that are held at once, at most, for each image.
const LOGITS: usize = 1 << 24;

/// What the costs of storing a model are told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Embedding, layer after layer, head.
    Layer,
    /// Matrix after matrix.
    Tensor,
}

/// What an evaluation may choose.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The tokenizer, where it is not in the image.
    pub tokenizer: Option<&'a Tokenizer<'a>>,
    /// What the costs are told by.
    pub by: By,
    /// Tokens from the start of the text that they are measured over, at most.
    pub part_tokens: usize,
    /// Only a shard of the text.
    pub shard: Option<Which>,
    /// On the fast path: see [`crate::prefill::fast`].
    pub fast: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { tokenizer: None, by: By::Layer, part_tokens: 4096, shard: None, fast: false }
    }
}

/// Why there is no report.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Nothing is predicted.
    #[error("a text of {0} tokens predicts nothing: two are needed")]
    TooShort(usize),
    /// The reference is another model.
    #[error(
        "the reference is another model: {reference}; and the image is {image}; \
         give the checkpoint that the image was made from"
    )]
    OtherModel {
        /// The image's dimensions.
        image: String,
        /// Those of the reference.
        reference: String,
    },
    /// The reference begins elsewhere.
    #[error(
        "the image and its reference do not begin at the same state; \
         compare one without a start state: rwkv bake IMAGE --none -o OUT.rwkv"
    )]
    OtherStart,
    /// The image or its reference is not for the fast path.
    #[error(transparent)]
    Fast(#[from] FastError),
    /// The fast path is too far from the exact one.
    #[error(
        "on the fast path a logit is {0:.1e} of the largest away from the exact one, which is more \
         than {BOUND:.0e}: leave --fast away"
    )]
    Apart(f32),
    /// It is not known how many bytes the tokens are.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model refused to compute.
    #[error("the text cannot be read")]
    Model(#[from] Error),
    /// An image made of two was refused.
    #[error("the image with one part replaced was refused")]
    Image(#[from] ImageError),
    /// An image made of two could not be written.
    #[error(transparent)]
    Splice(#[from] ConvertError),
}

/// Evaluates an image on a text, beside a reference if there is one. `progress` hears of tokens
/// that were read, and of how many there will be.
///
/// # Errors
/// See [`EvalError`].
pub fn evaluate(
    image: &Image<'_>,
    reference: Option<&Image<'_>>,
    tokens: &[u32],
    options: &Options<'_>,
    progress: impl FnMut(usize, usize),
) -> Result<Report, EvalError> {
    let Some(which) = options.shard else {
        return whole(image, reference, tokens, options, progress);
    };
    let (shard, tokens) = which.of(tokens, image, reference);
    let mut report = whole(image, reference, tokens, options, progress)?;
    if let Some(reference) = &mut report.reference {
        reference.largest_kl.token += shard.first_token;
    }
    report.shard = Some(shard);
    Ok(report)
}

fn whole(
    image: &Image<'_>,
    reference: Option<&Image<'_>>,
    tokens: &[u32],
    options: &Options<'_>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report, EvalError> {
    if tokens.len() < 2 {
        return Err(EvalError::TooShort(tokens.len()));
    }
    let Some(reference) = reference else {
        let total = tokens.len() - 1;
        let vocab = image.header().dims.vocab as usize;
        let mut reader = Reader::new(image, options.fast)?;
        let mut bits = Vec::with_capacity(total);
        for (inputs, targets) in pieces(image, tokens) {
            bits.extend(surprises(reader.read(inputs)?, targets, vocab));
            progress(bits.len(), total);
        }
        let mut report = Report::new(&text(image, tokens, options)?, &bits);
        report.fast = reader.deviation();
        return Ok(report);
    };
    compare(image, reference, tokens, options, progress)
}

/// The bytes of each token.
fn text(
    image: &Image<'_>,
    tokens: &[u32],
    options: &Options<'_>,
) -> Result<Vec<Vec<u8>>, TokenizerError> {
    let own = options.tokenizer.is_none().then(|| Tokenizer::of(image, None)).transpose()?;
    let tokenizer = options.tokenizer.or(own.as_ref()).ok_or(TokenizerError::Missing)?;
    Ok(tokens.iter().map(|token| tokenizer.decode(*token).to_vec()).collect())
}

fn compare(
    image: &Image<'_>,
    reference: &Image<'_>,
    tokens: &[u32],
    options: &Options<'_>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report, EvalError> {
    same_model(image, reference)?;
    let vocab = image.header().dims.vocab as usize;
    let count = tokens.len() - 1;
    let part_count = options.part_tokens.clamp(1, (LOGITS / vocab).max(1)).min(count);
    // What storing a part costs is told of the start of the text.
    let is_first = options.shard.is_none_or(|shard| shard.index == 1);
    let parts = if is_first { parts(image, options.by)? } else { Vec::new() };
    let total = count + parts.len() * part_count;

    let mut readers = [Reader::new(image, options.fast)?, Reader::new(reference, options.fast)?];
    let [ours, theirs] = &mut readers;
    let (mut bits, mut beside) = (Vec::new(), Vec::new());
    let mut kept: Vec<f32> = Vec::with_capacity(part_count * vocab);
    for (inputs, targets) in pieces(image, tokens) {
        let (ours, theirs) = rayon::join(|| ours.read(inputs), || theirs.read(inputs));
        let (ours, theirs) = (ours?, theirs?);
        bits.extend(surprises(ours, targets, vocab));
        beside.extend(surprises(theirs, targets, vocab).zip(divergences(theirs, ours, vocab)));
        let room = part_count * vocab - kept.len();
        kept.extend(theirs.iter().take(room));
        progress(bits.len(), total);
    }

    let start = &tokens[..=part_count];
    let mut done = count;
    let mut costs = Vec::new();
    for name in parts {
        let pair = [image, reference];
        let how = (options.by, options.fast);
        let kl_bits_per_token = cost(pair, how, &name, start, &kept, &mut |read| {
            done += read;
            progress(done, total);
        })?;
        costs.push(Part { name, kl_bits_per_token });
    }
    let text = text(image, tokens, options)?;
    let mut report = Report::new(&text, &bits);
    report.reference = Some(Comparison::new(&text, &beside, costs, part_count));
    let [ours, theirs] = readers.map(Reader::deviation);
    report.fast = Deviation::of_both(ours, theirs);
    Ok(report)
}

/// What it costs to store each of the named tensors alone as in the image, in bits per token;
/// `progress` hears of tensors.
pub(crate) fn tensor_costs(
    image: &Image<'_>,
    reference: &Image<'_>,
    tokens: &[u32],
    names: &[String],
    progress: &mut impl FnMut(usize),
) -> Result<Vec<f64>, EvalError> {
    let most = LOGITS / image.header().dims.vocab as usize;
    let tokens = &tokens[..tokens.len().min(most.max(1) + 1)];
    let mut reader = Reader::new(reference, false)?;
    let mut kept = Vec::new();
    for (inputs, _) in pieces(image, tokens) {
        kept.extend_from_slice(reader.read(inputs)?);
    }
    let each = names.iter().enumerate().map(|(index, name)| {
        let cost = cost([image, reference], (By::Tensor, false), name, tokens, &kept, &mut |_| ())?;
        progress(index + 1);
        Ok(cost)
    });
    each.collect()
}

/// The mean divergence from a reference, whose logits are given, with one part as in the image.
fn cost(
    [image, reference]: [&Image<'_>; 2],
    (by, fast): (By, bool),
    name: &str,
    tokens: &[u32],
    logits: &[f32],
    progress: &mut impl FnMut(usize),
) -> Result<f64, EvalError> {
    let vocab = image.header().dims.vocab as usize;
    let wanted = |request: &Request| part(image, by, request).as_deref() == Some(name);
    let file = splice::splice(reference, image, wanted)?;
    let spliced = file.open()?;
    let mut reader = Reader::new(&spliced, fast)?;
    let mut kl = 0.0;
    let logits = logits.chunks(piece(image) * vocab);
    for ((inputs, _), theirs) in pieces(image, tokens).zip(logits) {
        kl += divergences(theirs, reader.read(inputs)?, vocab).map(|d| d.kl).sum::<f64>();
        progress(inputs.len());
    }
    Ok(kl / (tokens.len() - 1) as f64)
}

/// Tokens that are read at once.
fn piece(image: &Image<'_>) -> usize {
    (LOGITS / image.header().dims.vocab as usize).clamp(1, 1024)
}

/// What is read at once, and what ought to follow each token.
fn pieces<'a>(
    image: &Image<'_>,
    tokens: &'a [u32],
) -> impl Iterator<Item = (&'a [u32], &'a [u32])> {
    let inputs = &tokens[..tokens.len() - 1];
    inputs.chunks(piece(image)).zip(tokens[1..].chunks(piece(image)))
}

/// How an image differs from its reference after one token.
#[derive(Debug, Clone, Copy)]
struct Divergence {
    kl: f64,
    agrees: bool,
}

fn surprises(logits: &[f32], targets: &[u32], vocab: usize) -> impl Iterator<Item = f64> {
    let rows = logits.par_chunks_exact(vocab).zip(targets);
    rows.map(|(row, token)| distribution::surprise(row, *token)).collect::<Vec<_>>().into_iter()
}

fn divergences(reference: &[f32], other: &[f32], vocab: usize) -> impl Iterator<Item = Divergence> {
    let rows = reference.par_chunks_exact(vocab).zip(other.par_chunks_exact(vocab));
    let divergence = |(reference, other)| Divergence {
        kl: distribution::divergence(reference, other),
        agrees: distribution::top(reference) == distribution::top(other),
    };
    rows.map(divergence).collect::<Vec<_>>().into_iter()
}

fn same_model(image: &Image<'_>, reference: &Image<'_>) -> Result<(), EvalError> {
    let (a, b) = (image.header(), reference.header());
    if a.version == b.version && a.dims == b.dims {
        let start = |image: &Image<'_>| {
            let words = image.start_state().into_iter().flatten();
            words.map(f32::to_bits).collect::<Vec<_>>()
        };
        let same = start(image) == start(reference);
        return if same { Ok(()) } else { Err(EvalError::OtherStart) };
    }
    Err(EvalError::OtherModel { image: shown(a), reference: shown(b) })
}

/// What a model is, for people.
fn shown(header: &Header) -> String {
    let (version, d) = (header.version.name(), header.dims);
    let mut text = format!(
        "RWKV-{version}, {} layers of {}, ffn {}, {} tokens",
        d.layers, d.dim, d.ffn, d.vocab
    );
    if d.head_size > 0 {
        text += &format!(", heads of {}", d.head_size);
    }
    let ranks = d.ranks.iter().chain([&d.deep_rank]).filter(|rank| **rank > 0);
    let ranks: Vec<String> = ranks.map(u16::to_string).collect();
    if !ranks.is_empty() {
        text += &format!(", ranks {}", ranks.join(", "));
    }
    text + &format!(", layer norm eps {:e}", d.layer_norm_eps)
}

/// The part that a record belongs to; `None` for vectors beside the matrices, which every image
/// stores alike.
fn part(image: &Image<'_>, by: By, request: &Request) -> Option<String> {
    match (by, request.layer, request.id) {
        (By::Tensor, ..) if request.shape().precise => None,
        (By::Tensor, ..) => convert::matrix(image.header().version, request),
        (By::Layer, Some(layer), _) => Some(format!("layer {layer}")),
        (By::Layer, None, Id::Embedding) => Some("embedding".into()),
        (By::Layer, None, Id::DeepEmbed) => Some("DeepEmbed".into()),
        (By::Layer, None, _) => Some("head".into()),
    }
}

/// The parts, in the order in which a token reads them.
fn parts(image: &Image<'_>, by: By) -> Result<Vec<String>, EvalError> {
    let mut parts: Vec<String> = Vec::new();
    image.walk(|request, _| {
        let next = part(image, by, request).filter(|name| !parts.contains(name));
        parts.extend(next);
        Ok(())
    })?;
    Ok(parts)
}
