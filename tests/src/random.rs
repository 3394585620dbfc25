//! Random models of several versions, and what another implementation computes of them: see
//! `golden/versions/make.py`.

use std::{fs, io::Write, path::PathBuf};

use rwkv_host::{convert::Weights, file::ImageFile};
use tempfile::{NamedTempFile, TempDir};

use crate::{
    blocks::{self, Blocks},
    containers,
    gguf::{self, Stored},
    xorshift,
};

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

/// The list of a version's tensors. It is part of the program, which may run elsewhere.
fn list(version: &str) -> &'static str {
    match version {
        "4" => include_str!("../golden/versions/4.txt"),
        "5.0" => include_str!("../golden/versions/5.0.txt"),
        "5.1" => include_str!("../golden/versions/5.1.txt"),
        "5.2" => include_str!("../golden/versions/5.2.txt"),
        "6" => include_str!("../golden/versions/6.txt"),
        "7" => include_str!("../golden/versions/7.txt"),
        "7a" => include_str!("../golden/versions/7a.txt"),
        _ => panic!("there is no version {version}"),
    }
}

fn golden(version: &str, extension: &str) -> PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/versions");
    folder.join(format!("{version}.{extension}"))
}

fn tensors(version: &str) -> Vec<Tensor> {
    fill(list(version))
}

/// A GGUF file of version 7 whose matrices are stored in blocks of integers, and a safetensors
/// file of the values of those blocks. Rows are whole blocks.
///
/// # Panics
/// If there is none.
pub fn quantised(blocks: Blocks) -> [NamedTempFile; 2] {
    let list = self::list("7");
    let wide = |size: &str| match size {
        "48" => "64".to_owned(),
        "100" => "96".to_owned(),
        "12" => "16".to_owned(),
        size => size.to_owned(),
    };
    let mut tensors = fill(&resized(list, wide));
    let stored = gguf::bytes(tensors.clone(), Stored::Blocks(blocks));
    for tensor in tensors.iter_mut().filter(|tensor| containers::is_matrix(tensor)) {
        tensor.values = blocks::round(&tensor.values, blocks);
    }
    [file(&stored), file(&safetensors(&tensors))]
}

/// A list of tensors with other sizes.
fn resized(list: &str, size: impl Fn(&str) -> String) -> String {
    let line = |line: &str| {
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        fields[1] = fields[1].split('x').map(&size).collect::<Vec<_>>().join("x");
        fields.join(" ")
    };
    list.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A checkpoint of a version with a quarter of the width and one layer: one head where there are
/// several, and low ranks as they are.
///
/// # Panics
/// If there is none.
pub fn small(version: &str) -> NamedTempFile {
    file(&safetensors(&narrow(version, "256")))
}

/// The bytes of such a checkpoint of 16 tokens in some container.
///
/// # Panics
/// If there is none.
pub fn tiny(version: &str, container: Container) -> Vec<u8> {
    containers::bytes(container, narrow(version, "16"), Precision::F32)
}

/// An image of such a model of version 7.
///
/// # Panics
/// If there is none.
pub fn tiny_image() -> ImageFile {
    crate::image(file(&tiny("7", Container::Safetensors)).path(), Weights::Int8)
}

/// The pickle of such a checkpoint.
///
/// # Panics
/// If there is none.
pub fn tiny_pickle(version: &str) -> Vec<u8> {
    containers::torch_members(&narrow(version, "16"), Precision::F32).swap_remove(0).1
}

/// Such a checkpoint in two shards.
///
/// # Panics
/// If there is none.
pub fn tiny_shards(version: &str) -> TempDir {
    containers::sharded(&narrow(version, "16"))
}

/// A PyTorch zip of `count` tensors, fewer than ten, which all have the same values.
pub fn sharing(count: usize) -> Vec<u8> {
    let tensor = |i| Tensor { name: format!("t{i}"), shape: vec![64, 64], values: vec![1.0; 4096] };
    let tensors: Vec<Tensor> = (0..count).map(tensor).collect();
    let mut members = containers::torch_members(&tensors, Precision::F32);
    members.truncate(2);
    let pickle = &mut members[0].1;
    let class = b"FloatStorage\nX\x01\0\0\0";
    for at in 0..pickle.len() {
        if pickle[at..].starts_with(class) {
            pickle[at + class.len()] = b'0';
        }
    }
    containers::zip(&members)
}

/// The tensors of a model of a quarter of the width and one layer.
fn narrow(version: &str, vocab: &str) -> Vec<Tensor> {
    let list = self::list(version);
    let size = |size: &str| match size {
        "256" => vocab.to_owned(),
        "48" => "12".to_owned(),
        "100" => "20".to_owned(),
        // One head as wide as the model.
        "4" | "3" => "1".to_owned(),
        "16" => "12".to_owned(),
        size => size.to_owned(),
    };
    let lines: Vec<&str> = list.lines().filter(|line| !line.starts_with("blocks.1.")).collect();
    fill(&resized(&lines.join("\n"), size))
}

/// A checkpoint of a version from 5 on with one head of 64 channels, as released models have.
///
/// # Panics
/// If there is none.
pub fn released(version: &str) -> NamedTempFile {
    let list = self::list(version);
    let size = |size: &str| match size {
        "48" | "16" | "12" => "64".to_owned(),
        "4" | "3" => "1".to_owned(),
        size => size.to_owned(),
    };
    file(&safetensors(&fill(&resized(list, size))))
}

/// A checkpoint of a version whose channels forget everything at once and hardly anything, in turns.
///
/// # Panics
/// If there is none.
pub fn hostile(version: &str) -> NamedTempFile {
    let mut tensors = tensors(version);
    let is_decay = |name: &str| name.ends_with(".att.time_decay") || name.ends_with(".att.w0");
    for tensor in tensors.iter_mut().filter(|tensor| is_decay(&tensor.name)) {
        // Where a decay is e^-e^x the first of them is zero, and the second rounds to almost one.
        tensor
            .values
            .iter_mut()
            .zip([8.0, -15.0].iter().cycle())
            .for_each(|(x, decay)| *x = *decay);
    }
    file(&safetensors(&tensors))
}

/// A checkpoint of version 4 or 7 with eight times the width, such as a device streams.
///
/// # Panics
/// If there is none.
pub fn wide(version: &str) -> NamedTempFile {
    wider(version, 8)
}

/// A checkpoint of version 4 or 7 with so many times the width, and a channel mix four times as
/// wide as that.
///
/// # Panics
/// If there is none.
pub fn wider(version: &str, times: usize) -> NamedTempFile {
    let list = self::list(version);
    let size = |size: &str| match size {
        "48" => (48 * times).to_string(),
        "100" => (4 * 48 * times).to_string(),
        "4" => (4 * times).to_string(),
        size => size.to_owned(),
    };
    file(&safetensors(&fill(&resized(list, size))))
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
    let tuned = fs::read_to_string(golden(version, "tuned.txt")).expect("the list of tensors");
    fill(&[list(version), &tuned].concat())
}

/// The text that was read from the tuned states, and the logits after each token of it.
///
/// # Panics
/// If there are none.
pub fn expected_tuned(version: &str) -> (Vec<u32>, Vec<f32>) {
    (crate::text(3, 7), logits(version, "tuned.logits"))
}

/// A file of these bytes.
///
/// # Panics
/// If it cannot be written.
pub fn file(bytes: &[u8]) -> NamedTempFile {
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
