//! Checkpoints in several files: an index, `model.safetensors.index.json`, says which of the files
//! beside it holds which tensor.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    fmt,
    path::{Component, Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use super::{
    CheckpointError, Container, DecayForm, Index,
    map::{File, Map},
};

/// Bytes of the longest index that is read: a hundred times that of a large model.
const MAX_LEN: usize = 32 << 20;

/// How a folder names its checkpoint; the first that is there is read.
const NAMES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The file to open: the path itself, or the checkpoint in the folder that it names.
pub(super) fn locate(path: &Path) -> Result<PathBuf, CheckpointError> {
    if !path.is_dir() {
        return Ok(path.into());
    }
    NAMES.iter().map(|name| path.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        CheckpointError::Unsupported {
            path: path.into(),
            found: "a folder with no file of the usual names is".into(),
            expected: "`model.safetensors`, `pytorch_model.bin`, or either with `.index.json`",
            remedy: "give the checkpoint's file itself",
        }
    })
}

/// Whether the file is JSON, as an index is.
pub(super) fn recognise(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{") && !super::safetensors::recognise(bytes)
}

/// Opens every shard that the index names.
pub(super) fn open(file: File<'_>) -> Result<(Vec<Map>, Container, Index), CheckpointError> {
    let wrong = |problem| CheckpointError::Shards { path: file.path.into(), problem };
    let places = parse(file.bytes).map_err(wrong)?;
    let mut index = Index::new(DecayForm::Raw);
    let (mut maps, mut containers) = (Vec::new(), Vec::new());
    for shard in places.values().collect::<BTreeSet<_>>() {
        let map = match Map::open(&file.path.with_file_name(shard)) {
            Err(CheckpointError::Open { source, .. }) => {
                return Err(wrong(format!("shard `{shard}` cannot be opened ({source})")));
            }
            other => other?,
        };
        if recognise(map.file().bytes) {
            return Err(wrong(format!("shard `{shard}` is itself an index, expected tensors")));
        }
        let (container, found) = Index::read(map.file())?;
        if !matches!(container, Container::Safetensors | Container::TorchZip) {
            return Err(wrong(format!(
                "shard `{shard}` has the format \"{container}\", expected a safetensors file or a PyTorch zip"
            )));
        }
        for (name, mut entry) in found.entries {
            match places.get(&name) {
                Some(place) if place == shard => {}
                Some(place) => {
                    return Err(wrong(format!(
                        "tensor `{name}` is in shard `{shard}`, expected in `{place}`"
                    )));
                }
                None => {
                    return Err(wrong(format!(
                        "tensor `{name}` of shard `{shard}` is not in the index"
                    )));
                }
            }
            entry.file = maps.len();
            index.entries.insert(name, entry);
        }
        index.skipped.extend(found.skipped);
        maps.push(map);
        containers.push(container);
    }
    let is_there =
        |name: &String| index.entries.contains_key(name) || index.skipped.contains_key(name);
    if let Some((name, shard)) = places.iter().find(|(name, _)| !is_there(name)) {
        return Err(wrong(format!("tensor `{name}` is missing from shard `{shard}`")));
    }
    match containers.first() {
        Some(container) => Ok((maps, *container, index)),
        None => Err(wrong("the index names no tensor".into())),
    }
}

/// Which shard holds a tensor, by its name.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    #[derive(Deserialize)]
    struct List {
        weight_map: Places,
    }
    if bytes.len() > MAX_LEN {
        return Err(format!("is {} bytes long, expected at most {MAX_LEN}", bytes.len()));
    }
    let list: List = serde_json::from_slice(bytes)
        .map_err(|error| format!("is no index of shards in JSON ({error})"))?;
    let Places(places) = list.weight_map;
    match places.values().find(|shard| !is_plain(shard)) {
        Some(shard) => {
            Err(format!("shard `{}` is not a name in the index's own folder", shard.escape_debug()))
        }
        None => Ok(places),
    }
}

/// Whether a name stays in its folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let first = parts.next();
    matches!(first, Some(Component::Normal(part)) if part == name)
        && parts.next().is_none()
        && !name.contains(['\\', '\0'])
}

/// A map of texts in which no key appears twice.
struct Places(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Places;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensors to shards")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Places, M::Error> {
                let mut places = BTreeMap::new();
                while let Some((tensor, shard)) = map.next_entry()? {
                    match places.entry(tensor) {
                        btree_map::Entry::Vacant(place) => drop(place.insert(shard)),
                        btree_map::Entry::Occupied(place) => {
                            let problem = format!("tensor `{}` appears twice", place.key());
                            return Err(M::Error::custom(problem));
                        }
                    }
                }
                Ok(Places(places))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::checkpoint::Checkpoint;

    /// A safetensors file of one-element tensors, whose values count up.
    fn shard(names: &[&str]) -> Vec<u8> {
        let entry = |(i, name): (usize, &&str)| {
            let (start, end) = (4 * i, 4 * i + 4);
            format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{end}]}}"#)
        };
        let entries: Vec<String> = names.iter().enumerate().map(entry).collect();
        let header = format!("{{{}}}", entries.join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend((0..names.len()).flat_map(|i| (i as f32).to_le_bytes()));
        bytes
    }

    fn folder(index: &str, shards: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAMES[1]), index).unwrap();
        for (name, bytes) in shards {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn refusal(index: &str, shards: &[(&str, &[u8])]) -> String {
        let folder = folder(index, shards);
        Checkpoint::open(folder.path()).unwrap_err().to_string()
    }

    #[test]
    fn shards_are_one_checkpoint() {
        let index = r#" {"metadata":{"total_size":12},"weight_map":{"a":"1","b":"2","c":"1"}}"#;
        let folder = folder(index, &[("1", &shard(&["a", "c"])), ("2", &shard(&["b"]))]);
        for path in [folder.path().to_owned(), folder.path().join(NAMES[1])] {
            let checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(checkpoint.container(), Container::Safetensors);
            let values = ["a", "b", "c"].map(|name| checkpoint.read(name).unwrap().data);
            assert_eq!(values, [[0.0], [0.0], [1.0]]);
            let message = checkpoint.read("d").unwrap_err().to_string();
            assert!(message.contains(NAMES[1]) && message.contains("among its 3"), "{message}");
        }
    }

    #[test]
    fn a_folder_may_hold_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("expected `model.safetensors`"), "{message}");
        fs::write(folder.path().join(NAMES[0]), shard(&["a"])).unwrap();
        assert_eq!(Checkpoint::open(folder.path()).unwrap().entries().len(), 1);
    }

    #[test]
    fn an_index_that_does_not_fit_is_refused() {
        let index = |map: &str| format!(r#"{{"weight_map":{map}}}"#);
        let (a, b) = (shard(&["a"]), shard(&["b"]));
        let shards = [("1", &a[..]), ("2", &b[..])];
        for (map, expected) in [
            (r#"{"a":"../1"}"#, "shard `../1` is not a name in the index's own folder"),
            (r#"{"a":"/1"}"#, "shard `/1` is not a name"),
            (r#"{"a":"."}"#, "shard `.` is not a name"),
            (r#"{"a":"x/../1"}"#, "shard `x/../1` is not a name"),
            (r#"{"a":"1/"}"#, "shard `1/` is not a name"),
            (r#"{"a":""}"#, "shard `` is not a name"),
            (r#"{"a":"3"}"#, "shard `3` cannot be opened"),
            (r#"{"a":"model.safetensors.index.json"}"#, "is itself an index"),
            (r#"{"a":"1","a":"2"}"#, "tensor `a` appears twice"),
            (r#"{"a":"2","b":"1"}"#, "tensor `a` is in shard `1`, expected in `2`"),
            (r#"{"b":"1","c":"1"}"#, "tensor `a` of shard `1` is not in the index"),
            (r#"{"a":"1","c":"1"}"#, "tensor `c` is missing from shard `1`"),
            ("{}", "names no tensor"),
            ("[]", "is no index of shards"),
            (r#"{"a":["1"]}"#, "is no index of shards"),
        ] {
            let message = refusal(&index(map), &shards);
            assert!(message.contains(expected), "{map}: {message}");
            assert!(message.contains("get the whole folder again"), "{message}");
        }
        assert!(refusal("{}", &shards).contains("missing field `weight_map`"));
        assert!(refusal(&"{\"a\":".repeat(9999), &shards).contains("EOF while parsing"));
    }

    #[test]
    fn a_shard_of_another_kind_is_refused() {
        let index = r#"{"weight_map":{"a":"1"}}"#;
        assert!(refusal(index, &[("1", b"text")]).contains("starts with the bytes"));
        let cpp: Vec<u8> = [0x6767_6d66, 101, 8, 4, 1, 0, 1, 1, 0, 1u32]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .chain([b'a', 0, 0, 0, 0])
            .collect();
        assert!(refusal(index, &[("1", &cpp)]).contains("format \"rwkv.cpp file\""));
    }
}
