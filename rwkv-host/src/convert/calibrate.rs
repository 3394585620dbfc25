//! Storing records by a text: what their inputs are decides how they are rounded, and what they
//! cost decides which are kept finer.

use rwkv_core::image::Format;

use super::{Choice, ConvertError, Folds, Model, fold, record::Stored};
use crate::{
    eval::{self, EvalError},
    file::ImageFile,
    quantize::{CALIBRATION_PIECE, Correlations, outliers},
};

/// Fewer tokens say too little.
const LEAST: usize = 1024;
/// Tokens over which the costs of tensors are measured, at most.
const COST_TOKENS: usize = 2048;

pub(super) fn store(
    model: &mut Model<'_>,
    mut choices: Vec<Choice>,
    tokens: &[u32],
    progress: &mut impl FnMut(usize, usize),
) -> Result<Vec<Stored>, ConvertError> {
    if !choices.iter().any(|choice| choice.format.is_integer()) {
        let problem = "nothing is stored in integers, so there is nothing to calibrate";
        return Err(ConvertError::Limit(problem.into()));
    }
    if tokens.len() < LEAST {
        let (found, least) = (tokens.len(), LEAST);
        let problem = format!("a text of {found} tokens is too short to calibrate with: {least}");
        return Err(ConvertError::Limit(format!("{problem} are the least")));
    }
    let coarse = |choice: &Choice| {
        choice.automatic && matches!(choice.format, Format::Int4 | Format::Int4Lanes)
    };
    let candidates: Vec<usize> =
        (0..choices.len()).filter(|index| coarse(&choices[*index])).collect();
    let pieces = tokens.len().div_ceil(CALIBRATION_PIECE);
    let places = fold::places(model).count();
    let total = pieces + places + choices.len() + candidates.len();
    let mut done = 0;
    let mut step = |to: usize| {
        if to > done {
            done = to;
            progress(done, total);
        }
    };

    let inputs = Correlations::measure(&float(model)?.open()?, tokens, &mut step);
    let inputs = inputs.map_err(|error| refused(error.into()))?;
    model.folds = Folds::choose(model, &choices, &inputs, |n| step(pieces + n))?;
    let before = pieces + places;
    let model = &*model;
    let float = float(model)?;
    let store = |index: usize, choice: &Choice| {
        let request = &model.requests[index];
        model.store(index, choice, inputs.of(request.layer, request.id))
    };
    let mut records = Vec::with_capacity(choices.len());
    for (index, choice) in choices.iter().enumerate() {
        records.push(store(index, choice)?);
        step(before + index + 1);
    }

    let before = before + choices.len();
    let costs = costs(model, &float, &records, &candidates, tokens, &mut |n| step(before + n))?;
    let weights = |index: &usize| {
        let shape = model.requests[*index].shape();
        u64::from(shape.rows) * u64::from(shape.cols)
    };
    let measured: Vec<(f64, u64)> =
        costs.iter().copied().zip(candidates.iter().map(weights)).collect();
    for outlier in outliers(&measured) {
        let index = candidates[outlier];
        choices[index].format = Format::Int8;
        records[index] = store(index, &choices[index])?;
    }
    Ok(records)
}

/// The image with every matrix in f32.
fn float(model: &Model<'_>) -> Result<ImageFile, ConvertError> {
    model.image(|index| model.store(index, &Choice::EXACT, None))
}

/// What it costs to store each of the candidates alone, in bits per token.
fn costs(
    model: &Model<'_>,
    float: &ImageFile,
    records: &[Stored],
    candidates: &[usize],
    tokens: &[u32],
    step: &mut impl FnMut(usize),
) -> Result<Vec<f64>, ConvertError> {
    let rounded = model.image(|index| Ok(&records[index]))?;
    let names: Vec<String> = candidates.iter().filter_map(|index| model.name(*index)).collect();
    let tokens = &tokens[..tokens.len().min(COST_TOKENS + 1)];
    eval::tensor_costs(&rounded.open()?, &float.open()?, tokens, &names, step).map_err(refused)
}

fn refused(error: EvalError) -> ConvertError {
    ConvertError::Calibration(Box::new(error))
}
