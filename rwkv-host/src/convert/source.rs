//! Where the values of a record come from.

use std::collections::BTreeSet;

use rwkv_core::{
    exec::record::{Request, run},
    image::{Dims, Id, Version},
    math, op,
};

use super::{ConvertError, sample};
use crate::checkpoint::{Checkpoint, DecayForm};

/// The tensors of a checkpoint, by record.
pub(super) struct Source<'a> {
    checkpoint: &'a Checkpoint,
    version: Version,
    dims: Dims,
}

/// How tensors become the values of a record.
enum Recipe {
    /// The embedding table, normalised by `ln0`.
    Embedding,
    /// One matrix as it is, `[out, in]`.
    Matrix(String),
    /// One matrix that is stored `[in, out]`.
    Transposed(String),
    /// Vectors, interleaved channel by channel.
    Vectors(Vec<String>),
}

const EMBEDDING: &str = "emb.weight";
const LN0: [&str; 2] = ["blocks.0.ln0.weight", "blocks.0.ln0.bias"];

fn recipe(version: Version, request: &Request) -> Result<Recipe, ConvertError> {
    use Recipe::{Embedding, Matrix, Transposed, Vectors};
    let prefix = request.layer.map_or_else(String::new, |l| format!("blocks.{l}."));
    let name = |s: &str| format!("{prefix}{s}");
    let vectors = |names: &[&str]| Vectors(names.iter().map(|s| name(s)).collect());
    let mix = |part: &str, letter: &str| {
        Vectors(vec![match version {
            Version::V7 => name(&format!("{part}.x_{letter}")),
            _ => name(&format!("{part}.time_mix_{letter}")),
        }])
    };
    Ok(match request.id {
        Id::Embedding => Embedding,
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
        Id::AttW1 => Transposed(name("att.w1")),
        Id::AttW2 => Transposed(name("att.w2")),
        Id::AttW0 => vectors(&["att.w0"]),
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
    match recipe(version, request).ok()? {
        Recipe::Embedding => Some(EMBEDDING.into()),
        Recipe::Matrix(name) | Recipe::Transposed(name) => Some(name),
        Recipe::Vectors(_) => None,
    }
}

impl Recipe {
    fn tensors(&self) -> Vec<&str> {
        match self {
            Self::Embedding => vec![EMBEDDING, LN0[0], LN0[1]],
            Self::Matrix(name) | Self::Transposed(name) => vec![name],
            Self::Vectors(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

impl<'a> Source<'a> {
    pub(super) const fn new(checkpoint: &'a Checkpoint, version: Version, dims: Dims) -> Self {
        Self { checkpoint, version, dims }
    }

    /// Checks that every tensor is there.
    pub(super) fn complete(&self) -> Result<(), ConvertError> {
        let wanted = self.names()?;
        let has = |name: &String| self.checkpoint.get(name).is_some();
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
            let recipe = recipe(self.version, request)?;
            names.extend(recipe.tensors().into_iter().map(str::to_owned));
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
        match recipe(self.version, request)? {
            Recipe::Embedding => {
                let mut table = self.read(EMBEDDING, &[rows, cols])?;
                let params = interleave(&self.ln0()?);
                for row in table.chunks_exact_mut(cols) {
                    let moments = op::moments(row, self.dims.layer_norm_eps);
                    op::normalise_in_place(row, moments, &params);
                }
                Ok(table)
            }
            Recipe::Matrix(name) => self.read(&name, &[rows, cols]),
            Recipe::Transposed(name) => {
                let stored = self.read(&name, &[cols, rows])?;
                Ok((0..rows * cols).map(|i| stored[i % cols * rows + i / cols]).collect())
            }
            Recipe::Vectors(names) => {
                let vectors = names.iter().map(|name| self.vector(name, rows));
                Ok(interleave(&vectors.collect::<Result<Vec<_>, _>>()?))
            }
        }
    }

    /// A vector of `len` elements, whatever its dimensions; version 4's decay as `-e^w`.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ConvertError> {
        self.expect(name, format!("{len} elements"), |shape| {
            shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(len)
        })?;
        let mut data = finite(name, self.checkpoint.read(name)?.data)?;
        if name.ends_with("att.time_decay") && self.checkpoint.decay_form() == DecayForm::Raw {
            data.iter_mut().for_each(|w| *w = -math::exp(*w));
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

fn finite(name: &str, data: Vec<f32>) -> Result<Vec<f32>, ConvertError> {
    match data.iter().position(|w| !w.is_finite()) {
        Some(index) => Err(ConvertError::NonFinite { name: name.into(), index }),
        None => Ok(data),
    }
}

fn interleave(vectors: &[Vec<f32>]) -> Vec<f32> {
    let channels = vectors.first().map_or(0, Vec::len);
    (0..channels).flat_map(|i| vectors.iter().map(move |v| v[i])).collect()
}
