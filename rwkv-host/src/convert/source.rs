//! Where the values of a record come from.

use std::{collections::BTreeSet, iter};

use rwkv_core::{
    exec::record::{Request, run},
    image::{Dims, Id, Version},
    op,
};

use super::{ConvertError, detect::readable, sample};
use crate::checkpoint::{Checkpoint, DecayForm};

/// The tensors of a checkpoint, by record.
pub(super) struct Source<'a> {
    checkpoint: &'a Checkpoint,
    version: Version,
    dims: Dims,
}

/// How tensors become the values of a record.
pub(crate) enum Recipe {
    /// The embedding table, normalised by `ln0`.
    Embedding,
    /// The DeepEmbed table of all layers, whose number this is.
    DeepEmbed(u32),
    /// One matrix as it is, `[out, in]`.
    Matrix(String),
    /// One matrix that is stored `[in, out]`.
    Transposed(String),
    /// One of several matrices that are stored `[matrix, in, out]`, and of how many.
    Part(String, usize, usize),
    /// Vectors, interleaved channel by channel.
    Vectors(Vec<String>),
}

pub(crate) const EMBEDDING: &str = "emb.weight";
/// Vectors that some checkpoints of version 5 keep per head.
const HEAD_WISE: [&str; 3] = ["att.time_decay", "att.time_first", "att.time_faaaa"];
pub(crate) const DEEP: [&str; 2] = ["ffn.s_emb.weight", "ffn.s_emb_x.weight"];
pub(crate) const LN0: [&str; 2] = ["blocks.0.ln0.weight", "blocks.0.ln0.bias"];

/// `has` says whether the checkpoint holds a tensor.
pub(crate) fn recipe(
    version: Version,
    layers: u32,
    request: &Request,
    has: impl Fn(&str) -> bool,
) -> Result<Recipe, ConvertError> {
    use Recipe::{Embedding, Matrix, Part, Transposed, Vectors};
    let prefix = request.layer.map_or_else(String::new, |l| format!("blocks.{l}."));
    let name = |s: &str| format!("{prefix}{s}");
    let vectors = |names: &[&str]| Vectors(names.iter().map(|s| name(s)).collect());
    let mix = |part: &str, letter: &str| {
        Vectors(vec![match version {
            Version::V7 | Version::V7a => name(&format!("{part}.x_{letter}")),
            Version::V6 => name(&format!("{part}.time_maa_{letter}")),
            _ => name(&format!("{part}.time_mix_{letter}")),
        }])
    };
    let finch = version == Version::V6;
    let mix2 = |part| Part(name("att.time_maa_w2"), part, 5);
    Ok(match request.id {
        Id::Embedding => Embedding,
        Id::DeepEmbed => Recipe::DeepEmbed(layers),
        Id::FfnS1 => Transposed(name("ffn.s1")),
        Id::FfnS2 => Transposed(name("ffn.s2")),
        Id::FfnS0 => vectors(&["ffn.s0"]),
        Id::Ln1 => vectors(&["ln1.weight", "ln1.bias"]),
        Id::Ln2 => vectors(&["ln2.weight", "ln2.bias"]),
        Id::LnOut => vectors(&["ln_out.weight", "ln_out.bias"]),
        Id::Head => Matrix("head.weight".into()),
        Id::AttMixR => mix("att", "r"),
        Id::AttMixK => mix("att", "k"),
        Id::AttMixV => mix("att", "v"),
        Id::AttMixW => mix("att", "w"),
        Id::AttMixA => mix("att", "a"),
        Id::AttMixG => mix("att", "g"),
        Id::AttReceptance => Matrix(name("att.receptance.weight")),
        Id::AttKey => Matrix(name("att.key.weight")),
        Id::AttValue => Matrix(name("att.value.weight")),
        Id::AttOutput => Matrix(name("att.output.weight")),
        Id::AttWkv4 => vectors(&["att.time_decay", "att.time_first"]),
        Id::AttWkv7 => {
            vectors(&["att.k_k", "att.k_a", "att.r_k", "att.ln_x.weight", "att.ln_x.bias"])
        }
        Id::AttGate => Matrix(name("att.gate.weight")),
        Id::AttDecay => vectors(&["att.time_decay"]),
        Id::AttWkv5 => {
            let (usual, other) = match version {
                Version::V50 => ("att.time_first", "att.time_faaaa"),
                _ => ("att.time_faaaa", "att.time_first"),
            };
            let bonus = if has(&name(usual)) || !has(&name(other)) { usual } else { other };
            vectors(&[bonus, "att.ln_x.weight", "att.ln_x.bias"])
        }
        Id::AttMixX => mix("att", "x"),
        Id::AttMix1 => Transposed(name("att.time_maa_w1")),
        Id::AttMixW2 => mix2(0),
        Id::AttMixK2 => mix2(1),
        Id::AttMixV2 => mix2(2),
        Id::AttMixR2 => mix2(3),
        Id::AttMixG2 => mix2(4),
        Id::AttW1 => Transposed(name(if finch { "att.time_decay_w1" } else { "att.w1" })),
        Id::AttW2 => Transposed(name(if finch { "att.time_decay_w2" } else { "att.w2" })),
        Id::AttW0 => vectors(&[if finch { "att.time_decay" } else { "att.w0" }]),
        Id::AttA1 => Transposed(name("att.a1")),
        Id::AttA2 => Transposed(name("att.a2")),
        Id::AttA0 => vectors(&["att.a0"]),
        Id::AttV1 => Transposed(name("att.v1")),
        Id::AttV2 => Transposed(name("att.v2")),
        Id::AttV0 => vectors(&["att.v0"]),
        Id::AttG1 => Transposed(name("att.g1")),
        Id::AttG2 => Transposed(name("att.g2")),
        Id::FfnMixR => mix("ffn", "r"),
        Id::FfnMixK => mix("ffn", "k"),
        Id::FfnReceptance => Matrix(name("ffn.receptance.weight")),
        Id::FfnKey => Matrix(name("ffn.key.weight")),
        Id::FfnValue => Matrix(name("ffn.value.weight")),
        other => {
            return Err(ConvertError::Limit(format!("no tensor is known for record {other:?}")));
        }
    })
}

/// The official name of the tensor that a matrix comes from; `None` for vectors.
pub(crate) fn matrix(version: Version, request: &Request) -> Option<String> {
    match recipe(version, 0, request, |_| true).ok()? {
        Recipe::Embedding => Some(EMBEDDING.into()),
        Recipe::DeepEmbed(_) => Some(DEEP[0].into()),
        Recipe::Matrix(name) | Recipe::Transposed(name) | Recipe::Part(name, ..) => Some(name),
        Recipe::Vectors(_) => None,
    }
}

impl Recipe {
    fn tensors(&self) -> Vec<String> {
        match self {
            Self::Embedding => [EMBEDDING, LN0[0], LN0[1]].map(str::to_owned).to_vec(),
            Self::DeepEmbed(layers) => {
                (0..*layers).flat_map(|l| DEEP.map(|part| format!("blocks.{l}.{part}"))).collect()
            }
            Self::Matrix(name) | Self::Transposed(name) | Self::Part(name, ..) => {
                vec![name.clone()]
            }
            Self::Vectors(names) => names.clone(),
        }
    }
}

impl<'a> Source<'a> {
    pub(super) const fn new(checkpoint: &'a Checkpoint, version: Version, dims: Dims) -> Self {
        Self { checkpoint, version, dims }
    }

    fn recipe(&self, request: &Request) -> Result<Recipe, ConvertError> {
        recipe(self.version, self.dims.layers, request, |name| self.checkpoint.holds(name))
    }

    /// Checks that every tensor is there.
    pub(super) fn complete(&self) -> Result<(), ConvertError> {
        let wanted = self.names()?;
        let has = |name: &String| self.checkpoint.get(name).is_some();
        wanted.iter().try_for_each(|name| readable(self.checkpoint, name))?;
        let missing: Vec<String> = wanted.iter().filter(|n| !has(n)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let spare = self.checkpoint.entries().keys().filter(|n| !wanted.contains(*n));
        let found = sample(spare.map(String::as_str));
        Err(ConvertError::Missing { version: self.version.name(), missing, found })
    }

    fn names(&self) -> Result<BTreeSet<String>, ConvertError> {
        let mut names = BTreeSet::new();
        run(self.version, &self.dims, |request| -> Result<(), ConvertError> {
            let recipe = self.recipe(request)?;
            names.extend(recipe.tensors());
            Ok(())
        })?;
        Ok(names)
    }

    /// Parameters of the model: elements of all tensors that it reads.
    pub(super) fn parameters(&self) -> Result<usize, ConvertError> {
        let size = |name: &String| {
            self.checkpoint.get(name).map_or(0, |entry| entry.shape.iter().product::<usize>())
        };
        Ok(self.names()?.iter().map(size).sum())
    }

    /// Weight and bias of the folded `ln0`.
    pub(super) fn ln0(&self) -> Result<[Vec<f32>; 2], ConvertError> {
        let dim = self.dims.dim as usize;
        Ok([self.vector(LN0[0], dim)?, self.vector(LN0[1], dim)?])
    }

    /// The values of a record, row-major: outputs by inputs, or channels by vectors.
    pub(super) fn values(&self, request: &Request) -> Result<Vec<f32>, ConvertError> {
        let (rows, cols) = (request.shape().rows as usize, request.shape().cols as usize);
        match self.recipe(request)? {
            Recipe::Embedding => self.embedding(),
            Recipe::DeepEmbed(layers) => self.deep_embed(layers as usize, cols),
            Recipe::Matrix(name) => self.read(&name, &[rows, cols]),
            Recipe::Transposed(name) => {
                Ok(transposed(&self.read(&name, &[cols, rows])?, rows, cols))
            }
            Recipe::Part(name, part, parts) => {
                let stored = self.read(&name, &[parts, cols, rows])?;
                Ok(transposed(&stored[part * rows * cols..], rows, cols))
            }
            Recipe::Vectors(names) => {
                let vectors = names.iter().map(|name| self.vector(name, rows));
                Ok(interleave(&vectors.collect::<Result<Vec<_>, _>>()?))
            }
        }
    }

    /// The embedding, normalised by `ln0`.
    fn embedding(&self) -> Result<Vec<f32>, ConvertError> {
        let (vocab, dim) = (self.dims.vocab as usize, self.dims.dim as usize);
        let mut table = self.read(EMBEDDING, &[vocab, dim])?;
        let params = interleave(&self.ln0()?);
        for row in table.chunks_exact_mut(dim) {
            let moments = op::moments(row, self.dims.layer_norm_eps);
            op::normalise_in_place(row, moments, &params);
        }
        Ok(table)
    }

    /// The rows of all layers, token after token: a part of the token's own, and a product with
    /// its embedding.
    fn deep_embed(&self, layers: usize, cols: usize) -> Result<Vec<f32>, ConvertError> {
        let (vocab, dim) = (self.dims.vocab as usize, self.dims.dim as usize);
        // Before room is made for a table of all layers.
        for layer in 0..layers {
            for (part, shape) in DEEP.into_iter().zip([[vocab, cols], [cols, dim]]) {
                let name = format!("blocks.{layer}.{part}");
                self.expect(&name, format!("{shape:?}"), |found| found == shape)?;
            }
        }
        let embedding = self.embedding()?;
        let mut table = vec![0.0; vocab * layers * cols];
        for layer in 0..layers {
            let [own, shared] = DEEP.map(|part| format!("blocks.{layer}.{part}"));
            let own = self.read(&own, &[vocab, cols])?;
            let shared = self.read(&shared, &[cols, dim])?;
            let rows = table.chunks_exact_mut(cols).skip(layer).step_by(layers);
            for ((row, own), e) in rows.zip(own.chunks_exact(cols)).zip(embedding.chunks(dim)) {
                for ((y, own), weights) in row.iter_mut().zip(own).zip(shared.chunks_exact(dim)) {
                    *y = own + op::dot(weights, e);
                }
            }
        }
        finite(DEEP[0], table)
    }

    /// A vector of `len` elements, whatever its dimensions; that of a head may have one element
    /// for all its channels. The decays of versions 4 and 5 leave as the recurrence wants them.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ConvertError> {
        let per_head = matches!(self.version, Version::V50 | Version::V52)
            && HEAD_WISE.iter().any(|part| name.ends_with(part));
        let shared = if per_head { self.dims.head_size as usize } else { 1 };
        self.expect(name, format!("{len} elements"), |shape| {
            let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            count == Some(len) || count == Some(len / shared)
        })?;
        let mut data = finite(name, self.checkpoint.read(name)?.data)?;
        if let (DecayForm::Raw, Some(f)) =
            (self.checkpoint.decay_form(), mapping(self.version, name))
        {
            data.iter_mut().for_each(|w| *w = f(*w));
        }
        if data.len() < len {
            data = data.into_iter().flat_map(|w| iter::repeat_n(w, shared)).collect();
        }
        finite(name, data)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ConvertError> {
        self.expect(name, format!("{shape:?}"), |found| found == shape)?;
        finite(name, self.checkpoint.read(name)?.data)
    }

    /// Compares a shape before the values are read, which may be many.
    fn expect(
        &self,
        name: &str,
        expected: String,
        fits: impl Fn(&[usize]) -> bool,
    ) -> Result<(), ConvertError> {
        match self.checkpoint.get(name) {
            Some(entry) if !fits(&entry.shape) => {
                let (name, found) = (name.into(), entry.shape.clone());
                Err(ConvertError::Shape { name, found, expected })
            }
            _ => Ok(()),
        }
    }
}

/// What becomes of the values of a vector that training sees in another form: in binary64, since
/// an error of the inner function of `exp(-exp(w))` counts `exp(w)` times. The crate's functions
/// are the same on every host.
pub(crate) fn mapping(version: Version, name: &str) -> Option<fn(f32) -> f32> {
    match (version, name.rsplit('.').next()?) {
        (Version::V4, "time_decay") => Some(|w| -libm::exp(w.into()) as f32),
        (Version::V50 | Version::V52, "time_decay") => {
            Some(|w| libm::exp(-libm::exp(w.into())) as f32)
        }
        (Version::V50 | Version::V52, "time_first") => Some(|w| libm::exp(w.into()) as f32),
        _ => None,
    }
}

/// The matrix of `rows` by `cols` whose transpose leads `stored`.
pub(crate) fn transposed(stored: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| stored[i % cols * rows + i / cols]).collect()
}

pub(super) fn finite(name: &str, data: Vec<f32>) -> Result<Vec<f32>, ConvertError> {
    match data.iter().position(|w| !w.is_finite()) {
        Some(index) => Err(ConvertError::NonFinite { name: name.into(), index }),
        None => Ok(data),
    }
}

fn interleave(vectors: &[Vec<f32>]) -> Vec<f32> {
    let channels = vectors.first().map_or(0, Vec::len);
    (0..channels).flat_map(|i| vectors.iter().map(move |v| v[i])).collect()
}
