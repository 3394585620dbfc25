//! Recurrences: their parts in parallel, each over the tokens as they come.

use std::iter;

use rayon::prelude::*;
use rwkv_core::{Digest, Error, Logits, exec::Span};

use super::{super::Watch, Sequence, arithmetic::Arithmetic, stride};

/// How a recurrence falls into parts that know nothing of each other.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// Channels of a part.
    pub(super) width: usize,
    /// Runs of values that the state of a part is.
    pub(super) rows: usize,
    /// Tokens that a part takes at once. Digests need one.
    pub(super) chunk: usize,
}

impl<A: Arithmetic, L: Logits + Send, W: Watch> Sequence<'_, A, L, W> {
    /// Runs a recurrence, its parts in parallel and each chunk by chunk, and digests the state after
    /// every chunk.
    ///
    /// A part works on `M` vectors of its width: `output`, which it reads as well, the other
    /// `vectors`, then room. Of each it is shown all tokens of a chunk, one behind the other.
    pub(super) fn recurrence<const N: usize, const M: usize>(
        &mut self,
        output: Span,
        vectors: [Span; N],
        parts: Parts,
        step: impl Fn(usize, [&mut [f32]; M], &mut [&mut [f32]]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let Parts { width, rows, chunk } = parts;
        let (dims, stride) = (self.image.header().dims, stride(self.image));
        let [shift, recurrent] = self.state.layer_mut(&dims, self.layer);
        let vectors = || iter::once(output).chain(vectors);
        let (channels, row) = (output.len(), recurrent.len() / rows);
        let per_channel = row / channels;
        let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
        parts.resize_with(channels.div_ceil(width), Vec::new);
        for values in recurrent.chunks_exact_mut(row) {
            let runs = values.chunks_mut(width * per_channel);
            parts.iter_mut().zip(runs).for_each(|(part, run)| part.push(run));
        }
        let (scratch, wanted) = (&self.scratch, self.digests.is_some());
        if wanted && chunk != 1 {
            return Err(Error::Internal);
        }
        let run = |(part, mut state): (usize, Vec<&mut [f32]>)| {
            let first = part * width;
            let width = width.min(channels - first);
            let mut local = vec![0.0; M * width * chunk];
            let (mut outputs, mut digests) = (Vec::new(), Vec::new());
            for lanes in scratch.chunks(stride * chunk) {
                let all = lanes.len() / stride * width;
                for (place, span) in local.chunks_exact_mut(all).zip(vectors()) {
                    let span = span.part(first, width).range();
                    for (to, lane) in place.chunks_exact_mut(width).zip(lanes.chunks_exact(stride))
                    {
                        to.copy_from_slice(lane.get(span.clone()).ok_or(Error::Internal)?);
                    }
                }
                let mut places = local.chunks_exact_mut(all);
                step(first, [(); M].map(|()| places.next().unwrap_or_default()), &mut state)?;
                outputs.extend_from_slice(&local[..all]);
                if wanted {
                    let mut digest = Digest::default();
                    for (index, values) in state.iter().enumerate() {
                        let place = shift.len() + index * row + first * per_channel;
                        digest.add(place as u32, values)?;
                    }
                    digests.push(digest);
                }
            }
            Ok((outputs, digests))
        };
        let done = parts.into_par_iter().enumerate().map(run).collect::<Result<Vec<_>, Error>>()?;
        self.lanes().parallel().enumerate().try_for_each(|(token, mut lane)| {
            let parts = lane.get_mut(output)?.chunks_mut(width).zip(&done);
            parts.for_each(|(to, (outputs, _))| {
                let width = to.len();
                to.copy_from_slice(&outputs[token * width..(token + 1) * width]);
            });
            Ok::<(), Error>(())
        })?;
        if let Some(all) = self.digests.as_deref_mut() {
            let layers = dims.layers as usize;
            for (_, digests) in &done {
                let of_layer = all.iter_mut().skip(self.layer).step_by(layers);
                of_layer.zip(digests).for_each(|(all, part)| all.merge(*part));
            }
        }
        Ok(())
    }
}
