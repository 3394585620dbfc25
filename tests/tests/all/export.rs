//! Images as checkpoints that other runtimes read: `rwkv export`.

use std::collections::{BTreeMap, BTreeSet};

use rwkv_core::{
    Image,
    image::{Format, Id},
};
use rwkv_host::{
    checkpoint::Checkpoint,
    convert::with_start,
    export::{Export, Start, values},
    file::ImageFile,
    memory::Memory,
};
use rwkv_tests::{
    formats, image_with,
    random::{self, Container, VERSIONS},
    step,
};

/// An image after it was exported and converted again, in f32.
fn again(image: &Image<'_>) -> (Checkpoint, ImageFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("exported.safetensors");
    Export::new(image).unwrap().write(&path, || ()).unwrap();
    (Checkpoint::open(&path).unwrap(), image_with(&path, &formats()[0].1))
}

/// The values of every record but the embedding, bit by bit, and those of the embedding.
fn records(image: &Image<'_>) -> (BTreeMap<String, Vec<u32>>, Vec<f32>) {
    let (mut all, mut embedding) = (BTreeMap::new(), Vec::new());
    image
        .walk(|request, found| {
            let values = values(found);
            if request.id == Id::Embedding {
                embedding = values;
            } else {
                let name = format!("{:?} {:?}", request.layer, request.id);
                all.insert(name, values.iter().map(|x| x.to_bits()).collect());
            }
            Ok(())
        })
        .unwrap();
    (all, embedding)
}

/// Whatever the format, f32 values come back with their bits, decays among them. The embedding
/// goes through a norm; of integers, what no norm gives is lost.
#[test]
fn exported_values_are_those_of_the_image() {
    for version in VERSIONS {
        let file = random::checkpoint(version, Container::Safetensors);
        for (name, options) in formats() {
            let image = image_with(file.path(), &options);
            let image = image.open().unwrap();
            let (_, back) = again(&image);
            let ((wanted, table), (found, embedding)) =
                (records(&image), records(&back.open().unwrap()));
            for (record, values) in &wanted {
                assert!(found[record] == *values, "{version} {name}: {record}");
            }
            let power = table.iter().map(|x| x * x).sum::<f32>();
            let errors = table.iter().zip(&embedding).map(|(a, b)| (a - b) * (a - b));
            let error = (errors.sum::<f32>() / power).sqrt();
            let least = match name {
                "f32" => 2e-7,
                "f16" => 1e-4,
                _ => 2e-3,
            };
            println!("{version} {name}: embedding off by {error:.1e}");
            assert!(error < least, "{version} {name}: embedding off by {error:e}");
        }
    }
}

/// The same image gives the same bytes.
#[test]
fn an_export_is_reproducible() {
    let file = random::checkpoint(VERSIONS[0], Container::Safetensors);
    let image = image_with(file.path(), &formats()[0].1);
    let image = image.open().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let export = |name: String| {
        let path = dir.path().join(name);
        Export::new(&image).unwrap().write(&path, || ()).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = export("first".into());
    assert!((0..16).all(|again| export(again.to_string()) == first));
}

/// Names and shapes are those of the checkpoint; values of a float image are near its own.
#[test]
fn exported_tensors_are_those_of_the_checkpoint() {
    for version in VERSIONS {
        let file = random::checkpoint(version, Container::Safetensors);
        let original = Checkpoint::open(file.path()).unwrap();
        let image = image_with(file.path(), &formats()[0].1);
        let (exported, _) = again(&image.open().unwrap());
        let names =
            |checkpoint: &Checkpoint| checkpoint.entries().keys().cloned().collect::<BTreeSet<_>>();
        // Version 7 does not use some of the first layer's.
        let unused = |name: &&String| name.starts_with("blocks.0.att.v") && name.len() == 15;
        let difference: Vec<String> =
            names(&original).symmetric_difference(&names(&exported)).cloned().collect();
        assert!(difference.iter().all(|name| unused(&name)), "{version}: {difference:?}");
        for (name, entry) in exported.entries() {
            let before = original.read(name).unwrap();
            let count = |shape: &[usize]| shape.iter().product::<usize>();
            // Version 5.1 keeps a value per head where 5.2 keeps one per channel.
            let spread = count(&entry.shape) / count(&before.shape).max(1);
            if spread == 1 {
                assert_eq!(exported.read(name).unwrap().shape, before.shape, "{version}: {name}");
            }
            if name.contains("emb") {
                continue;
            }
            let after = exported.read(name).unwrap().data;
            for (i, after) in after.iter().enumerate() {
                let before = before.data[i / spread];
                assert!((after - before).abs() <= 1e-5 * before.abs(), "{version}: {name} at {i}");
            }
        }
    }
}

fn error(a: &[f32], b: &[f32]) -> f32 {
    let power = a.iter().map(|x| x * x).sum::<f32>();
    let errors = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    (errors / power.max(f32::MIN_POSITIVE)).sqrt()
}

/// Rounding to eight bits errs by a fraction of a per cent, to four by ten; rows in the wrong
/// place by all.
#[test]
fn values_of_every_format_are_near_the_floats() {
    for version in VERSIONS {
        let file = random::checkpoint(version, Container::Safetensors);
        let float = image_with(file.path(), &formats()[0].1);
        let mut floats = Vec::new();
        float
            .open()
            .unwrap()
            .walk(|_, found| {
                floats.push(values(found));
                Ok(())
            })
            .unwrap();
        for (name, options) in formats() {
            let image = image_with(file.path(), &options);
            let mut floats = floats.iter();
            image
                .open()
                .unwrap()
                .walk(|request, found| {
                    let error = error(floats.next().unwrap(), &values(found));
                    let most = match found.record.format {
                        Format::F32 => 0.0,
                        Format::F16 => 1e-3,
                        Format::Int8 => 1e-2,
                        _ => 0.15,
                    };
                    assert!(error <= most, "{version} {name}: {:?} off by {error}", request.id);
                    Ok(())
                })
                .unwrap();
        }
    }
}

/// What another implementation computed of the checkpoint holds for what was exported of it.
#[test]
fn exported_models_have_the_logits_of_the_checkpoint() {
    for version in VERSIONS {
        let file = random::checkpoint(version, Container::Safetensors);
        let image = image_with(file.path(), &formats()[0].1);
        let (_, back) = again(&image.open().unwrap());
        let back = back.open().unwrap();
        let (tokens, expected) = random::expected(version);
        let (_, logits) = step(&mut Memory::new(&back), &back, &tokens).unwrap();
        let expected = &expected[expected.len() - logits.len()..];
        let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        let most = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{version}: {:.1e} of the largest logit", most / largest);
        assert!(most <= 1e-4 * largest, "{version}: {most}");
    }
}

/// Tuned states come back with their bits; other start states are left out.
#[test]
fn start_states_are_exported_where_a_checkpoint_can_hold_them() {
    for version in ["5.0", "5.1", "5.2", "6", "7", "7a"] {
        let file = random::tuned(version);
        let original = Checkpoint::open(file.path()).unwrap();
        let image = image_with(file.path(), &formats()[0].1);
        let image = image.open().unwrap();
        assert_eq!(Export::new(&image).unwrap().start(), Start::Tuned);
        let (exported, _) = again(&image);
        for layer in 0..image.header().dims.layers {
            let name = format!("blocks.{layer}.att.time_state");
            let [found, wanted] = [&exported, &original].map(|file| file.read(&name).unwrap());
            assert_eq!(found.shape, wanted.shape);
            assert!(found.data == wanted.data, "{version}: {name}");
        }

        let mut words: Vec<f32> = image.start_state().unwrap().collect();
        words[0] = 1.0;
        let more = ImageFile::new(&with_start(&image, Some(&words)).unwrap());
        let export = Export::new(&more.open().unwrap()).unwrap();
        assert_eq!(export.start(), Start::LeftOut);
        let plain = ImageFile::new(&with_start(&image, None).unwrap());
        let plain = Export::new(&plain.open().unwrap()).unwrap();
        assert_eq!((plain.start(), plain.len()), (Start::Empty, export.len()));
    }
}
