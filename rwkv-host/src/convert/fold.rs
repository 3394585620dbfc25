//! Channels that are scaled where they are made, and back where they are read.

use std::{borrow::Cow, collections::BTreeMap};

use rwkv_core::{
    Image,
    exec::record::Request,
    image::{Dims, Id, SectionKind, Version},
};
use serde_json::{Map, Value, json};

use super::{Choice, ConvertError, Model, record::record};
use crate::quantize::{Correlation, Correlations, MOST, Reader, exponents, scale, two_to};

/// Channels of a layer (or of the whole model) that may be scaled, because all that is done to
/// them between where they are made and where they are read is linear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Channels {
    /// The input of the time mix.
    Att,
    /// The input of the channel mix.
    Ffn,
    /// The input of the head.
    Head,
    /// What the time mix hands to its output matrix.
    Output,
}

impl Channels {
    /// Which of them a matrix reads.
    const fn read_by(id: Id) -> Option<Self> {
        use Id::{
            AttA1, AttG1, AttGate, AttKey, AttMix1, AttOutput, AttReceptance, AttV1, AttValue,
            AttW1, FfnKey, FfnReceptance, FfnS1, Head,
        };
        match id {
            AttReceptance | AttKey | AttValue | AttGate => Some(Self::Att),
            AttMix1 | AttW1 | AttA1 | AttV1 | AttG1 => Some(Self::Att),
            FfnKey | FfnReceptance | FfnS1 => Some(Self::Ffn),
            Head => Some(Self::Head),
            AttOutput => Some(Self::Output),
            _ => None,
        }
    }

    /// Which of them the rows of a record make, and from which column on. A norm is linear in its
    /// weights. In version 4 the outputs are weighted means of values, in versions 5 and 6 they
    /// leave a group norm, and in version 7 they are multiplied by the gate.
    const fn made_by(version: Version, id: Id) -> Option<(Self, usize)> {
        match (version, id) {
            (_, Id::Ln1) => Some((Self::Att, 0)),
            (_, Id::Ln2) => Some((Self::Ffn, 0)),
            (_, Id::LnOut) => Some((Self::Head, 0)),
            (Version::V4, Id::AttValue) => Some((Self::Output, 0)),
            (Version::V50 | Version::V52 | Version::V6, Id::AttWkv5) => Some((Self::Output, 1)),
            (Version::V7 | Version::V7a, Id::AttG2) => Some((Self::Output, 0)),
            _ => None,
        }
    }

    /// What the metadata of an image call them.
    const NAMES: [(&str, Self); 4] = [
        ("att", Self::Att),
        ("ffn", Self::Ffn),
        ("att.output", Self::Output),
        ("head", Self::Head),
    ];
}

/// Channels of a layer, or of the whole model.
pub(super) type Place = (Option<u32>, Channels);

fn name((layer, channels): &Place) -> String {
    let names = Channels::NAMES.iter().find(|(_, named)| named == channels);
    let name = names.map_or("", |(name, _)| *name);
    layer.map_or_else(|| name.to_owned(), |layer| format!("blocks.{layer}.{name}"))
}

/// The place of that name in a model of so many layers.
fn place(name: &str, layers: u32) -> Option<Place> {
    let in_layer = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    let (layer, name) = match in_layer {
        Some((layer, rest)) => (Some(layer.parse().ok().filter(|l| *l < layers)?), rest),
        None => (None, name),
    };
    let (_, channels) = Channels::NAMES.into_iter().find(|(named, _)| *named == name)?;
    (layer.is_none() == (channels == Channels::Head)).then_some((layer, channels))
}

/// The places of a model where channels may be scaled.
pub(super) fn places(model: &Model<'_>) -> impl Iterator<Item = Place> {
    model.requests.iter().filter_map(|request| {
        let (channels, _) = Channels::made_by(model.version, request.id)?;
        Some((request.layer, channels))
    })
}

/// The powers of two that channels are scaled by, so that rounding loses less: see the book's
/// chapter *Quantisation*. A float model is the same with any of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folds(BTreeMap<Place, Vec<i32>>);

impl Folds {
    /// Those that make matrices of integers lose least, by what their inputs are; `step` hears of
    /// every place where channels may be scaled.
    pub(super) fn choose(
        model: &Model<'_>,
        choices: &[Choice],
        inputs: &Correlations,
        mut step: impl FnMut(usize),
    ) -> Result<Self, ConvertError> {
        let mut folds = BTreeMap::new();
        for (done, key) in places(model).enumerate() {
            let mut readers = Vec::new();
            for (request, choice) in model.requests.iter().zip(choices) {
                let reads = Channels::read_by(request.id).map(|channels| (request.layer, channels));
                if reads != Some(key) || !choice.format.is_integer() {
                    continue;
                }
                let Some(inputs) = inputs.of(request.layer, request.id) else { continue };
                let (record, weights) = (record(request, choice), model.source.values(request)?);
                readers.push(Reader { record, weights, inputs: Cow::Borrowed(inputs) });
            }
            if let Some(powers) = exponents(&readers) {
                folds.insert(key, powers);
            }
            step(done + 1);
        }
        Ok(Self(folds))
    }

    /// Those of an image, as its metadata have them.
    ///
    /// # Errors
    /// [`ConvertError::Scaled`].
    pub fn of(image: &Image<'_>) -> Result<Self, ConvertError> {
        let metadata = image.section(SectionKind::Metadata).unwrap_or(b"{}");
        let metadata: Value = serde_json::from_slice(metadata).unwrap_or_default();
        let Dims { layers, dim, .. } = image.header().dims;
        let mut folds = BTreeMap::new();
        for (name, powers) in metadata["scaled"].as_object().unwrap_or(&Map::new()) {
            let powers: Option<Vec<i32>> = powers.as_array().and_then(|powers| {
                let power = |power: &Value| i32::try_from(power.as_i64()?).ok();
                powers.iter().map(power).collect()
            });
            let fits = |powers: &Vec<i32>| {
                powers.len() == dim as usize
                    && powers.iter().all(|power| (-MOST..=MOST).contains(power))
            };
            let (Some(key), Some(powers)) = (place(name, layers), powers.filter(fits)) else {
                return Err(ConvertError::Scaled(name.clone()));
            };
            folds.insert(key, powers);
        }
        Ok(Self(folds))
    }

    /// As the metadata of an image have them; `None` if no channel is scaled.
    pub(super) fn metadata(&self) -> Option<Value> {
        let named = self.0.iter().map(|(place, powers)| (name(place), json!(powers)));
        (!self.0.is_empty()).then(|| Value::Object(named.collect()))
    }

    /// The powers of two that the columns of a matrix are multiplied by.
    fn columns(&self, request: &Request) -> Option<&[i32]> {
        let channels = Channels::read_by(request.id)?;
        self.0.get(&(request.layer, channels)).map(Vec::as_slice)
    }

    /// Scales the values of a record, rows by columns.
    pub(super) fn apply(&self, version: Version, request: &Request, values: &mut [f32]) {
        let cols = request.shape().cols as usize;
        if let Some(powers) = self.columns(request) {
            scale(values, powers);
        }
        let made = Channels::made_by(version, request.id);
        let Some((channels, first)) = made else { return };
        if let Some(powers) = self.0.get(&(request.layer, channels)) {
            for (row, power) in values.chunks_exact_mut(cols).zip(powers) {
                row[first..].iter_mut().for_each(|w| *w *= two_to(-power));
            }
        }
    }

    /// Undoes what [`Folds::apply`] does.
    pub(crate) fn undo(&self, version: Version, request: &Request, values: &mut [f32]) {
        let negated = |powers: &Vec<i32>| powers.iter().map(|power| -power).collect();
        let inverse = self.0.iter().map(|(place, powers)| (*place, negated(powers)));
        Self(inverse.collect()).apply(version, request, values);
    }

    /// Undoes what scaling does to the hidden vector that the head reads.
    pub fn unscale_hidden(&self, hidden: &mut [f32]) {
        if let Some(powers) = self.0.get(&(None, Channels::Head)) {
            scale(hidden, powers);
        }
    }

    /// What is known of the inputs of a matrix, once they are scaled.
    pub(super) fn inputs<'a>(
        &self,
        request: &Request,
        inputs: &'a Correlation,
    ) -> Cow<'a, Correlation> {
        match self.columns(request) {
            Some(powers) => Cow::Owned(inputs.divided(powers)),
            None => Cow::Borrowed(inputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use rwkv_core::Hidden;
    use rwkv_tests::random::{self, Container, VERSIONS};

    use super::*;
    use crate::{
        checkpoint::Checkpoint,
        convert::{Options, Weights},
        memory::Memory,
        prefill::prefill,
    };

    /// Bits of logits and hidden vector after each of some tokens, and the image.
    fn outputs(model: &Model<'_>) -> (Vec<Vec<u32>>, Vec<u8>) {
        let file = model.image(|index| model.store(index, &Choice::EXACT, None)).unwrap();
        let image = file.open().unwrap();
        let tokens: Vec<u32> = (0..24).map(|i| i * 37 % 256).collect();
        let Dims { vocab, dim, .. } = image.header().dims;
        let mut rows = vec![vec![0.0f32; (vocab + dim) as usize]; tokens.len()];
        let split = rows.iter_mut().map(|row| row.split_at_mut(vocab as usize));
        let mut sinks: Vec<(&mut [f32], Hidden<'_>)> =
            split.map(|(logits, hidden)| (logits, Hidden(hidden))).collect();
        let mut memory = Memory::new(&image);
        prefill(&image, memory.state(&image).unwrap(), &tokens, &mut sinks).unwrap();
        let folds = Folds::of(&image).unwrap();
        rows.iter_mut().for_each(|row| folds.unscale_hidden(&mut row[vocab as usize..]));
        let bits = |row: &Vec<f32>| row.iter().map(|x| x.to_bits()).collect();
        (rows.iter().map(bits).collect(), file.bytes().to_vec())
    }

    /// Whatever the powers are, and all of them at once.
    #[test]
    fn folding_changes_no_bit_of_a_float_model() {
        for version in VERSIONS {
            let file = random::checkpoint(version, Container::Safetensors);
            let checkpoint = Checkpoint::open(file.path()).unwrap();
            let mut model = Model::new(&checkpoint, &Options::new(Weights::F32)).unwrap();
            let (plain, bytes) = outputs(&model);
            let dim = model.dims.dim as usize;
            let keys = places(&model);
            let powers = |shift: usize| (0..dim).map(|i| (7 * i + shift) as i32 % 9 - 4).collect();
            let folds = keys.enumerate().map(|(n, key)| (key, powers(n))).collect();
            model.folds = Folds(folds);
            // Three in each layer, and the head.
            assert_eq!(model.folds.0.len(), 3 * model.dims.layers as usize + 1, "{version}");
            let (folded, other) = outputs(&model);
            assert!(plain == folded, "{version}");
            assert!(bytes != other, "{version}");
        }
    }
}
