//! Random models of several versions, and what another implementation computes of them: see
//! `golden/versions/make.py`.

use std::{fs, io::Write, path::PathBuf};

use tempfile::NamedTempFile;

use crate::xorshift;

/// The versions that there are.
pub const VERSIONS: [&str; 7] = ["4", "5.0", "5.1", "5.2", "6", "7", "7a"];

/// How a random model lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Safetensors with official names.
    Safetensors,
    /// What the converter of rwkv.cpp makes of it.
    RwkvCpp,
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn golden(version: &str, extension: &str) -> PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/versions");
    folder.join(format!("{version}.{extension}"))
}

fn tensors(version: &str) -> Vec<Tensor> {
    let list = fs::read_to_string(golden(version, "txt")).expect("the list of tensors");
    let mut word = xorshift(1);
    let mut tensor = |line: &str| {
        let mut fields = line.split(' ');
        let mut field = || fields.next().expect("four fields");
        let (name, shape) = (field().to_owned(), field());
        let shape: Vec<usize> = shape.split('x').map(|n| n.parse().expect("a size")).collect();
        let [offset, exponent] = [(); 2].map(|()| field().parse::<f32>().expect("a number"));
        let mut value = || offset + f32::from((word() >> 16) as i16) * (-exponent).exp2();
        let values = (0..shape.iter().product()).map(|_| value()).collect();
        Tensor { name, shape, values }
    };
    list.lines().map(&mut tensor).collect()
}

/// The checkpoint of a version.
///
/// # Panics
/// If there is none.
pub fn checkpoint(version: &str, container: Container) -> NamedTempFile {
    file(&match container {
        Container::Safetensors => safetensors(&tensors(version)),
        Container::RwkvCpp => rwkv_cpp(tensors(version)),
    })
}

/// A checkpoint with official names that holds one more tensor.
///
/// # Panics
/// If there is none.
pub fn checkpoint_with(version: &str, name: &str) -> NamedTempFile {
    let mut tensors = tensors(version);
    tensors.push(Tensor { name: name.to_owned(), shape: vec![1], values: vec![1.0] });
    file(&safetensors(&tensors))
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

/// The text that was read, and the logits after the last tokens of it, one after the other.
///
/// # Panics
/// If there are none.
pub fn expected(version: &str) -> (Vec<u32>, Vec<f32>) {
    let bytes = fs::read(golden(version, "logits")).expect("the logits");
    let logits = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (crate::text(64, 7), logits)
}

fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for Tensor { name, shape, values } in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let end = data.len();
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.append(&mut data);
    file
}

fn rwkv_cpp(tensors: Vec<Tensor>) -> Vec<u8> {
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
        file.extend(words(&[shape.len(), name.len(), 0]));
        file.extend(shape.iter().rev().flat_map(|size| words(&[*size])));
        file.extend(name.bytes());
        file.extend(values.iter().flat_map(|x| x.to_le_bytes()));
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

/// The decay and the bonus of versions 4 and 5 as the recurrence wants them.
fn map(tensor: &mut Tensor, four: bool) {
    use rwkv_core::math::exp;
    if four {
        if tensor.name.ends_with("time_decay") {
            tensor.values.iter_mut().for_each(|w| *w = -exp(*w));
        }
        return;
    }
    if tensor.name.ends_with("time_decay") {
        tensor.values.iter_mut().for_each(|w| *w = exp(-exp(*w)));
    }
    if tensor.name.ends_with("time_first") {
        tensor.values.iter_mut().for_each(|w| *w = exp(*w));
        tensor.shape.extend([1, 1]);
    }
}

/// Exchanges the last two dimensions.
fn transpose(tensor: &mut Tensor) {
    let [.., rows, cols] = tensor.shape[..] else { return };
    for matrix in tensor.values.chunks_exact_mut(rows * cols) {
        let old = matrix.to_vec();
        (0..rows * cols).for_each(|i| matrix[i] = old[i % rows * cols + i / rows]);
    }
    let rank = tensor.shape.len();
    tensor.shape.swap(rank - 2, rank - 1);
}
