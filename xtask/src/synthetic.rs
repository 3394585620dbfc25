//! Random checkpoints: small enough for every board, with heads, layers and tails enough that
//! every loop of every kernel runs.

use std::{fs, path::PathBuf};

use serde_json::{Map, json};

use crate::{job, root};

/// A model to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Synthetic {
    /// What it is called.
    pub name: &'static str,
    /// RWKV's version: 4 or 7.
    version: u32,
    dim: usize,
    ffn: usize,
    head_size: usize,
    /// Ranks of version 7's decay, learning-rate, value and gate matrices.
    ranks: [usize; 4],
    /// Whether its images fit into the flash of a `microbit`.
    pub tiny: bool,
}

const LAYERS: usize = 2;
const VOCAB: usize = 256;

/// The tiny ones have three heads of 8, the others two of 32; no width of the latter but the
/// model's is a multiple of 32.
pub(crate) const MODELS: [Synthetic; 4] = {
    let tiny = Synthetic {
        name: "tiny-v4",
        version: 4,
        dim: 24,
        ffn: 76,
        head_size: 8,
        ranks: [8; 4],
        tiny: true,
    };
    let small = Synthetic {
        name: "small-v4",
        dim: 64,
        ffn: 148,
        head_size: 32,
        ranks: [12, 12, 8, 20],
        tiny: false,
        ..tiny
    };
    [
        tiny,
        Synthetic { name: "tiny-v7", version: 7, ..tiny },
        small,
        Synthetic { name: "small-v7", version: 7, ..small },
    ]
};

/// How an image stores the matrices: a name, and the options of `rwkv convert`.
pub(crate) const WEIGHTS: [(&str, &[&str]); 4] = [
    ("f32", &["--weights", "f32"]),
    ("int8", &["--weights", "int8"]),
    ("int4", &["--weights", "int4"]),
    ("int4-lanes", &["--weights", "int4", "--packing", "lanes"]),
];

impl Synthetic {
    /// The image of the model, made anew.
    pub(crate) fn image(&self, name: &str, options: &[&str]) -> anyhow::Result<PathBuf> {
        let dir = root().join("target/synthetic");
        fs::create_dir_all(&dir)?;
        let checkpoint = dir.join(self.name).with_extension("safetensors");
        fs::write(&checkpoint, self.checkpoint())?;
        let image = dir.join(format!("{}-{name}.rwkv", self.name));
        let mut convert = crate::demo::rwkv()?;
        convert.arg("convert").arg(checkpoint).arg("-o").arg(&image).args(options);
        job::output(&mut convert)?;
        Ok(image)
    }

    /// The bytes of a safetensors file.
    fn checkpoint(&self) -> Vec<u8> {
        let mut file = Tensors { header: Map::new(), data: Vec::new(), random: self.version };
        let dim = self.dim;
        let embedding = [VOCAB, dim];
        file.add("emb.weight", &embedding, Values::Matrix);
        file.add("head.weight", &embedding, Values::Matrix);
        file.norm("blocks.0.ln0", dim);
        file.norm("ln_out", dim);
        for layer in 0..LAYERS {
            self.layer(layer, &mut file);
        }
        file.bytes()
    }

    fn layer(&self, layer: usize, file: &mut Tensors) {
        let (dim, name) = (self.dim, |rest: &str| format!("blocks.{layer}.{rest}"));
        file.norm(&name("ln1"), dim);
        file.norm(&name("ln2"), dim);
        for matrix in ["receptance", "key", "value", "output"] {
            file.add(&name(&format!("att.{matrix}.weight")), &[dim, dim], Values::Matrix);
        }
        file.add(&name("ffn.key.weight"), &[self.ffn, dim], Values::Matrix);
        file.add(&name("ffn.value.weight"), &[dim, self.ffn], Values::Matrix);
        let mut vectors = |names: &[&str], values: Values| {
            names.iter().for_each(|rest| file.add(&name(rest), &[dim], values));
        };
        if self.version == 4 {
            vectors(&["att.time_decay"], Values::Within(-6.0, 1.0));
            vectors(&["att.time_first"], Values::Within(-1.0, 1.0));
            let att = ["att.time_mix_k", "att.time_mix_v", "att.time_mix_r"];
            vectors(&att, Values::Within(0.0, 1.0));
            vectors(&["ffn.time_mix_k", "ffn.time_mix_r"], Values::Within(0.0, 1.0));
            file.add(&name("ffn.receptance.weight"), &[dim, dim], Values::Matrix);
            return;
        }
        let mixes = ["r", "k", "v", "w", "a", "g"].map(|letter| format!("att.x_{letter}"));
        vectors(&mixes.each_ref().map(String::as_str), Values::Within(0.0, 1.0));
        vectors(&["ffn.x_k"], Values::Within(0.0, 1.0));
        vectors(&["att.w0"], Values::Within(-6.0, 1.0));
        vectors(&["att.a0", "att.v0"], Values::Within(-1.0, 1.0));
        vectors(&["att.k_k", "att.k_a"], Values::Within(0.5, 1.2));
        file.norm(&name("att.ln_x"), dim);
        let heads = [dim / self.head_size, self.head_size];
        file.add(&name("att.r_k"), &heads, Values::Within(-0.3, 0.3));
        for (letter, rank) in ["w", "a", "v", "g"].into_iter().zip(self.ranks) {
            if letter == "v" && layer == 0 {
                continue;
            }
            file.add(&name(&format!("att.{letter}1")), &[dim, rank], Values::Matrix);
            file.add(&name(&format!("att.{letter}2")), &[rank, dim], Values::Matrix);
        }
    }
}

/// What the values of a tensor are like.
#[derive(Debug, Clone, Copy)]
enum Values {
    /// Of the size that keeps a product as large as its input.
    Matrix,
    /// Anything in between.
    Within(f32, f32),
}

/// A safetensors file in the making.
struct Tensors {
    header: Map<String, serde_json::Value>,
    data: Vec<u8>,
    random: u32,
}

impl Tensors {
    fn norm(&mut self, name: &str, dim: usize) {
        self.add(&format!("{name}.weight"), &[dim], Values::Within(0.8, 1.2));
        self.add(&format!("{name}.bias"), &[dim], Values::Within(-0.2, 0.2));
    }

    fn add(&mut self, name: &str, shape: &[usize], values: Values) {
        let start = self.data.len();
        let (low, high) = match values {
            Values::Matrix => {
                let size = (3.0 / shape.iter().copied().min().unwrap_or(1) as f32).sqrt();
                (-size, size)
            }
            Values::Within(low, high) => (low, high),
        };
        for _ in 0..shape.iter().product::<usize>() {
            let value = low + (high - low) * self.unit();
            self.data.extend(value.to_le_bytes());
        }
        let tensor =
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, self.data.len()]});
        self.header.insert(name.to_owned(), tensor);
    }

    /// From 0 to 1, the same every time.
    fn unit(&mut self) -> f32 {
        self.random = self.random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let x = (self.random >> ((self.random >> 28) + 4) ^ self.random).wrapping_mul(277_803_737);
        (x >> 8) as f32 / (1 << 24) as f32
    }

    fn bytes(self) -> Vec<u8> {
        let mut header = serde_json::Value::Object(self.header).to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let length = (header.len() as u64).to_le_bytes();
        [&length, header.as_bytes(), &self.data].concat()
    }
}
