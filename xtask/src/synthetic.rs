//! Random models of every version, from the lists of tensors in `tests/golden/versions`: with
//! several heads and odd widths, and small enough for every board.

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Map, json};

use crate::{demo, job, root};

/// The versions that there are lists of.
pub(crate) const VERSIONS: [&str; 7] = ["4", "5.0", "5.1", "5.2", "6", "7", "7a"];

/// A model to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Synthetic {
    /// A list's name.
    pub version: &'static str,
    /// Half as wide as the list says, or less: such a model fits into a `microbit`.
    pub tiny: bool,
}

/// The same integers in two packings.
pub(crate) const PAIRS: &str = "int4-8-bit";
pub(crate) const LANES: &str = "int4-lanes";

/// How an image stores the matrices: a name, and the options of `rwkv convert`.
pub(crate) const WEIGHTS: [(&str, &[&str]); 6] = [
    ("f32", &["--weights", "f32"]),
    ("f16", &["--weights", "f16"]),
    ("int8", &["--weights", "int8"]),
    ("int4", &["--weights", "int4"]),
    (PAIRS, &["--weights", "int4", "--input-bits", "8"]),
    (LANES, &["--weights", "int4", "--packing", "lanes"]),
];

impl Synthetic {
    /// What the model is called.
    pub(crate) fn name(&self) -> String {
        format!("v{}{}", self.version, if self.tiny { "-tiny" } else { "" })
    }

    /// The image of the model, made anew with options of `rwkv convert` that have a name.
    pub(crate) fn image(&self, name: &str, options: &[&str]) -> anyhow::Result<PathBuf> {
        let dir = root().join("target/synthetic");
        fs::create_dir_all(&dir)?;
        let checkpoint = dir.join(self.name() + ".safetensors");
        fs::write(&checkpoint, self.checkpoint()?)?;
        let image = dir.join(format!("{}-{name}.rwkv", self.name()));
        let mut convert = demo::rwkv()?;
        convert.arg("convert").arg(checkpoint).arg("-o").arg(&image).args(options);
        job::output(&mut convert)?;
        Ok(image)
    }

    /// The bytes of a safetensors file.
    fn checkpoint(&self) -> anyhow::Result<Vec<u8>> {
        let path = root().join(format!("tests/golden/versions/{}.txt", self.version));
        let list = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (mut entries, mut data, mut random) = (Map::new(), Vec::new(), 1);
        for line in list.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            ensure!(fields.len() == 4, "{}: {line}", path.display());
            let sizes = fields[1].split('x').map(str::parse);
            let mut shape = sizes.collect::<Result<Vec<usize>, _>>()?;
            if self.tiny {
                shrink(&mut shape, if self.version == "7a" { 16 } else { 24 });
            }
            let (offset, exponent): (f32, f32) = (fields[2].parse()?, fields[3].parse()?);
            let start = data.len();
            for _ in 0..shape.iter().product::<usize>() {
                let value =
                    offset + f32::from((xorshift(&mut random) >> 16) as i16) * (-exponent).exp2();
                data.extend(value.to_le_bytes());
            }
            let entry =
                json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
            entries.insert(fields[0].to_owned(), entry);
        }
        let header = serde_json::Value::Object(entries).to_string();
        let length = (header.len() as u64).to_le_bytes();
        Ok([&length, header.as_bytes(), &data].concat())
    }
}

/// Heads of 8 instead of three of 16 or four of 12, and all else about in proportion, so that a
/// `microbit` has room for the model in any format.
fn shrink(shape: &mut [usize], width: usize) {
    match shape {
        [4, 12] | [3, 16] => shape.copy_from_slice(&[width / 8, 8]),
        [4] => shape.copy_from_slice(&[width / 8]),
        // Version 6's rank of the token shift, for five inputs.
        [48, 30] => shape.copy_from_slice(&[width, 15]),
        [5, 6, 48] => shape.copy_from_slice(&[5, 3, width]),
        _ => shape.iter_mut().for_each(|size| {
            *size = match *size {
                48 => width,
                100 => 52,
                // The matrix of version 7a, and its side.
                1024 => 16,
                32 => 4,
                size => size,
            }
        }),
    }
}

const fn xorshift(x: &mut u32) -> u32 {
    *x ^= *x << 13;
    *x ^= *x >> 17;
    *x ^= *x << 5;
    *x
}
