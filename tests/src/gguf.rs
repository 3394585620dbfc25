//! What the converter of llama.cpp makes of a model of version 6 or 7.

use rwkv_core::image::CRC;

use crate::{
    blocks::{self, Blocks},
    containers::{self, encode, is_matrix, join},
    random::{Precision, Tensor},
    rwkv_cpp::transpose,
};

/// Layers after which version 6 is rescaled, as in `make_gguf.py`.
const RESCALE: usize = 1;

/// What the values of a tensor of version 6 are divided by.
pub(crate) fn rescale(official: &str) -> f32 {
    let layer = official.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    match layer {
        Some((layer, "att.output.weight" | "ffn.value.weight")) => {
            2f32.powi((layer.parse::<usize>().expect("a layer") / RESCALE) as i32)
        }
        _ => 1.0,
    }
}

/// How the matrices of a file are stored.
#[derive(Clone, Copy)]
pub(crate) enum Stored {
    Floats(Precision),
    Blocks(Blocks),
}

impl Stored {
    /// Type and bytes of a tensor.
    fn encode(self, tensor: &Tensor) -> (u32, Vec<u8>) {
        let precision = match self {
            Self::Blocks(kind) if is_matrix(tensor) => {
                return (kind.code(), blocks::encode(&tensor.values, kind));
            }
            Self::Blocks(_) => Precision::F32,
            Self::Floats(precision) => containers::stored(tensor, precision),
        };
        let kind = match precision {
            Precision::F32 => 0,
            Precision::F16 => 1,
            Precision::Bf16 => 30,
        };
        (kind, encode(&tensor.values, precision))
    }
}

/// The bytes of a file.
pub(crate) fn bytes(tensors: Vec<Tensor>, stored: Stored) -> Vec<u8> {
    let [.., head_size] =
        tensors.iter().find(|t| is_bonus(&t.name)).expect("a bonus per head").shape[..]
    else {
        panic!("heads")
    };
    let (architecture, tensors) = converted(tensors);
    let own = |name: &str| text(&format!("{architecture}.{name}"));
    let word = |kind: u32, bits: u32| [kind.to_le_bytes(), bits.to_le_bytes()].concat();
    let tokens = [&9u32.to_le_bytes()[..], &8u32.to_le_bytes(), &2u64.to_le_bytes()].concat();
    let mut pairs = vec![
        [text("general.architecture"), [&8u32.to_le_bytes()[..], &text(architecture)].concat()],
        [own("attention.layer_norm_epsilon"), word(6, 1e-5f32.to_bits())],
        [own("wkv.head_size"), word(4, head_size as u32)],
        [text("tokenizer.ggml.tokens"), [tokens, text("<s>"), text("a")].concat()],
    ];
    if architecture == "rwkv6" {
        pairs.push([own("rescale_every_n_layers"), word(4, RESCALE as u32)]);
    }
    let mut file = [b"GGUF", &3u32.to_le_bytes()[..]].concat();
    file.extend([tensors.len() as u64, pairs.len() as u64].map(u64::to_le_bytes).concat());
    file.extend(pairs.concat().concat());
    let mut data: Vec<u8> = Vec::new();
    for tensor in &tensors {
        let (kind, values) = stored.encode(tensor);
        file.extend([&text(&tensor.name), &(tensor.shape.len() as u32).to_le_bytes()[..]].concat());
        file.extend(tensor.shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
        file.extend([&kind.to_le_bytes()[..], &(data.len() as u64).to_le_bytes()].concat());
        data.extend(values);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    [file, data].concat()
}

/// A line per tensor: name, shape, and CRC-32 of its values.
pub(crate) fn listing(tensors: Vec<Tensor>) -> String {
    let line = |Tensor { name, shape, values }: &Tensor| {
        let shape = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        format!("{name} {shape} {:08x}\n", CRC.checksum(&encode(values, Precision::F32)))
    };
    converted(tensors).1.iter().map(line).collect()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn is_bonus(name: &str) -> bool {
    name.ends_with(".time_faaaa") || name.ends_with(".r_k")
}

/// The architecture and the tensors.
fn converted(tensors: Vec<Tensor>) -> (&'static str, Vec<Tensor>) {
    let finch = tensors.iter().any(|tensor| tensor.name.ends_with(".time_maa_x"));
    let mut result = Vec::new();
    // That of the whole shift stands apart.
    let first = if finch { ".att.time_maa_" } else { ".att.x_" };
    let (apart, tensors) = tensors.into_iter().partition(|t| t.name.ends_with(".time_maa_x"));
    let (mut apart, tensors): (Vec<Tensor>, Vec<Tensor>) = (apart, join(tensors, first, "lerp"));
    apart.reverse();
    for mut tensor in tensors {
        if tensor.name.ends_with("maa_lerp") {
            result.extend(apart.pop().map(|tensor| convert(tensor, finch)));
        }
        if !finch && tensor.name.starts_with("blocks.0.att.a") {
            // Version 7 has no residual value in layer 0, which llama.cpp asks for.
            let name = tensor.name.replace(".att.a", ".att.v");
            result.push(convert(Tensor { name, ..tensor.clone() }, finch));
        }
        if tensor.name.ends_with("lerp") {
            tensor.shape = vec![tensor.shape[0], 1, 1, tensor.shape[2]];
        }
        result.push(convert(tensor, finch));
    }
    (if finch { "rwkv6" } else { "rwkv7" }, result)
}

fn convert(mut tensor: Tensor, finch: bool) -> Tensor {
    if finch {
        let power = rescale(&tensor.name);
        tensor.values.iter_mut().for_each(|x| *x /= power);
    }
    let Some((layer, part)) = tensor.name.strip_prefix("blocks.").and_then(|r| r.split_once('.'))
    else {
        let outer = [("emb.", "token_embd."), ("ln_out.", "output_norm."), ("head.", "output.")];
        outer.iter().for_each(|(from, to)| tensor.name = tensor.name.replace(from, to));
        return tensor;
    };
    let (layer, part) = (layer.to_owned(), part.to_owned());
    let low_rank = |part: &str| matches!(part.as_bytes(), [b'w' | b'a' | b'v' | b'g', b'1' | b'2']);
    let name = match part.split_once('.') {
        Some(("ln0", rest)) => format!("token_embd_norm.{rest}"),
        Some(("ln1", rest)) => format!("attn_norm.{rest}"),
        Some(("ln2", rest)) => format!("attn_norm_2.{rest}"),
        Some(("ffn", rest)) => {
            let rest = rest.replace("time_maa_", "lerp_").replace("x_", "lerp_");
            format!("channel_mix_{rest}")
        }
        Some((_, "time_maa_lerp" | "x_lerp")) => "time_mix_lerp_fused".into(),
        Some((_, "time_maa_x")) => "time_mix_lerp_x".into(),
        Some((_, "time_faaaa")) => "time_mix_first".into(),
        Some((_, rest)) => {
            let rest = rest.replace("time_maa_", "").replace("time_", "").replace("ln_x", "ln");
            if low_rank(&rest) || rest.starts_with("decay_w") {
                transpose(&mut tensor);
            }
            format!("time_mix_{rest}")
        }
        None => part.clone(),
    };
    let name = if name.ends_with(".weight") || name.ends_with(".bias") {
        name
    } else {
        format!("{name}.weight")
    };
    if name == "time_mix_r_k.weight" {
        tensor.shape = vec![tensor.values.len()];
    } else if let [1, 1, size] = tensor.shape[..] {
        tensor.shape = vec![size];
    }
    let is_outer = name.starts_with("token_embd_norm.");
    tensor.name = if is_outer { name } else { format!("blk.{layer}.{name}") };
    tensor
}
