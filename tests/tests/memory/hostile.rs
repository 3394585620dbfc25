//! Hostile files: each ends in an error within a second and in bounded memory. The package `fuzz`
//! looks for others.

use std::{fs, path::Path, time::Instant};

use rwkv_core::image::{HEADER_BYTES, SECTION_BYTES};
use rwkv_host::{
    checkpoint::Checkpoint,
    convert::{Options, Weights, convert},
    file::ImageFile,
    memory::Memory,
    state,
    tokenizer::List,
};
use rwkv_tests::{
    containers::zip,
    damage::repair_section,
    random::{self, Container, VERSIONS},
    repair_header, seeds,
};

use crate::{ALLOCATOR, ALONE};

/// Bytes that a reader may allocate from first to last, freed or not, beside 128 for each byte of
/// the file.
const ALLOWANCE: usize = 1 << 20;

/// Measures one reading of `len` bytes; returns the error.
fn measured(what: &str, len: usize, read: impl FnOnce() -> Result<(), String>) -> String {
    let (start, before) = (Instant::now(), ALLOCATOR.total_allocated());
    let error = read().expect_err(what);
    let (time, used) = (start.elapsed(), ALLOCATOR.total_allocated() - before);
    assert!(time.as_secs() < 1, "{what}: {time:?}");
    assert!(used <= ALLOWANCE + 128 * len, "{what}: {used} bytes for a file of {len}");
    error
}

/// The error of a checkpoint that cannot be opened, or not be converted.
fn checkpoint(what: &str, bytes: &[u8]) -> String {
    let file = random::file(bytes);
    measured(what, bytes.len(), || open(file.path()))
}

fn open(path: &Path) -> Result<(), String> {
    let checkpoint = Checkpoint::open(path).map_err(|error| format!("{error:?}"))?;
    let image = convert(&checkpoint, &Options::new(Weights::F32), |_, _| {});
    image.map(|_| ()).map_err(|error| format!("{error:?}"))
}

#[track_caller]
fn contains(error: &str, expected: &str) {
    assert!(error.contains(expected), "{error}: expected {expected}");
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn hostile_files_end_soon_and_small() {
    let _alone = ALONE.lock();
    zip_bombs();
    other_opcodes();
    shapes_that_overflow();
    shared_values();
    overlapping_sections();
    recursive_shards();
    cut_files();
}

fn zip_bombs() {
    let good = random::tiny("7", Container::Torch);
    let find = |signature: &[u8]| -> Vec<usize> {
        (0..good.len()).filter(|at| good[*at..].starts_with(signature)).collect()
    };
    let (local, central) = (find(b"PK\x03\x04"), find(b"PK\x01\x02"));
    for member in [0, 1] {
        let with = |method: u8, stored: u32, whole: u32| {
            let mut bytes = good.clone();
            for at in [local[member] + 8, central[member] + 10] {
                bytes[at] = method;
                bytes[at + 10..at + 14].copy_from_slice(&stored.to_le_bytes());
                bytes[at + 14..at + 18].copy_from_slice(&whole.to_le_bytes());
            }
            bytes
        };
        let error = checkpoint("deflated", &with(8, 64, u32::MAX - 1));
        contains(&error, "compressed or encrypted");
        checkpoint("stored", &with(0, u32::MAX - 1, u32::MAX - 1));
    }
    // Every member is the first one's bytes.
    let mut bytes = good.clone();
    for entry in &central {
        bytes[entry + 42..entry + 46].fill(0);
    }
    checkpoint("members in one place", &bytes);
}

fn other_opcodes() {
    let pickle = |code: &[u8]| {
        let pickle = [b"\x80\x02}".as_slice(), code, b"."].concat();
        checkpoint(&format!("pickle {code:?}"), &zip(&[("m/data.pkl".to_owned(), pickle)]))
    };
    (0..=255).for_each(|code| drop(pickle(&[code])));
    contains(&pickle(b"cos\nsystem\n"), "os.system");
    contains(&pickle(b"\x93"), "Malformed");
    contains(&pickle(b"(i"), "Opcode");
    // Tuples of tuples: a million of the last one's ends.
    let mut nested = b"K\x01q\x00".to_vec();
    (0..20).for_each(|i| nested.extend([b'h', i, b'h', i, 0x86, b'q', i + 1]));
    pickle(&nested);
    pickle(&b"(".repeat(1 << 16));
    pickle(&b"}".repeat(1 << 16));
}

fn shapes_that_overflow() {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let longs = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    for shape in ["[4294967296,4294967296,4]", "[18446744073709551615,2]", "[1099511627776]"] {
        let header =
            format!(r#"{{"emb.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}}}"#);
        let bytes = [&longs(&[header.len() as u64])[..], header.as_bytes(), &[0; 8]].concat();
        contains(&checkpoint(shape, &bytes), "Damaged");
    }
    let mut cpp = words(&[0x6767_6d66, 101, 8, 4, 1, 0, 3, 1, 0, u32::MAX, u32::MAX, u32::MAX]);
    cpp.push(b'a');
    contains(&checkpoint("rwkv.cpp", &cpp), "Damaged");
    let mut gguf = random::tiny("7", Container::Gguf);
    let name = b"token_embd.weight";
    let at = gguf.windows(name.len()).position(|part| part == name).expect("the tensor");
    let sizes = at + name.len() + 4;
    for size in [u64::MAX, 1 << 62, 1 << 32] {
        gguf[sizes..sizes + 16].copy_from_slice(&longs(&[size, size]));
        contains(&checkpoint("GGUF", &gguf), "Damaged");
    }
    let mut torch = random::sharing(1);
    let at = torch.windows(4).position(|part| part == 64u32.to_le_bytes()).expect("a size");
    torch[at..at + 4].copy_from_slice(&i32::MAX.to_le_bytes());
    checkpoint("PyTorch", &torch);
}

/// Views of one storage promise more than there is.
fn shared_values() {
    let file = random::file(&random::sharing(4));
    assert_eq!(Checkpoint::open(file.path()).expect("it opens").entries().len(), 4);
    contains(&checkpoint("shared", &random::sharing(5)), "Shared");
}

fn overlapping_sections() {
    let good = random::tiny_image();
    let sections = usize::from(good.open().expect("it opens").header().section_count());
    for section in 1..sections {
        for back in [16u32, 32] {
            let mut file = good.clone();
            let bytes = file.bytes_mut();
            let entry = HEADER_BYTES + section * SECTION_BYTES + 4;
            let offset = u32::from_le_bytes(bytes[entry..entry + 4].try_into().expect("4"));
            bytes[entry..entry + 4].copy_from_slice(&(offset - back).to_le_bytes());
            repair_section(bytes, section);
            repair_header(bytes);
            let error = measured("overlap", bytes.len(), || image(&file));
            contains(&error, &format!("SectionTable {{ section: {section} }}"));
        }
    }
}

fn image(file: &ImageFile) -> Result<(), String> {
    file.open().map(|_| ()).map_err(|error| format!("{error:?}"))
}

fn recursive_shards() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "model.safetensors.index.json";
    for shard in [name, "other.json", "../x", "."] {
        let index = format!(r#"{{"weight_map":{{"emb.weight":"{shard}"}}}}"#);
        fs::write(folder.path().join(name), &index).expect("written");
        fs::write(folder.path().join("other.json"), &index).expect("written");
        let error = measured(shard, index.len(), || open(folder.path()));
        contains(&error, "Shards");
    }
    let deep = "{\"weight_map\":".repeat(1 << 16);
    fs::write(folder.path().join(name), &deep).expect("written");
    contains(&measured("deep", deep.len(), || open(folder.path())), "Shards");
}

/// Cut anywhere, also where a tensor ends.
fn cut_files() {
    use Container::{Gguf, RwkvCpp, Safetensors, Torch};
    for (container, versions) in [
        (Torch, &VERSIONS[..]),
        (Safetensors, &VERSIONS),
        (RwkvCpp, &["4", "5.2", "6", "7"]),
        (Gguf, &["6", "7"]),
    ] {
        for version in versions {
            let whole = random::tiny(version, container);
            for len in (0..whole.len()).step_by(whole.len() / 37 + 1).chain([whole.len() - 1]) {
                checkpoint(&format!("{version}, {container:?}, {len} bytes"), &whole[..len]);
            }
        }
    }
    let good = random::tiny_image();
    for len in 0..good.bytes().len() {
        let file = ImageFile::new(&good.bytes()[..len]);
        contains(&measured("image", len, || image(&file)), "Truncated");
    }
    let seed = |target: &str| {
        let mut all = seeds::all();
        let at = all.iter().position(|(name, _)| *name == target).expect("a target");
        all.swap_remove(at).1.swap_remove(0)
    };
    let (saved, list) = (seed("state"), seed("tokens"));
    let image = good.open().expect("it opens");
    let mut memory = Memory::new(&image);
    for len in 0..saved.len() {
        measured("state", len, || match state::restore(&image, &mut memory, &saved[..len]) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:?}")),
        });
    }
    // The last lines may be missing.
    for len in 0..list.len() / 2 {
        measured("list", len, || List::parse(&list[..len]).map(|_| ()).map_err(|e| e.to_string()));
    }
}
