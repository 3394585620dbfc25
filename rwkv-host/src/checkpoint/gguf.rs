//! The container of llama.cpp: metadata, a table of tensors, and their values from an aligned
//! offset on.
//!
//! Its converter renames, joins and transposes tensors, and divides some of version 6 by powers of
//! two, which lets llama.cpp compute in binary16. All of it is undone here.

use std::{collections::BTreeMap, str};

use super::{
    CheckpointError, Container, DecayForm, Index,
    map::{Cursor, File},
    names,
    tensor::{Dtype, Entry, View},
};

/// The first bytes of the file.
pub(super) const MAGIC: &[u8] = b"GGUF";

/// Data types by their code in the file.
const TYPES: [&str; 31] = [
    "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K",
    "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
    "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16",
];

/// More dimensions than ggml has.
const MAX_RANK: usize = 4;

pub(super) fn index(file: File<'_>) -> Result<Index, CheckpointError> {
    let mut reader = Reader { file, input: Cursor::new(file.bytes) };
    let count = reader.header()?;
    let metadata = reader.metadata()?;
    let model = Model::new(file, &metadata)?;
    let mut stored = BTreeMap::new();
    for _ in 0..count {
        let at = reader.input.at();
        let (name, dtype, shape, offset) = reader.tensor()?;
        if stored.insert(name, (dtype, shape, offset)).is_some() {
            return Err(reader.damaged(at, format!("tensor `{name}` appears twice")));
        }
    }
    let data = reader.input.at().next_multiple_of(model.alignment);
    let mut entries = BTreeMap::new();
    for (name, (dtype, shape, offset)) in stored {
        let at = reader.input.at();
        let len = dtype.bytes(&shape).ok_or_else(|| {
            let problem = format!("`{name}` of type {dtype} has shape {shape:?}");
            reader.damaged(at, format!("{problem}, expected rows of whole blocks"))
        })?;
        let start = data.checked_add(offset);
        let range = start.and_then(|start| Some(start..start.checked_add(len)?));
        let range = range.filter(|range| range.end <= file.bytes.len()).ok_or_else(|| {
            reader.damaged(file.bytes.len(), format!("the file ends inside `{name}`"))
        })?;
        let mut entry = View::contiguous(dtype, range, shape).check(file, name)?;
        model.undo(file, name, &mut entry)?;
        entries.insert(name.to_owned(), entry);
    }
    let mut index = Index::new(DecayForm::Raw);
    index.layer_norm_eps = Some(model.layer_norm_eps);
    index.entries = model.naming.rename(file.path, entries)?;
    Ok(index)
}

/// What the metadata says of the model.
struct Model {
    naming: &'static names::Naming,
    alignment: usize,
    layer_norm_eps: f32,
    head_size: usize,
    /// After so many layers, values are divided by two once more; 0 for never.
    rescale_every: usize,
}

impl Model {
    fn new(file: File<'_>, metadata: &Metadata<'_>) -> Result<Self, CheckpointError> {
        let damaged = |problem| file.damaged(Container::Gguf, MAGIC.len(), problem);
        let whole = |name: &str, default: Option<usize>| match (metadata.get(name), default) {
            (Some(Value::Whole(n)), _) => Ok(usize::try_from(*n).unwrap_or(usize::MAX)),
            (None, Some(default)) => Ok(default),
            _ => Err(damaged(format!("`{name}` is missing or not a whole number"))),
        };
        // Only the first part names the architecture. A file that was joined says 0.
        if whole("split.count", Some(1))? > 1 {
            return Err(file.unsupported(
                "a model in several GGUF files is",
                "a single one",
                "join them with `llama-gguf-split --merge`",
            ));
        }
        let architecture = match metadata.get("general.architecture") {
            Some(Value::Text(name)) => *name,
            _ => return Err(damaged("`general.architecture` is missing".to_owned())),
        };
        let naming = match architecture {
            "rwkv6" => &names::GGUF_6,
            "rwkv7" => &names::GGUF_7,
            other => {
                return Err(file.unsupported(
                    format!("architecture `{}` is", other.escape_debug()),
                    "`rwkv6` or `rwkv7`",
                    "give an RWKV model; one that borrows from Qwen is none",
                ));
            }
        };
        let eps = format!("{architecture}.attention.layer_norm_epsilon");
        let layer_norm_eps = match metadata.get(&*eps) {
            Some(Value::Float(eps)) if *eps > 0.0 && *eps < 1.0 => *eps,
            _ => return Err(damaged(format!("`{eps}` is missing or not between 0 and 1"))),
        };
        let alignment = whole("general.alignment", Some(32))?;
        if !(1..=1 << 16).contains(&alignment) {
            return Err(damaged(format!(
                "`general.alignment` is {alignment}, expected 1 to 65536"
            )));
        }
        Ok(Self {
            naming,
            alignment,
            layer_norm_eps,
            head_size: whole(&format!("{architecture}.wkv.head_size"), None)?,
            // Version 7 is not rescaled, whatever the file says.
            rescale_every: whole("rwkv6.rescale_every_n_layers", Some(0))?,
        })
    }

    /// Undoes what the converter does to values and to the dimensions of heads.
    fn undo(&self, file: File<'_>, name: &str, entry: &mut Entry) -> Result<(), CheckpointError> {
        let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let Some((layer, part)) = layer else { return Ok(()) };
        let fits = match part {
            "time_mix_r_k.weight" => entry.split_last(self.head_size),
            "time_mix_output.weight" | "channel_mix_value.weight" if self.rescale_every > 0 => {
                let layer = layer.parse::<usize>().unwrap_or(usize::MAX);
                entry.double(layer / self.rescale_every)
            }
            _ => true,
        };
        if fits {
            return Ok(());
        }
        let problem = format!(
            "`{name}` of shape {:?} fits neither heads of {} channels nor a model that is rescaled \
             every {} layers",
            entry.shape, self.head_size, self.rescale_every
        );
        Err(file.damaged(Container::Gguf, MAGIC.len(), problem))
    }
}

type Metadata<'a> = BTreeMap<&'a str, Value<'a>>;

/// A value of the metadata.
enum Value<'a> {
    Whole(u64),
    Float(f32),
    Text(&'a str),
    /// Nothing that matters here.
    Other,
}

struct Reader<'a> {
    file: File<'a>,
    input: Cursor<'a>,
}

impl<'a> Reader<'a> {
    /// Reads magic number and version; returns the number of tensors.
    fn header(&mut self) -> Result<u64, CheckpointError> {
        self.take(MAGIC.len(), "the header")?;
        let version = self.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(self.file.unsupported(
                match version.swap_bytes() {
                    2 | 3 => "a GGUF file of big-endian numbers is".to_owned(),
                    _ => format!("GGUF version {version} is"),
                },
                "version 2 or 3, little-endian",
                "convert the model with a current llama.cpp",
            ));
        }
        self.u64()
    }

    fn metadata(&mut self) -> Result<Metadata<'a>, CheckpointError> {
        let mut metadata = Metadata::new();
        for _ in 0..self.u64()? {
            let at = self.input.at();
            let (name, kind) = (self.text()?, self.u32()?);
            let value = self.value(kind)?;
            if metadata.insert(name, value).is_some() {
                return Err(self.damaged(at, format!("`{}` appears twice", name.escape_debug())));
            }
        }
        Ok(metadata)
    }

    fn value(&mut self, kind: u32) -> Result<Value<'a>, CheckpointError> {
        const TEXT: u32 = 8;
        const ARRAY: u32 = 9;
        Ok(match kind {
            0 | 2 | 4 | 10 => {
                let mut whole = [0; 8];
                let bytes = self.take(self.width(kind)?, "a number")?;
                whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                Value::Whole(u64::from_le_bytes(whole))
            }
            6 => Value::Float(f32::from_bits(self.u32()?)),
            TEXT => Value::Text(self.text()?),
            ARRAY => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if kind == TEXT {
                    for _ in 0..count {
                        self.bytes()?;
                    }
                } else {
                    let len = usize::try_from(count).unwrap_or(usize::MAX);
                    self.take(len.saturating_mul(self.width(kind)?), "an array")?;
                }
                Value::Other
            }
            other => {
                self.take(self.width(other)?, "a value")?;
                Value::Other
            }
        })
    }

    /// Bytes of a value of this kind, if all have the same.
    fn width(&self, kind: u32) -> Result<usize, CheckpointError> {
        match kind {
            0 | 1 | 7 => Ok(1),
            2 | 3 => Ok(2),
            4..=6 => Ok(4),
            10..=12 => Ok(8),
            _ => {
                let problem =
                    format!("a value of the metadata is of kind {kind}, expected 0 to 12");
                Err(self.damaged(self.input.at(), problem))
            }
        }
    }

    /// Name, type, shape, and offset from the start of the data.
    fn tensor(&mut self) -> Result<(&'a str, Dtype, Vec<usize>, usize), CheckpointError> {
        let at = self.input.at();
        let (name, rank) = (self.text()?, self.u32()? as usize);
        if rank > MAX_RANK {
            let problem = format!("tensor `{name}` has {rank} dimensions, expected at most 4");
            return Err(self.damaged(at, problem));
        }
        let sizes = (0..rank).map(|_| self.u64()).collect::<Result<Vec<_>, _>>()?;
        let whole = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let shape = sizes.into_iter().rev().map(whole).collect();
        let kind = self.u32()?;
        let found = TYPES.get(kind as usize);
        let found = found.map_or_else(|| format!("type {kind}"), |name| (*name).to_owned());
        if let Some(dtype) = Dtype::named(&found) {
            return Ok((name, dtype, shape, whole(self.u64()?)));
        }
        Err(self.file.unsupported(
            format!("tensor `{name}`: {found} is"),
            "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0",
            "convert the model again, with `--outtype f32`, `f16`, `bf16` or `q8_0`",
        ))
    }

    fn text(&mut self) -> Result<&'a str, CheckpointError> {
        let at = self.input.at();
        let bytes = self.bytes()?;
        str::from_utf8(bytes).map_err(|_| self.damaged(at, "a text is not in UTF-8".into()))
    }

    fn bytes(&mut self) -> Result<&'a [u8], CheckpointError> {
        let len = self.u64()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX), "a text")
    }

    fn u32(&mut self) -> Result<u32, CheckpointError> {
        let bytes = self.input.array();
        bytes.map(u32::from_le_bytes).ok_or_else(|| self.truncated("a number"))
    }

    fn u64(&mut self) -> Result<u64, CheckpointError> {
        let bytes = self.input.array();
        bytes.map(u64::from_le_bytes).ok_or_else(|| self.truncated("a number"))
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], CheckpointError> {
        self.input.take(len).ok_or_else(|| self.truncated(what))
    }

    fn truncated(&self, what: &str) -> CheckpointError {
        self.damaged(self.input.at(), format!("the file ends inside {what}"))
    }

    fn damaged(&self, at: usize, problem: String) -> CheckpointError {
        self.file.damaged(Container::Gguf, at, problem)
    }
}

#[cfg(test)]
mod tests;
