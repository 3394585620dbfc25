//! The container of rwkv.cpp: a header, then name, shape and values of one tensor after the other.
//!
//! Its converter renames, joins, transposes and squeezes tensors and maps the decay of versions 4
//! and 5. All but the last is undone here, by views that cost nothing.

use std::collections::BTreeMap;

use super::{
    CheckpointError, Container, DecayForm, Index,
    map::{Cursor, File},
    tensor::{Dtype, View},
};

/// The first bytes of the file: 0x67676d66 in little-endian order.
pub(super) const MAGIC: &[u8] = b"fmgg";

/// Data types by their code in the file.
const TYPES: [&str; 17] = [
    "FP32", "FP16", "Q4_0", "Q4_1", "Q4_1_O", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K",
];

/// The token-shift weights of version 7, in the order in which the converter joins them.
const JOINED: &str = "x_rwkvag";
const PARTS: [&str; 6] = ["x_r", "x_w", "x_k", "x_v", "x_a", "x_g"];

pub(super) fn index(file: File<'_>) -> Result<Index, CheckpointError> {
    let (mut reader, width) = Reader::new(file)?;
    let mut stored = BTreeMap::new();
    while !reader.input.rest().is_empty() {
        let at = reader.input.at();
        let (name, view) = reader.tensor()?;
        if stored.insert(name, view).is_some() {
            return Err(reader.damaged(at, format!("tensor `{name}` appears twice")));
        }
    }
    let version = Version::detect(&stored);
    let mut index = Index::new(version.decay_form());
    for (name, view) in stored {
        let at = view.storage.start;
        let entry = official(version, width, name, view).check(file, name)?;
        let Some(prefix) = name.strip_suffix(JOINED) else {
            index.entries.insert(name.to_owned(), entry);
            continue;
        };
        let Some(parts) = entry.parts(PARTS.len()) else {
            let problem = format!("`{name}` has shape {:?}, expected [6, 1, C]", entry.shape);
            return Err(file.damaged(Container::RwkvCpp, at, problem));
        };
        for (part, entry) in PARTS.into_iter().zip(parts) {
            index.entries.insert(format!("{prefix}{part}"), entry);
        }
    }
    Ok(index)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V5,
    V6,
    V7,
}

impl Version {
    fn detect(tensors: &BTreeMap<&str, View>) -> Self {
        let has = |suffix: &str| tensors.contains_key(&*format!("blocks.0.att.{suffix}"));
        if has("k_k") {
            Self::V7
        } else if has("time_maa_x") {
            Self::V6
        } else if has("ln_x.weight") {
            Self::V5
        } else {
            Self::V4
        }
    }

    fn decay_form(self) -> DecayForm {
        match self {
            Self::V4 => DecayForm::NegExp,
            Self::V5 => DecayForm::ExpNegExp,
            Self::V6 | Self::V7 => DecayForm::Raw,
        }
    }
}

/// Undoes what the converter does to shapes. `width` is the model's.
fn official(version: Version, width: usize, name: &str, mut view: View) -> View {
    let part = name.rsplit_once("att.").map_or("", |(_, part)| part);
    if part.starts_with("time_") {
        // Dimensions of one are removed, and then some are appended.
        while let [.., _, 1] = view.shape[..] {
            view.shape.pop();
            view.strides.pop();
        }
    }
    match (version, part) {
        // One head as wide as the model, which has lost its dimension of one.
        (Version::V5, "time_decay" | "time_faaaa") | (Version::V6, "time_faaaa")
            if view.shape == [width] =>
        {
            view.shape.insert(0, 1);
            view.strides.insert(0, width);
        }
        // Stored per head, `[H, N]`.
        (Version::V6, "time_decay") => {
            view.shape = vec![view.shape.iter().fold(1, |n: usize, &m| n.saturating_mul(m))];
            view.strides = vec![1];
        }
        (Version::V6, "time_maa_w1" | "time_decay_w1" | "time_decay_w2")
        | (Version::V7, "w1" | "w2" | "a1" | "a2" | "v1" | "v2" | "g1" | "g2") => {
            swap_last(&mut view, 2);
        }
        (Version::V6, "time_maa_w2") => swap_last(&mut view, 3),
        _ => {}
    }
    view
}

/// Transposes the two innermost dimensions of a view of this rank.
fn swap_last(view: &mut View, rank: usize) {
    if view.shape.len() == rank {
        view.shape.swap(rank - 2, rank - 1);
        view.strides.swap(rank - 2, rank - 1);
    }
}

struct Reader<'a> {
    file: File<'a>,
    input: Cursor<'a>,
    /// Blocks had another layout before version 101.
    version: usize,
}

impl<'a> Reader<'a> {
    /// Reads the header: magic number, version, vocabulary, width, layers, data type. Of the model
    /// only the width is needed: sizes come from shapes, and each tensor names its own data type.
    fn new(file: File<'a>) -> Result<(Self, usize), CheckpointError> {
        let mut reader = Self { file, input: Cursor::new(file.bytes), version: 0 };
        let [_, version, _, width, _, _] = reader.words("the header")?;
        if !matches!(version, 100 | 101) {
            return Err(file.unsupported(
                format!("rwkv.cpp file version {version} is"),
                "version 100 or 101",
                "convert the checkpoint with a current rwkv.cpp",
            ));
        }
        reader.version = version;
        Ok((reader, width))
    }

    fn tensor(&mut self) -> Result<(&'a str, View), CheckpointError> {
        let at = self.input.at();
        let [rank, name_len, data_type] = self.words("the head of a tensor")?;
        if !(1..=3).contains(&rank) {
            let problem = format!("a tensor has {rank} dimensions, expected 1 to 3");
            return Err(self.damaged(at, problem));
        }
        let mut shape = Vec::with_capacity(rank);
        for _ in 0..rank {
            let [size] = self.words("a shape")?;
            shape.push(size);
        }
        shape.reverse();
        let name = self.take(name_len, "a name")?;
        let name = std::str::from_utf8(name)
            .map_err(|_| self.damaged(at, "the name of a tensor is not in UTF-8".into()))?;
        let found = TYPES
            .get(data_type)
            .map_or_else(|| format!("data type {data_type}"), |name| (*name).to_owned());
        let dtype = Dtype::named(&found).ok_or_else(|| self.foreign(name, &found))?;
        if matches!(dtype, Dtype::Quantised(_)) && self.version < 101 {
            return Err(self.foreign(name, &format!("{dtype} in a file of version 100")));
        }
        let Some(len) = dtype.bytes(&shape) else {
            let problem = format!(
                "{dtype} tensor `{name}` has shape {shape:?}, expected rows of whole blocks"
            );
            return Err(self.damaged(at, problem));
        };
        let start = self.input.at();
        self.take(len, name)?;
        Ok((name, View::contiguous(dtype, start..self.input.at(), shape)))
    }

    fn words<const N: usize>(&mut self, what: &str) -> Result<[usize; N], CheckpointError> {
        let mut words = [0; N];
        for word in &mut words {
            let bytes = self.input.array().ok_or_else(|| self.truncated(what))?;
            *word = u32::from_le_bytes(bytes) as usize;
        }
        Ok(words)
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], CheckpointError> {
        self.input.take(len).ok_or_else(|| self.truncated(what))
    }

    fn truncated(&self, what: &str) -> CheckpointError {
        self.damaged(self.input.at(), format!("the file ends inside {what}"))
    }

    fn damaged(&self, at: usize, problem: String) -> CheckpointError {
        self.file.damaged(Container::RwkvCpp, at, problem)
    }

    fn foreign(&self, tensor: &str, found: &str) -> CheckpointError {
        self.file.unsupported(
            format!("tensor `{tensor}`: {found} is"),
            "FP32, FP16, Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0 in a file of version 101",
            "convert from the FP32 or FP16 file",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const WIDTH: u32 = 4;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A file of FP16 tensors whose values count up from zero in each; shapes as in PyTorch.
    fn container(tensors: &[(&str, &[u32])]) -> Vec<u8> {
        let mut bytes = words(&[0x6767_6d66, 101, 8, WIDTH, 1, 1]);
        for (name, shape) in tensors {
            bytes.extend(words(&[shape.len() as u32, name.len() as u32, 1]));
            bytes.extend(shape.iter().rev().flat_map(|size| size.to_le_bytes()));
            bytes.extend(name.bytes());
            let count = shape.iter().product::<u32>();
            bytes.extend((0..count).flat_map(|i| half::f16::from_f32(i as f32).to_le_bytes()));
        }
        bytes
    }

    fn index_of(bytes: &[u8]) -> Result<Index, CheckpointError> {
        index(File { path: Path::new("memory"), bytes })
    }

    /// Shape and first values of a tensor of block 0 below `att`.
    fn check(stored: &[(&str, &[u32])], expected: &[(&str, &[usize], &[f32])], form: DecayForm) {
        let names: Vec<_> = stored.iter().map(|t| format!("blocks.0.att.{}", t.0)).collect();
        let stored: Vec<_> = names.iter().zip(stored).map(|(n, t)| (&n[..], t.1)).collect();
        let bytes = container(&stored);
        let index = index_of(&bytes).unwrap();
        assert_eq!(index.decay_form, form);
        for (name, shape, values) in expected {
            let tensor = index.entries[&format!("blocks.0.att.{name}")].read(&bytes);
            assert_eq!(
                (&tensor.shape[..], &tensor.data[..values.len()]),
                (*shape, *values),
                "{name}"
            );
        }
    }

    #[test]
    fn version_7_is_taken_apart() {
        check(
            &[("k_k", &[1, 1, 4]), ("w1", &[2, 4]), ("r_k", &[1, 4]), ("x_rwkvag", &[6, 1, 4])],
            &[
                ("k_k", &[4], &[0., 1.]),
                ("w1", &[4, 2], &[0., 4., 1., 5.]),
                ("r_k", &[1, 4], &[0., 1.]),
                ("x_r", &[4], &[0., 1., 2., 3.]),
                ("x_w", &[4], &[4.]),
                ("x_k", &[4], &[8.]),
                ("x_v", &[4], &[12.]),
                ("x_a", &[4], &[16.]),
                ("x_g", &[4], &[20., 21., 22., 23.]),
            ],
            DecayForm::Raw,
        );
    }

    #[test]
    fn version_6_is_transposed_back() {
        check(
            &[
                ("time_maa_x", &[4]),
                ("time_maa_w1", &[10, 4]),
                ("time_maa_w2", &[5, 4, 2]),
                ("time_decay", &[2, 2, 1]),
                ("time_decay_w1", &[3, 4]),
                ("time_decay_w2", &[4, 3]),
                ("time_faaaa", &[2, 2, 1]),
            ],
            &[
                ("time_maa_w1", &[4, 10], &[0., 4.]),
                ("time_maa_w2", &[5, 2, 4], &[0., 2., 4., 6., 1.]),
                ("time_decay", &[4], &[0., 1., 2., 3.]),
                ("time_decay_w1", &[4, 3], &[0., 4., 8., 1.]),
                ("time_decay_w2", &[3, 4], &[0., 3., 6., 9., 1.]),
                ("time_faaaa", &[2, 2], &[0., 1., 2., 3.]),
            ],
            DecayForm::Raw,
        );
    }

    #[test]
    fn versions_5_and_4_keep_their_mapped_decay() {
        check(
            &[("ln_x.weight", &[4]), ("time_decay", &[2, 2, 1]), ("time_faaaa", &[4, 1])],
            &[("time_decay", &[2, 2], &[0., 1., 2., 3.]), ("time_faaaa", &[1, 4], &[0., 1.])],
            DecayForm::ExpNegExp,
        );
        check(
            &[("ln_x.weight", &[4]), ("time_decay", &[2, 1, 1])],
            &[("time_decay", &[2], &[0., 1.])],
            DecayForm::ExpNegExp,
        );
        check(&[("time_decay", &[4])], &[("time_decay", &[4], &[0., 1.])], DecayForm::NegExp);
    }

    #[test]
    fn contradictions_are_refused() {
        let whole = container(&[("a", &[2, 3]), ("b", &[1])]);
        let first = container(&[("a", &[2, 3])]).len();
        for len in (0..whole.len()).filter(|&len| len != first && len != 24) {
            let error = index_of(&whole[..len]).unwrap_err();
            assert!(matches!(error, CheckpointError::Damaged { .. }), "{len} bytes: {error}");
        }
        for tensors in [
            &[("a", &[1][..]), ("a", &[1])][..],
            &[("blocks.0.att.x_rwkvag", &[5, 1, 4])],
            &[("a", &[1, 1, 1, 1])],
            &[("a", &[])],
        ] {
            let error = index_of(&container(tensors)).unwrap_err();
            assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
        }
        let mut huge = whole;
        huge[36..44].fill(0xff);
        assert!(matches!(index_of(&huge), Err(CheckpointError::Damaged { .. })));
    }

    #[test]
    fn foreign_versions_and_types_are_named() {
        let mut bytes = container(&[("a", &[2])]);
        bytes[24 + 8] = 99;
        assert!(index_of(&bytes).unwrap_err().to_string().contains("data type 99"));
        bytes[24 + 8] = 12;
        assert!(index_of(&bytes).unwrap_err().to_string().contains("`a`: Q3_K is not"));
        bytes[24 + 8] = 9;
        assert!(index_of(&bytes).unwrap_err().to_string().contains("expected rows of whole"));
        bytes[4] = 100;
        let message = index_of(&bytes).unwrap_err().to_string();
        assert!(message.contains("`a`: Q8_0 in a file of version 100 is not"), "{message}");
        bytes[4] = 102;
        assert!(index_of(&bytes).unwrap_err().to_string().contains("version 102"));
    }
}
