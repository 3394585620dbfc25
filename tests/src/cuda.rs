//! The CUDA executor against steps, on whatever device: the suite of the tests and of the program
//! `cuda-check`.

use std::path::Path;

use rwkv_core::Image;
use rwkv_host::{
    memory::Memory,
    prefill::cuda::{Driver, Options, Prefill, Products},
};

use crate::{
    formats, image_with,
    random::{self, Container, VERSIONS},
    shipped, step, text, xorshift,
};

/// Ways to run a prompt, none of which may show in a bit.
pub const WAYS: [Options; 3] = [
    Options { piece: 64, slab: 24, products: Products::Tensor },
    Options { piece: 33, slab: 64, products: Products::Tensor },
    Options { piece: 16, slab: 7, products: Products::Dot4 },
];

/// Runs the pieces of a prompt; compares the digest of each token and the last logits with those
/// of steps from the same state.
///
/// # Errors
/// What differs, or what failed.
///
/// # Panics
/// If the image cannot be stepped.
pub fn compare<D: Driver>(
    device: D,
    options: Options,
    image: &Image<'_>,
    start: &Memory,
    pieces: &[&[u32]],
) -> Result<(), String> {
    let expected = step(&mut start.clone(), image, &pieces.concat()).expect("it steps");
    let failed = |error: rwkv_host::prefill::cuda::CudaError| error.to_string();
    let prefill = Prefill::new(device, image, options).map_err(failed)?;
    let mut memory = start.clone();
    let mut logits = vec![0.0; image.header().dims.vocab as usize];
    let mut found = Vec::new();
    for piece in pieces {
        let state = memory.state(image).expect("it fits");
        let sinks = &mut [logits.as_mut_slice()];
        found.extend(prefill.digests(state, piece, sinks).map_err(failed)?);
    }
    let same = found.iter().zip(&expected.0).take_while(|(found, expected)| found == expected);
    let same = same.count();
    if same < expected.0.len() {
        return Err(format!("token {same} of {} has another digest", expected.0.len()));
    }
    if logits != expected.1 { Err("the last logits differ".to_owned()) } else { Ok(()) }
}

/// Takes the name of a case and how it ended.
pub type Done<'a> = &'a mut dyn FnMut(&str, Result<(), String>);

/// Every format of a checkpoint, in some of the ways.
fn each_format<D: Driver>(
    device: &impl Fn(usize) -> D,
    name: &str,
    checkpoint: &Path,
    (prompt, ways): (&[u32], usize),
    done: Done<'_>,
) {
    for (index, (format, options)) in formats().iter().enumerate() {
        let file = image_with(checkpoint, options);
        let image = file.open().expect("it opens");
        for way in index..index + ways {
            let (first, second) = prompt.split_at([prompt.len(), 17, 40][way % 3]);
            let pieces = [first, second];
            let pieces = if second.is_empty() { &pieces[..1] } else { &pieces };
            let (start, options) = (Memory::new(&image), WAYS[way % 3]);
            let result = compare(device(way % 3), options, &image, &start, pieces);
            done(&format!("version {name}, {format}, way {}", way % 3), result);
        }
    }
}

/// Every version in every format and every way. `device` gets the number of a way.
pub fn versions<D: Driver>(device: &impl Fn(usize) -> D, done: Done<'_>) {
    for version in VERSIONS {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        each_format(device, version, checkpoint.path(), (&text(70, 3), 3), done);
    }
}

/// Heads of 64, as released models have them, whose states are kept in registers.
pub fn released<D: Driver>(device: &impl Fn(usize) -> D, done: Done<'_>) {
    for version in ["5.2", "6", "7"] {
        let name = format!("{version} with heads of 64");
        let checkpoint = random::released(version);
        each_format(device, &name, checkpoint.path(), (&text(41, 8), 1), done);
    }
}

/// The models that ship: several blocks of rows and stages of inputs, and heads of 32.
pub fn shipping<D: Driver>(device: &impl Fn(usize) -> D, done: Done<'_>) {
    for model in ["tunes-v4", "tunes-v7"] {
        each_format(device, model, &shipped(model), (&text(45, 5), 1), done);
    }
}

/// Prompts of 1 to 1,000 tokens in random pieces, from random states.
///
/// # Panics
/// If there is no such model.
pub fn lengths<D: Driver>(device: &impl Fn(usize) -> D, done: Done<'_>) {
    let mut word = xorshift(9);
    for (index, version) in ["4", "5.2", "6", "7", "7a"].into_iter().enumerate() {
        let checkpoint = random::small(version);
        let (format, options) = formats()[index % 4];
        let file = image_with(checkpoint.path(), &options);
        let image = file.open().expect("it opens");
        for (way, len) in [1, 2, 15, 16, 17, 100, 1000].into_iter().enumerate() {
            let prompt = text(len, word());
            let mut memory = Memory::new(&image);
            for words in memory.state(&image).expect("it fits").words_mut() {
                words.iter_mut().for_each(|x| *x = f32::from((word() >> 16) as i16) / 65536.0);
            }
            let (mut rest, mut pieces) = (&prompt[..], Vec::new());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(1 + word() as usize % 400));
                pieces.push(piece);
                rest = later;
            }
            let result = compare(device(way % 3), WAYS[way % 3], &image, &memory, &pieces);
            done(&format!("version {version}, {format}, {len} tokens"), result);
        }
    }
}
