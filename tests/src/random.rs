//! Random models of several versions, and what another implementation computes of them: see
//! `golden/versions/make.py`.

use std::{fs, io::Write, path::PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::{containers, gguf, xorshift};

/// The versions that there are.
pub const VERSIONS: [&str; 7] = ["4", "5.0", "5.1", "5.2", "6", "7", "7a"];

/// How a random model lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// What PyTorch saves, with official names.
    Torch,
    /// Safetensors with official names.
    Safetensors,
    /// Safetensors with the names of Hugging Face, for versions 4 to 6.
    HuggingFace,
    /// Safetensors with the names of flash-linear-attention, for version 7.
    FlashLinearAttention,
    /// The same with the weights of the token shift joined.
    FlashLinearAttentionJoined,
    /// What the converter of rwkv.cpp makes of it; it knows no version 7a.
    RwkvCpp,
    /// What the converter of llama.cpp makes of it, for versions 6 and 7.
    Gguf,
}

/// Every container, and the versions that are found in it.
pub const CONTAINERS: [(Container, &[&str]); 7] = [
    (Container::Torch, &VERSIONS),
    (Container::Safetensors, &VERSIONS),
    (Container::HuggingFace, &["4", "5.0", "5.1", "5.2", "6"]),
    (Container::FlashLinearAttention, &["7"]),
    (Container::FlashLinearAttentionJoined, &["7"]),
    (Container::RwkvCpp, &["4", "5.0", "5.1", "5.2", "6", "7"]),
    (Container::Gguf, &["6", "7"]),
];

/// How the matrices of a file are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Exactly.
    F32,
    /// Rounded to IEEE binary16.
    F16,
    /// Rounded to bfloat16.
    Bf16,
}

#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

fn golden(version: &str, extension: &str) -> PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/versions");
    folder.join(format!("{version}.{extension}"))
}

fn tensors(version: &str) -> Vec<Tensor> {
    fill(&fs::read_to_string(golden(version, "txt")).expect("the list of tensors"))
}

/// A checkpoint of a version with a quarter of the width and one layer: one head where there are
/// several, and low ranks as they are.
///
/// # Panics
/// If there is none.
pub fn small(version: &str) -> NamedTempFile {
    let list = fs::read_to_string(golden(version, "txt")).expect("the list of tensors");
    let first: Vec<&str> = list.lines().filter(|line| !line.starts_with("blocks.1.")).collect();
    resized(&first.join("\n"), [("48", "12"), ("100", "20"), ("4", "1")])
}

/// A checkpoint of version 4 or 7 with eight times the width, such as a device streams.
///
/// # Panics
/// If there is none.
pub fn wide(version: &str) -> NamedTempFile {
    let list = fs::read_to_string(golden(version, "txt")).expect("the list of tensors");
    resized(&list, [("48", "384"), ("100", "1536"), ("4", "32")])
}

/// A checkpoint with other sizes.
fn resized(list: &str, sizes: [(&str, &str); 3]) -> NamedTempFile {
    let resize = |size: &str| {
        sizes
            .iter()
            .find(|(old, _)| *old == size)
            .map_or(size.to_owned(), |(_, new)| (*new).to_owned())
    };
    let lines = list.lines().map(|line| {
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        fields[1] = fields[1].split('x').map(resize).collect::<Vec<_>>().join("x");
        fields.join(" ")
    });
    file(&safetensors(&fill(&lines.collect::<Vec<_>>().join("\n"))))
}

/// Tensors as a list asks for them, the same every time.
fn fill(list: &str) -> Vec<Tensor> {
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
    checkpoint_in(version, container, Precision::F32)
}

/// The checkpoint of a version, its matrices in some precision.
///
/// # Panics
/// If there is none.
pub fn checkpoint_in(version: &str, container: Container, precision: Precision) -> NamedTempFile {
    file(&containers::bytes(container, tensors(version), precision))
}

/// A safetensors file with official names whose matrices were rounded, as a container does it,
/// before they were stored exactly.
///
/// # Panics
/// If there is none.
pub fn rounded(version: &str, container: Container, precision: Precision) -> NamedTempFile {
    let mut tensors = tensors(version);
    let rescaled = container == Container::Gguf && version == "6";
    for tensor in tensors.iter_mut().filter(|tensor| containers::is_matrix(tensor)) {
        let power = if rescaled { gguf::rescale(&tensor.name) } else { 1.0 };
        let round = |x: &mut f32| *x = containers::round(*x / power, precision) * power;
        tensor.values.iter_mut().for_each(round);
    }
    file(&safetensors(&tensors))
}

/// A folder of two shards and their index, with the names of Hugging Face for versions before 7.
///
/// # Panics
/// If there is no such version.
pub fn sharded(version: &str) -> TempDir {
    let mut tensors = tensors(version);
    if !version.starts_with('7') {
        tensors.iter_mut().for_each(containers::hugging_face);
    }
    containers::sharded(&tensors)
}

/// Name, shape and CRC-32 of every tensor of a GGUF file, and what the converter of llama.cpp
/// writes of them: see `golden/versions/make_gguf.py`.
///
/// # Panics
/// If there is no such version.
pub fn gguf_listing(version: &str) -> (String, String) {
    let expected = fs::read_to_string(golden(version, "gguf.txt")).expect("the listing");
    (gguf::listing(tensors(version)), expected)
}

/// A checkpoint with official names that holds more tensors, of one element each.
///
/// # Panics
/// If there is none.
pub fn checkpoint_with(version: &str, names: &[&str]) -> NamedTempFile {
    let mut tensors = tensors(version);
    let one = |name: &&str| Tensor { name: (*name).to_owned(), shape: vec![1], values: vec![1.0] };
    tensors.extend(names.iter().map(one));
    file(&safetensors(&tensors))
}

/// A checkpoint with official names and tuned states, for versions from 5 on: see
/// `golden/versions/make_tuned.py`.
///
/// # Panics
/// If there is none.
pub fn tuned(version: &str) -> NamedTempFile {
    file(&safetensors(&tuned_tensors(version)))
}

/// The tuned states alone, as they are passed around.
///
/// # Panics
/// If there are none.
pub fn tuned_states(version: &str) -> NamedTempFile {
    let mut tensors = tuned_tensors(version);
    tensors.retain(|tensor| tensor.name.ends_with(".time_state"));
    file(&safetensors(&tensors))
}

fn tuned_tensors(version: &str) -> Vec<Tensor> {
    let lists = ["txt", "tuned.txt"].map(|list| fs::read_to_string(golden(version, list)));
    fill(&lists.map(|list| list.expect("the lists of tensors")).concat())
}

/// The text that was read from the tuned states, and the logits after each token of it.
///
/// # Panics
/// If there are none.
pub fn expected_tuned(version: &str) -> (Vec<u32>, Vec<f32>) {
    (crate::text(3, 7), logits(version, "tuned.logits"))
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
    (crate::text(64, 7), logits(version, "logits"))
}

fn logits(version: &str, extension: &str) -> Vec<f32> {
    let bytes = fs::read(golden(version, extension)).expect("the logits");
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    containers::safetensors(tensors, Precision::F32)
}
