//! Writes a model into files of every container that is read.

use std::fs;

use half::{bf16, f16};
use rwkv_core::image::CRC;
use tempfile::TempDir;

use crate::{
    gguf,
    random::{Container, Precision, Tensor},
    rwkv_cpp,
};

/// The bytes of a file.
pub(crate) fn bytes(
    container: Container,
    mut tensors: Vec<Tensor>,
    precision: Precision,
) -> Vec<u8> {
    match container {
        Container::Torch => return torch(&tensors, precision),
        Container::Safetensors => {}
        Container::HuggingFace => tensors.iter_mut().for_each(hugging_face),
        Container::FlashLinearAttention => tensors.iter_mut().for_each(flash_linear_attention),
        Container::FlashLinearAttentionJoined => {
            tensors = join(tensors, ".att.x_", "x");
            tensors.iter_mut().for_each(flash_linear_attention);
        }
        Container::RwkvCpp => return rwkv_cpp::bytes(tensors, precision),
        Container::Gguf => return gguf::bytes(tensors, gguf::Stored::Floats(precision)),
    }
    safetensors(&tensors, precision)
}

/// Only these lose precision: no low-rank matrices, whose names end in a digit, and no bonus of
/// heads, whatever they are called.
pub(crate) fn is_matrix(tensor: &Tensor) -> bool {
    let name = tensor.name.strip_suffix(".weight");
    tensor.shape.len() == 2
        && name.is_some_and(|name| !name.ends_with(|c: char| c.is_ascii_digit()))
        && name.is_some_and(|name| !name.ends_with("first"))
}

pub(crate) fn round(x: f32, precision: Precision) -> f32 {
    match precision {
        Precision::F32 => x,
        Precision::F16 => f16::from_f32(x).to_f32(),
        Precision::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

pub(crate) fn encode(values: &[f32], precision: Precision) -> Vec<u8> {
    match precision {
        Precision::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Precision::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        Precision::Bf16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    }
}

/// How a tensor is stored in a file of some precision.
pub(crate) fn stored(tensor: &Tensor, precision: Precision) -> Precision {
    if is_matrix(tensor) { precision } else { Precision::F32 }
}

pub(crate) fn safetensors(tensors: &[Tensor], precision: Precision) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for tensor in tensors {
        let precision = stored(tensor, precision);
        let dtype = match precision {
            Precision::F32 => "F32",
            Precision::F16 => "F16",
            Precision::Bf16 => "BF16",
        };
        let Tensor { name, shape, values } = tensor;
        let start = data.len();
        data.extend(encode(values, precision));
        let end = data.len();
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.append(&mut data);
    file
}

/// Two shards and their index.
pub(crate) fn sharded(tensors: &[Tensor]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut places = Vec::new();
    for (i, tensors) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let shard = format!("model-{:05}-of-00002.safetensors", i + 1);
        fs::write(folder.path().join(&shard), safetensors(tensors, Precision::F32))
            .expect("written");
        places.extend(tensors.iter().map(|tensor| format!(r#""{}":"{shard}""#, tensor.name)));
    }
    let index = format!(r#"{{"metadata":{{}},"weight_map":{{{}}}}}"#, places.join(","));
    fs::write(folder.path().join("model.safetensors.index.json"), index).expect("written");
    folder
}

/// What `torch.save` writes: a zip archive.
fn torch(tensors: &[Tensor], precision: Precision) -> Vec<u8> {
    zip(&torch_members(tensors, precision))
}

/// A pickle and one member per storage.
pub(crate) fn torch_members(tensors: &[Tensor], precision: Precision) -> Vec<(String, Vec<u8>)> {
    let mut pickle = b"\x80\x02}(".to_vec();
    let mut members = Vec::new();
    for (i, tensor) in tensors.iter().enumerate() {
        let precision = stored(tensor, precision);
        let class = match precision {
            Precision::F32 => "FloatStorage",
            Precision::F16 => "HalfStorage",
            Precision::Bf16 => "BFloat16Storage",
        };
        pickle.extend(text(&tensor.name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(format!("ctorch\n{class}\n").bytes());
        pickle.extend([text(&i.to_string()), text("cpu")].concat());
        pickle.extend([&int(tensor.values.len())[..], b"tQ", &int(0)].concat());
        let shape = &tensor.shape;
        let strides = (1..=shape.len()).map(|i| shape[i..].iter().product());
        pickle.extend(tuple(&mut shape.iter().copied()));
        pickle.extend(tuple(&mut strides.collect::<Vec<_>>().into_iter()));
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        members.push((format!("model/data/{i}"), encode(&tensor.values, precision)));
    }
    pickle.extend(b"u.");
    members.insert(0, ("model/data.pkl".to_owned(), pickle));
    members
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(n: usize) -> Vec<u8> {
    [b"J", &(n as u32).to_le_bytes()[..]].concat()
}

fn tuple(numbers: &mut dyn Iterator<Item = usize>) -> Vec<u8> {
    [b"(", &numbers.flat_map(int).collect::<Vec<u8>>()[..], b"t"].concat()
}

/// An archive of uncompressed members.
pub fn zip(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let start = file.len() as u32;
        let len = (bytes.len() as u32).to_le_bytes();
        // Version 2.0, no flags, stored, no time; then CRC, sizes, lengths of name and extra field.
        let common = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..],
            &CRC.checksum(bytes).to_le_bytes(),
            &len,
            &len,
            &(name.len() as u16).to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &[0; 10]].concat());
        directory.extend([&start.to_le_bytes()[..], name.as_bytes()].concat());
    }
    let (start, count) = (file.len() as u32, (members.len() as u16).to_le_bytes());
    let end = [
        b"PK\x05\x06\0\0\0\0",
        &count[..],
        &count,
        &(directory.len() as u32).to_le_bytes(),
        &start.to_le_bytes(),
        &[0, 0],
    ];
    [file, directory, end.concat()].concat()
}

/// Tensors whose names go on with single letters after `part`, joined into one that ends in
/// `joined`.
pub(crate) fn join(tensors: Vec<Tensor>, part: &str, joined: &str) -> Vec<Tensor> {
    let mut result: Vec<Tensor> = Vec::new();
    let mut open = None;
    for mut tensor in tensors {
        let letter = tensor.name.split_once(part).filter(|(_, rest)| rest.len() == 1);
        let Some((prefix, _)) = letter else {
            open = None;
            result.push(tensor);
            continue;
        };
        let name = format!("{prefix}{part}{joined}");
        match (open.as_ref() == Some(&name), result.last_mut()) {
            (true, Some(last)) => {
                last.values.append(&mut tensor.values);
                last.shape[0] += 1;
            }
            _ => {
                tensor.name.clone_from(&name);
                result.push(tensor);
            }
        }
        open = Some(name);
    }
    result
}

/// As the converters of `transformers` and of RWKV-World-HF-Tokenizer do it.
pub(crate) fn hugging_face(tensor: &mut Tensor) {
    let mut name = tensor.name.replace("emb.", "embeddings.").replace(".ln0.", ".pre_ln.");
    name = name.replace(".att.", ".attention.").replace(".ffn.", ".feed_forward.");
    for (letter, word) in [("k", "key"), ("v", "value"), ("r", "receptance"), ("g", "gate")] {
        if let Some(start) = name.strip_suffix(&format!(".time_mix_{letter}")) {
            name = format!("{start}.time_mix_{word}");
        }
    }
    tensor.name = if name == "head.weight" { name } else { format!("rwkv.{name}") };
}

/// As `convert_from_rwkv7.py` of flash-linear-attention does it.
fn flash_linear_attention(tensor: &mut Tensor) {
    let Some((layer, part)) =
        tensor.name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'))
    else {
        let outer =
            [("emb.", "model.embeddings."), ("ln_out.", "model.norm."), ("head.", "lm_head.")];
        outer.iter().for_each(|(from, to)| tensor.name = tensor.name.replace(from, to));
        return;
    };
    let part = part.replace("ln0.", "pre_norm.").replace("ln1.", "attn_norm.");
    let part = part.replace("ln2.", "ffn_norm.").replace("att.", "attn.");
    let part =
        part.replace("attn.receptance.", "attn.r_proj.").replace("attn.key.", "attn.k_proj.");
    let part = part.replace("attn.value.", "attn.v_proj.").replace("attn.output.", "attn.o_proj.");
    let (layer, mut part) = (layer.to_owned(), part.replace("ln_x.", "g_norm."));
    if let Some([kind @ (b'w' | b'v' | b'a' | b'g'), number @ b'0'..=b'2']) =
        part.strip_prefix("attn.").map(str::as_bytes)
    {
        let (kind, number) = (char::from(*kind), number - b'0');
        let place = ["2.bias", "0.weight", "2.weight"][usize::from(number)];
        part = format!("attn.{kind}_lora.lora.{place}");
        match number {
            0 => drop(tensor.shape.drain(..2)),
            _ => rwkv_cpp::transpose(tensor),
        }
    }
    if part == "attn.k_k" || part == "attn.k_a" || part == "ffn.x_k" || part == "attn.x_x" {
        tensor.shape.retain(|size| *size != 1);
    }
    tensor.name = format!("model.layers.{layer}.{part}");
}
