//! What the converter of rwkv.cpp makes of a model.

use crate::{
    containers,
    random::{Precision, Tensor},
};

/// The bytes of a file.
pub(crate) fn bytes(tensors: Vec<Tensor>, precision: Precision) -> Vec<u8> {
    let words = |words: &[usize]| -> Vec<u8> {
        words.iter().flat_map(|word| (*word as u32).to_le_bytes()).collect()
    };
    let has = |part: &str| tensors.iter().any(|t| t.name.contains(part));
    let (four, six) = (!has("att.ln_x"), has("time_maa"));
    let [vocab, dim] = tensors[0].shape[..] else { panic!("the embedding comes first") };
    let mut file = words(&[0x6767_6d66, 101, vocab, dim, 2, 0]);
    for mut tensor in join(tensors) {
        if !six {
            map(&mut tensor, four);
        }
        if is_low_rank(&tensor.name) {
            transpose(&mut tensor);
        }
        let halved = precision == Precision::F16 && containers::is_matrix(&tensor);
        let Tensor { name, mut shape, values } = tensor;
        if six && name.ends_with("time_decay") {
            shape = vec![3, dim / 3];
        }
        if !name.ends_with("x_rwkvag") {
            shape.retain(|size| *size != 1);
        }
        if !four && (name.ends_with("time_decay") || name.ends_with("time_faaaa")) {
            shape.push(1);
        }
        file.extend(words(&[shape.len(), name.len(), usize::from(halved)]));
        file.extend(shape.iter().rev().flat_map(|size| words(&[*size])));
        file.extend(name.bytes());
        let precision = if halved { precision } else { Precision::F32 };
        file.extend(containers::encode(&values, precision));
    }
    file
}

/// The token-shift weights of version 7's time mix as one tensor.
fn join(tensors: Vec<Tensor>) -> Vec<Tensor> {
    let mut joined: Vec<Tensor> = Vec::new();
    for mut tensor in tensors {
        if tensor.name.ends_with(".att.x_r") {
            tensor.name.push_str("wkvag");
        } else if let (Some(last), true) = (joined.last_mut(), tensor.name.contains(".att.x_")) {
            last.values.append(&mut tensor.values);
            last.shape[0] += 1;
            continue;
        }
        joined.push(tensor);
    }
    joined
}

fn is_low_rank(name: &str) -> bool {
    let Some((_, part)) = name.split_once(".att.") else { return false };
    let goose = ["w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"].contains(&part);
    goose || part == "time_maa_w1" || part == "time_maa_w2" || part.contains("decay_w")
}

/// The decay and the bonus of versions 4 and 5 as the recurrence wants them, by the functions of a
/// C library in binary64, rounded once.
fn map(tensor: &mut Tensor, four: bool) {
    let exp = |w: f32| f64::from(w).exp();
    let decay = |w: f32| if four { -exp(w) } else { (-exp(w)).exp() };
    if tensor.name.ends_with("time_decay") {
        tensor.values.iter_mut().for_each(|w| *w = decay(*w) as f32);
    }
    if !four && tensor.name.ends_with("time_first") {
        tensor.values.iter_mut().for_each(|w| *w = exp(*w) as f32);
        tensor.shape.extend([1, 1]);
    }
}

/// Exchanges the last two dimensions.
pub(crate) fn transpose(tensor: &mut Tensor) {
    let [.., rows, cols] = tensor.shape[..] else { return };
    for matrix in tensor.values.chunks_exact_mut(rows * cols) {
        let old = matrix.to_vec();
        (0..rows * cols).for_each(|i| matrix[i] = old[i % rows * cols + i / rows]);
    }
    let rank = tensor.shape.len();
    tensor.shape.swap(rank - 2, rank - 1);
}
