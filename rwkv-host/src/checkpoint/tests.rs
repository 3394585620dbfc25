//! Checkpoints that others made: two containers of one model agree.

use super::*;

/// Opens a checkpoint of the folder of shared models, if there is one.
fn open(name: &str) -> Option<Result<Checkpoint, CheckpointError>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models").join(name);
    if !path.exists() {
        println!("skipped: {} not found", path.display());
        return None;
    }
    Some(Checkpoint::open(&path))
}

#[test]
fn version_7_is_the_same_in_both_containers() {
    let Some(torch) = open("tiny-rwkv-7v0-834K.pth") else { return };
    let Some(cpp) = open("tiny-rwkv-7v0-834K-FP32.bin") else { return };
    let (torch, cpp) = (torch.unwrap(), cpp.unwrap());
    assert_eq!((torch.container(), cpp.container()), (Container::TorchZip, Container::RwkvCpp));
    assert_eq!((torch.decay_form(), cpp.decay_form()), (DecayForm::Raw, DecayForm::Raw));
    assert!(torch.entries().len() == 399 && torch.entries().keys().eq(cpp.entries().keys()));
    for name in torch.entries().keys() {
        let (a, b) = (torch.read(name).unwrap(), cpp.read(name).unwrap());
        assert_eq!(a.shape, b.shape, "{name}");
        let same = a.data.iter().map(|x| x.to_bits()).eq(b.data.iter().map(|x| x.to_bits()));
        assert!(same && a.data.len() == a.shape.iter().product::<usize>(), "{name}");
    }
    for (name, shape) in [
        ("emb.weight", &[256, 64][..]),
        ("blocks.0.att.x_g", &[64]),
        ("blocks.1.att.v1", &[64, 32]),
        ("blocks.0.att.r_k", &[1, 64]),
    ] {
        assert_eq!(cpp.get(name).unwrap().shape, shape, "{name}");
    }
}

#[test]
fn version_5_is_the_same_up_to_rounding() {
    let Some(torch) = open("tiny-rwkv-5v2-730K-bf16.pth") else { return };
    let Some(cpp) = open("tiny-rwkv-5v2-730K-FP32.bin") else { return };
    let (torch, cpp) = (torch.unwrap(), cpp.unwrap());
    assert_eq!((torch.decay_form(), cpp.decay_form()), (DecayForm::Raw, DecayForm::ExpNegExp));
    assert!(torch.entries().len() == 270 && torch.entries().keys().eq(cpp.entries().keys()));
    for (name, entry) in torch.entries() {
        assert_eq!(entry.dtype, Dtype::Bf16);
        let (a, b) = (torch.read(name).unwrap(), cpp.read(name).unwrap());
        assert_eq!(a.shape, b.shape, "{name}");
        let mapped = name.ends_with("att.time_decay");
        for (a, b) in a.data.iter().zip(b.data) {
            // Undo the map of the decay, which itself is rounded to 24 bits.
            let (b, own) = match f64::from(b) {
                b if mapped => ((-b.ln()).ln(), 1e-6 / b.ln().abs()),
                b => (b, 0.0),
            };
            let bound = b.abs() / 256.0 + own;
            assert!((f64::from(*a) - b).abs() <= bound, "{name}: {a} and {b}");
        }
    }
}

#[test]
fn names_are_the_files_own() {
    let Some(version_4) = open("tiny-rwkv-4v0-660K.pth") else { return };
    let Some(digits) = open("reverse-digits-rwkv7-40K.pth") else { return };
    let (version_4, digits) = (version_4.unwrap(), digits.unwrap());
    assert_eq!(version_4.read("blocks.3.att.time_mix_k").unwrap().shape, [128]);
    assert_eq!(digits.get("rwkv1.r_k").unwrap().shape, [2, 16]);
    assert!(matches!(digits.read("emb.weight"), Err(CheckpointError::Missing { count: 99, .. })));
    assert!(matches!(digits.read("_metadata"), Err(CheckpointError::Missing { .. })));
}

/// Within half a step of 31 between the least and the greatest value of each block, and what
/// rounding their scale to binary16 costs: 11 bits, or 2^-25 on each of 32 steps.
#[test]
fn quantised_files_are_close_to_what_they_were_made_of() {
    for (quantised, exact) in [
        ("tiny-rwkv-4v0-660K-Q5_1.bin", "tiny-rwkv-4v0-660K.pth"),
        ("tiny-rwkv-7v0-834K-Q5_1.bin", "tiny-rwkv-7v0-834K.pth"),
    ] {
        let (Some(quantised), Some(exact)) = (open(quantised), open(exact)) else { return };
        let (quantised, exact) = (quantised.unwrap(), exact.unwrap());
        assert!(quantised.entries().keys().eq(exact.entries().keys()));
        let mut blocks = 0;
        for (name, entry) in quantised.entries() {
            let (a, b) = (quantised.read(name).unwrap(), exact.read(name).unwrap());
            assert_eq!(a.shape, b.shape, "{name}");
            let Dtype::Quantised(kind) = entry.dtype else {
                let mapped = name.ends_with("time_decay");
                assert!(mapped || entry.dtype == Dtype::F16 || a == b, "{name}");
                continue;
            };
            assert_eq!(kind, Blocks::Q5_1);
            for (a, b) in a.data.chunks(32).zip(b.data.chunks(32)) {
                let (least, greatest) = b.iter().fold((f32::MAX, f32::MIN), |(low, high), x| {
                    (if *x < low { *x } else { low }, if *x > high { *x } else { high })
                });
                let bound = (greatest - least) * 0.51 / 31.0
                    + (least.abs() + greatest.abs()) / 2048.0
                    + 32.0 * 2f32.powi(-25);
                blocks += 1;
                assert!(
                    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= bound),
                    "{name}: {a:?} {b:?}"
                );
            }
        }
        assert!(blocks > 1000);
    }
}

/// The message with which a file of these bytes is refused.
fn refusal(bytes: &[u8]) -> String {
    Index::read(File { path: Path::new("memory"), bytes }).unwrap_err().to_string()
}

#[test]
fn unknown_and_empty_files_are_refused() {
    assert!(refusal(b"").contains("starts with the bytes []"));
    assert!(refusal(b"GGML\x03\0\0\0\0").contains("[47, 47, 4d, 4c, 03, 00, 00, 00]"));
    assert!(refusal(b"\x80\x02\x8a\x0al\xfc\x9cF").contains("before version 1.6"));
    assert!(refusal(b"\x02\0\0\0\0\0\0\0{}").contains("holds no tensor"));
}

#[test]
fn an_open_file_says_why_a_name_cannot_be_read() {
    let header = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
                     "b":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend([0, 0x3c, 0, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0]);
    let path = std::env::temp_dir().join(format!("rwkv-names-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(checkpoint.container(), Container::Safetensors);
    assert_eq!(checkpoint.read("a").unwrap(), Tensor { shape: vec![2], data: vec![1.0, -1.0] });
    let message = checkpoint.read("b").unwrap_err().to_string();
    assert!(message.contains("`b` holds I64 values"), "{message}");
    assert!(matches!(checkpoint.read("c"), Err(CheckpointError::Missing { count: 1, .. })));
}

/// Changes every byte of a file in three ways: what opens can be read.
pub(super) fn no_changed_byte_panics(
    whole: &[u8],
    index_of: impl Fn(&[u8]) -> Result<Index, CheckpointError>,
) {
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = whole.to_vec();
            changed[at] ^= flip;
            if let Ok(index) = index_of(&changed) {
                index.entries.values().for_each(|entry| drop(entry.read(&changed)));
            }
        }
    }
}
