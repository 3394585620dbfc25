//! The safetensors container: a JSON header, then the values of one tensor after the other.

use ::safetensors::{Dtype as Stored, SafeTensors};

use super::{
    CheckpointError, Container, DecayForm, Index,
    map::File,
    tensor::{Dtype, View},
};

/// Bytes of the length that precedes the header.
const PREFIX: usize = size_of::<u64>();

/// Whether the file starts like this container, which has no magic number: a length, within the
/// file, of a header that is a JSON object.
pub(super) fn recognise(bytes: &[u8]) -> bool {
    bytes.split_first_chunk().is_some_and(|(&len, header)| {
        header.first() == Some(&b'{') && u64::from_le_bytes(len) <= header.len() as u64
    })
}

pub(super) fn index(file: File<'_>) -> Result<Index, CheckpointError> {
    let damaged = |e| file.damaged(Container::Safetensors, 0, format!("the header is wrong ({e})"));
    let (header, metadata) = SafeTensors::read_metadata(file.bytes).map_err(damaged)?;
    let data = PREFIX + header;
    let mut index = Index::new(DecayForm::Raw);
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Stored::F32 => Dtype::F32,
            Stored::F16 => Dtype::F16,
            Stored::BF16 => Dtype::Bf16,
            other => {
                index.skipped.insert(name, format!("{other:?} values"));
                continue;
            }
        };
        let (start, end) = info.data_offsets;
        let view = View::contiguous(dtype, data + start..data + end, info.shape.clone());
        let entry = view.check(file, &name)?;
        index.entries.insert(name, entry);
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A file with `header`, and `len` bytes of data that count up from zero.
    fn container(header: &str, len: u8) -> Vec<u8> {
        let prefix = (header.len() as u64).to_le_bytes();
        prefix.into_iter().chain(header.bytes()).chain(0..len).collect()
    }

    fn index_of(bytes: &[u8]) -> Result<Index, CheckpointError> {
        index(File { path: Path::new("memory"), bytes })
    }

    #[test]
    fn floats_are_listed_and_others_skipped() {
        let bytes = container(
            r#"{"a":{"dtype":"F32","shape":[1,1,2],"data_offsets":[0,8]},
                "b":{"dtype":"BF16","shape":[2,1],"data_offsets":[8,12]},
                "c":{"dtype":"F16","shape":[],"data_offsets":[12,14]},
                "d":{"dtype":"I64","shape":[1],"data_offsets":[14,22]}}"#,
            22,
        );
        assert!(recognise(&bytes));
        let index = index_of(&bytes).unwrap();
        let read = |name: &str| index.entries[name].read(&bytes);
        assert_eq!(read("a").shape, [2]);
        assert_eq!(read("a").data[1].to_bits(), 0x0706_0504);
        assert_eq!(read("b").shape, [2, 1]);
        assert_eq!(read("b").data[0].to_bits(), 0x0908_0000);
        assert_eq!(read("c").data.len(), 1);
        assert_eq!(index.skipped["d"], "I64 values");
    }

    #[test]
    fn contradictions_are_refused() {
        let tensor = |shape, offsets| {
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        for (header, len) in [
            (tensor("[2]", "[0,8]"), 7),
            (tensor("[3]", "[0,8]"), 8),
            (tensor("[2]", "[8,0]"), 8),
            (tensor("[18446744073709551615,2]", "[0,8]"), 8),
            (tensor("[-1]", "[0,4]"), 4),
            ("{".into(), 8),
        ] {
            let error = index_of(&container(&header, len)).unwrap_err();
            assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
        }
    }

    #[test]
    fn recognised_by_the_header() {
        assert!(!recognise(b""));
        assert!(!recognise(b"\x01\0\0\0\0\0\0\0["));
        assert!(!recognise(b"\xff\xff\xff\xff\xff\xff\xff\xff{}"));
        assert!(recognise(b"\x02\0\0\0\0\0\0\0{}"));
    }
}
