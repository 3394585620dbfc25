//! The containers of checkpoints: what opens is read whole and converted.

use std::{cell::RefCell, fs, path::Path};

use rwkv_core::image::CRC;
use rwkv_host::{
    checkpoint::Checkpoint,
    convert::{ConvertError, Options, Weights, convert},
};
use rwkv_tests::containers;
use tempfile::TempDir;

use crate::with_file;

/// A `.pth` whose CRCs are right, so that changes of its members count.
pub fn torch(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    repair_zip(&mut bytes);
    with_file(&bytes, checkpoint);
}

/// The pickle of a `.pth`, with storages of zeros.
pub fn pickle(bytes: &[u8]) {
    let mut members = vec![("m/data.pkl".to_owned(), bytes.to_vec())];
    members.extend((0..STORAGES).map(|key| (format!("m/data/{key}"), vec![0; 960])));
    with_file(&containers::zip(&members), checkpoint);
}

/// As many as a small model has tensors.
const STORAGES: usize = 48;

/// A `.safetensors`.
pub fn safetensors(bytes: &[u8]) {
    with_file(bytes, checkpoint);
}

/// The index of a folder with two shards and the index itself.
pub fn shards(bytes: &[u8]) {
    thread_local! {
        static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| rwkv_tests::random::tiny_shards("7"));
        fs::write(folder.path().join("model.safetensors.index.json"), bytes).expect("written");
        checkpoint(folder.path());
    });
}

/// A `.bin` of rwkv.cpp.
pub fn rwkv_cpp(bytes: &[u8]) {
    with_file(bytes, checkpoint);
}

/// A GGUF file.
pub fn gguf(bytes: &[u8]) {
    with_file(bytes, checkpoint);
}

fn checkpoint(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    for name in checkpoint.entries().keys() {
        checkpoint.read(name).expect("what opened can be read");
    }
    for weights in [Weights::F32, Weights::Int8] {
        let image = convert(&checkpoint, &Options::new(weights), |_, _| {});
        assert!(!matches!(image, Err(ConvertError::Image(_))), "an image that is none");
    }
}

/// Makes the CRCs of all members right, as the central directory lists them.
fn repair_zip(bytes: &mut [u8]) {
    let is_entry = |at: &usize| bytes[*at..].starts_with(b"PK\x01\x02");
    let entries: Vec<usize> = (0..bytes.len()).filter(is_entry).collect();
    for entry in entries {
        let _ = repair_member(bytes, entry);
    }
}

fn repair_member(bytes: &mut [u8], entry: usize) -> Option<()> {
    let number = |at: usize, len: usize| {
        let number = bytes.get(at..at + len)?;
        Some(number.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    };
    let (size, local) = (number(entry + 20, 4)?, number(entry + 42, 4)?);
    let start = local + 30 + number(local + 26, 2)? + number(local + 28, 2)?;
    let crc = CRC.checksum(bytes.get(start..start + size)?).to_le_bytes();
    for at in [entry + 16, local + 14] {
        bytes.get_mut(at..at + 4)?.copy_from_slice(&crc);
    }
    Some(())
}
