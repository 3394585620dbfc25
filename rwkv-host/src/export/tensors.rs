//! Which tensors an image holds, and how they are made of its records.

use std::{borrow::Cow, cell::RefCell};

use rwkv_core::image::{Dims, Version};
use safetensors::{Dtype, View};

use super::{Export, ExportError, record, undo};
use crate::convert::source::{DEEP, EMBEDDING, LN0, Recipe, mapping, recipe, transposed};

/// A tensor: its shape, and how it is made.
pub(super) struct Tensor {
    shape: Vec<usize>,
    made: Made,
}

enum Made {
    /// Of a matrix as it is, by the index of its record.
    Matrix(usize),
    /// Of matrices that are stored `[in, out]`, one after the other.
    Transposed(Vec<usize>),
    /// Of the embedding.
    Embedding(usize),
    /// Of the rows of a layer in the DeepEmbed table, of so many layers.
    Deep { record: usize, layer: usize, layers: usize },
    /// Of zeros.
    Zeros,
    /// Of these values.
    Values(Vec<f32>),
}

impl Export<'_> {
    /// All tensors, in the order of the image.
    pub(super) fn list(&self, dims: &Dims) -> Result<Vec<(String, Tensor)>, ExportError> {
        let mut list: Vec<(String, Tensor)> = Vec::new();
        let mut push =
            |name: String, shape: Vec<usize>, made| list.push((name, Tensor { shape, made }));
        for (index, (request, _)) in self.records.iter().enumerate() {
            let (rows, cols) = (request.shape().rows as usize, request.shape().cols as usize);
            match recipe(self.version, dims.layers, request, |_| true)? {
                Recipe::Embedding => {
                    push(EMBEDDING.into(), vec![rows, cols], Made::Embedding(index));
                    for (name, values) in LN0.into_iter().zip(&self.ln0) {
                        push(name.into(), vec![cols], Made::Values(values.clone()));
                    }
                }
                Recipe::DeepEmbed(layers) => {
                    let layers = layers as usize;
                    for layer in 0..layers {
                        let [own, shared] = DEEP.map(|part| format!("blocks.{layer}.{part}"));
                        let made = Made::Deep { record: index, layer, layers };
                        push(own, vec![rows / layers, cols], made);
                        push(shared, vec![cols, dims.dim as usize], Made::Zeros);
                    }
                }
                Recipe::Matrix(name) => push(name, vec![rows, cols], Made::Matrix(index)),
                Recipe::Transposed(name) => {
                    push(name, vec![cols, rows], Made::Transposed(vec![index]));
                }
                Recipe::Part(name, part, parts) => {
                    if part == 0 {
                        let all = self.parts(index, parts, dims)?;
                        push(name, vec![parts, cols, rows], Made::Transposed(all));
                    }
                }
                Recipe::Vectors(names) => {
                    for (column, name) in names.into_iter().enumerate() {
                        let (shape, values) = self.vector((index, column, cols), &name, dims)?;
                        push(name, shape, Made::Values(values));
                    }
                }
            }
        }
        Ok(list)
    }

    /// The records of all matrices that one tensor holds, of which the first is known.
    fn parts(&self, first: usize, parts: usize, dims: &Dims) -> Result<Vec<usize>, ExportError> {
        let layer = self.records[first].0.layer;
        let mut all = vec![first; parts];
        for (index, (request, _)) in self.records.iter().enumerate() {
            if request.layer == layer
                && let Recipe::Part(_, part, _) =
                    recipe(self.version, dims.layers, request, |_| true)?
            {
                all[part] = index;
            }
        }
        Ok(all)
    }

    /// One of the interleaved vectors of a record, in its official shape.
    fn vector(
        &self,
        (index, column, cols): (usize, usize, usize),
        name: &str,
        dims: &Dims,
    ) -> Result<(Vec<usize>, Vec<f32>), ExportError> {
        let all = self.values(index);
        let mut values: Vec<f32> = all.into_iter().skip(column).step_by(cols).collect();
        if let Some(f) = mapping(self.version, name) {
            for (index, value) in values.iter_mut().enumerate() {
                let wrong = || ExportError::Value { name: name.into(), index, value: *value };
                *value = undo::inverse(f, *value).ok_or_else(wrong)?;
            }
        }
        let (len, head) = (values.len(), dims.head_size.max(1) as usize);
        let last = name.rsplit('.').next().unwrap_or(name);
        let shape = match (self.version, last) {
            // One value for all channels of a head.
            (Version::V50, "time_decay" | "time_first")
                if values.chunks(head).all(|head| head.iter().all(|x| *x == head[0])) =>
            {
                values = values.into_iter().step_by(head).collect();
                vec![len / head]
            }
            (Version::V50 | Version::V52, "time_decay" | "time_first" | "time_faaaa")
            | (Version::V6, "time_faaaa")
            | (_, "r_k") => vec![len / head, head],
            (Version::V4, "time_decay" | "time_first") | (_, "weight" | "bias") => vec![len],
            _ => vec![1, 1, len],
        };
        Ok((shape, values))
    }

    fn data(&self, tensor: &Tensor) -> Vec<f32> {
        match &tensor.made {
            Made::Matrix(record) => self.values(*record),
            Made::Transposed(records) => {
                let matrix = |record: &usize| {
                    let shape = self.records[*record].0.shape();
                    transposed(&self.values(*record), shape.cols as usize, shape.rows as usize)
                };
                records.iter().flat_map(matrix).collect()
            }
            Made::Embedding(record) => {
                let mut table = self.values(*record);
                for row in table.chunks_exact_mut(self.ln0[0].len()) {
                    undo::normalised(row, &self.ln0, self.layer_norm_eps);
                }
                table
            }
            Made::Deep { record, layer, layers } => {
                // No channel of it is scaled.
                record::table_rows(&self.records[*record].1, *layer, *layers)
            }
            Made::Zeros => vec![0.0; tensor.shape.iter().product()],
            Made::Values(values) => values.clone(),
        }
    }
}

/// The start state of an image as the tensors of a tuned state, `[head][value][key]`; `None` if
/// it has more than these can say.
pub(super) fn tuned(version: Version, dims: &Dims, words: &[f32]) -> Option<Vec<(String, Tensor)>> {
    let (layers, dim, n) = (dims.layers as usize, dims.dim as usize, dims.head_size as usize);
    let (shift, recurrent) = words.split_at_checked(2 * layers * dim)?;
    if !version.has_heads() || shift.iter().any(|x| *x != 0.0) {
        return None;
    }
    let tensor = |(layer, rows): (usize, &[f32])| {
        let heads = rows.chunks_exact(n * n);
        let values = heads.flat_map(|head| transposed(head, n, n)).collect();
        let made = Made::Values(values);
        (format!("blocks.{layer}.att.time_state"), Tensor { shape: vec![dim / n, n, n], made })
    };
    Some(recurrent.chunks_exact(dim * n).enumerate().map(tensor).collect())
}

/// A tensor whose values are decoded when they are written.
pub(super) struct Lazy<'e, 'a, P> {
    pub(super) export: &'e Export<'a>,
    pub(super) tensor: &'e Tensor,
    pub(super) progress: &'e RefCell<P>,
}

impl<P: FnMut()> View for Lazy<'_, '_, P> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (self.progress.borrow_mut())();
        let values = self.export.data(self.tensor);
        values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        4 * self.tensor.shape.iter().product::<usize>()
    }
}
