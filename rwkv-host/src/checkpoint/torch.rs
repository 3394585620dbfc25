//! The container that `torch.save` writes: a zip archive of a pickle, which describes the tensors,
//! and one uncompressed member per storage.

use std::{collections::BTreeMap, io, ops::Range};

use rwkv_core::image::CRC;
use zip::{CompressionMethod, ZipArchive};

use super::{
    CheckpointError, Container, DecayForm, Index,
    map::File,
    pickle::{self, Item},
    tensor::{Dtype, View},
};

/// The first bytes of a zip archive.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// Whether the file is a bare pickle: what `torch.save` wrote before PyTorch 1.6.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
}

pub(super) fn index(file: File<'_>) -> Result<Index, CheckpointError> {
    let mut archive = Archive::open(file)?;
    let member = archive.pickle()?;
    let range = archive.member(&member)?;
    let root = member.strip_suffix(PICKLE).unwrap_or_default();
    archive.check_byte_order(root)?;
    let items = pickle::read(&file.bytes[range]).map_err(|source| CheckpointError::Pickle {
        path: file.path.into(),
        member: member.clone(),
        source,
    })?;
    let mut index = Index::new(DecayForm::Raw);
    for (name, item) in items {
        let tensor = match item {
            Item::Tensor(tensor) => tensor,
            Item::Other(found) => {
                index.skipped.insert(name.into(), found.into());
                continue;
            }
        };
        let dtype = match tensor.storage.class {
            "FloatStorage" => Dtype::F32,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::Bf16,
            other => {
                index.skipped.insert(name.into(), format!("a tensor of type {other}"));
                continue;
            }
        };
        let storage = archive.member(&format!("{root}data/{}", tensor.storage.key))?;
        let (offset, shape, strides) = (tensor.offset, tensor.shape, tensor.strides);
        let entry = View { dtype, storage, offset, shape, strides }.check(file, name)?;
        index.entries.insert(name.into(), entry);
    }
    Ok(index)
}

/// Name of the pickle, below a folder that is named after the file.
const PICKLE: &str = "data.pkl";

struct Archive<'a> {
    file: File<'a>,
    zip: ZipArchive<io::Cursor<&'a [u8]>>,
    /// Members whose CRC-32 was compared; tensors may share a storage.
    intact: BTreeMap<String, Range<usize>>,
}

impl<'a> Archive<'a> {
    fn open(file: File<'a>) -> Result<Self, CheckpointError> {
        let damaged = |error| {
            let problem = format!("the zip directory cannot be read ({error})");
            file.damaged(Container::TorchZip, file.bytes.len(), problem)
        };
        let zip = ZipArchive::new(io::Cursor::new(file.bytes)).map_err(damaged)?;
        Ok(Self { file, zip, intact: BTreeMap::new() })
    }

    fn pickle(&self) -> Result<String, CheckpointError> {
        let is_pickle = |name: &&str| name.rsplit('/').next() == Some(PICKLE);
        self.zip.file_names().find(is_pickle).map(str::to_owned).ok_or_else(|| {
            let found = "a zip archive without a `data.pkl` is";
            self.file.unsupported(
                found,
                "what `torch.save` writes",
                "give the checkpoint itself, unpacked if it is inside this archive",
            )
        })
    }

    /// The bytes of the file that hold a member.
    fn member(&mut self, name: &str) -> Result<Range<usize>, CheckpointError> {
        if let Some(range) = self.intact.get(name) {
            return Ok(range.clone());
        }
        let file = self.file;
        let damaged = |at, problem| file.damaged(Container::TorchZip, at, problem);
        let directory = self.zip.central_directory_start() as usize;
        let member = self
            .zip
            .index_for_name(name)
            .ok_or_else(|| damaged(directory, format!("member `{name}` is missing")))?;
        let member = self.zip.by_index_raw(member).map_err(|error| {
            damaged(directory, format!("member `{name}` cannot be read ({error})"))
        })?;
        if member.compression() != CompressionMethod::Stored || member.encrypted() {
            return Err(file.unsupported(
                format!("compressed or encrypted member `{name}` is"),
                "uncompressed members",
                "load it in PyTorch and save it again with `torch.save`, which does not compress",
            ));
        }
        let start = member.data_start();
        let end = start.checked_add(member.size()).filter(|&end| end <= file.bytes.len() as u64);
        let range = end.map(|end| start as usize..end as usize);
        let range = range.ok_or_else(|| {
            damaged(start as usize, format!("member `{name}` does not fit the file"))
        })?;
        if CRC.checksum(&file.bytes[range.clone()]) != member.crc32() {
            let problem = format!("the CRC-32 of member `{name}` does not match its bytes");
            return Err(damaged(start as usize, problem));
        }
        drop(member);
        self.intact.insert(name.to_owned(), range.clone());
        Ok(range)
    }

    /// Checkpoints say their byte order since PyTorch 2.1; before that they are little-endian.
    fn check_byte_order(&mut self, root: &str) -> Result<(), CheckpointError> {
        let name = format!("{root}byteorder");
        if self.zip.index_for_name(&name).is_none() {
            return Ok(());
        }
        let range = self.member(&name)?;
        match &self.file.bytes[range] {
            b"little" => Ok(()),
            other => Err(self.file.unsupported(
                format!("byte order `{}` is", other.escape_ascii()),
                "`little`",
                "save the checkpoint again on a little-endian machine",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::Path};

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::checkpoint::pickle::tests::{dict, tensor, text};

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in members {
            zip.start_file(*name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn index_of(bytes: &[u8]) -> Result<Index, CheckpointError> {
        index(File { path: Path::new("memory"), bytes })
    }

    /// Two bytes for each of six values, 0.0 to 5.0 in BF16.
    fn values() -> Vec<u8> {
        (0..6).flat_map(|i| ((i as f32).to_bits() >> 16).to_le_bytes()[..2].to_vec()).collect()
    }

    fn sample() -> Vec<u8> {
        let class = "BFloat16Storage";
        let pickle = dict(&[
            ("whole", tensor(class, "0", 0, &[2, 3], &[3, 1])),
            ("transposed", tensor(class, "0", 0, &[3, 2], &[1, 3])),
            ("column", tensor(class, "0", 2, &[2], &[3])),
            ("steps", tensor("LongStorage", "1", 0, &[1], &[1])),
            ("text", text("x")),
        ]);
        archive(&[("m/data.pkl", &pickle), ("m/byteorder", b"little"), ("m/data/0", &values())])
    }

    #[test]
    fn views_of_a_shared_storage_are_read() {
        let bytes = sample();
        let index = index_of(&bytes).unwrap();
        let read = |name: &str| index.entries[name].read(&bytes).data;
        assert_eq!(read("whole"), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(read("transposed"), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(read("column"), [2., 5.]);
        assert_eq!(index.skipped["steps"], "a tensor of type LongStorage");
        assert_eq!(index.skipped["text"], "text");
    }

    /// As the package `rwkv` leaves them in a model that it prepared: by these it is known.
    #[test]
    fn numbers_beside_the_tensors_are_listed() {
        let version = [&b"G"[..], &5.2f64.to_be_bytes()].concat();
        let pickle = dict(&[("_strategy", text("cpu fp32")), ("_version", version)]);
        let index = index_of(&archive(&[("m/data.pkl", &pickle)])).unwrap();
        assert_eq!(index.skipped["_strategy"], "text");
        assert_eq!(index.skipped["_version"], "a number");
    }

    #[test]
    fn views_beyond_the_storage_are_refused() {
        for (offset, shape) in [(1, [2, 3]), (0, [3, 3]), (0, [i32::MAX, i32::MAX]), (255, [1, 1])]
        {
            let pickle = dict(&[("a", tensor("HalfStorage", "0", offset, &shape, &[3, 1]))]);
            let bytes = archive(&[("m/data.pkl", &pickle), ("m/data/0", &values())]);
            let error = index_of(&bytes).unwrap_err();
            assert!(matches!(error, CheckpointError::Bounds { available: 6, .. }), "{error}");
        }
    }

    #[test]
    fn what_is_missing_or_foreign_is_named() {
        let pickle = dict(&[("a", tensor("FloatStorage", "5", 0, &[1], &[1]))]);
        let message = |members: &[_]| {
            let error = index_of(&archive(members)).unwrap_err();
            format!("{:#}", anyhow::Error::from(error))
        };
        assert!(message(&[("m/data.pkl", &pickle)]).contains("`m/data/5` is missing"));
        assert!(message(&[("readme", b"")]).contains("without a `data.pkl`"));
        assert!(message(&[("m/data.pkl", b"cos\nsystem\n")]).contains("`os.system` is refused"));
        let big = [("m/data.pkl", &pickle[..]), ("m/byteorder", b"big")];
        assert!(message(&big).contains("byte order `big`"));
    }

    #[test]
    fn compressed_members_are_refused() {
        let mut bytes = sample();
        // The compression method of the first record of the directory.
        let record = bytes.windows(4).position(|word| word == b"PK\x01\x02").unwrap();
        bytes[record + 10] = 8;
        let message = index_of(&bytes).unwrap_err().to_string();
        assert!(message.contains("compressed") && message.contains("torch.save"), "{message}");
    }

    #[test]
    fn no_prefix_or_changed_byte_panics() {
        let whole = sample();
        for len in 0..whole.len() {
            assert!(index_of(&whole[..len]).is_err(), "{len} bytes");
        }
        crate::checkpoint::tests::no_changed_byte_panics(&whole, index_of);
    }
}
