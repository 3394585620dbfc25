//! The sequence executor gives the bits of the step executor: in pieces of any length, from any
//! state, on any number of threads.

use rayon::ThreadPoolBuilder;
use rwkv_core::{Digest, Image};
use rwkv_host::{memory::Memory, prefill::digests};
use rwkv_tests::{
    formats, image_with,
    random::{self, Container, VERSIONS},
    step, text, xorshift,
};

const LENGTHS: [usize; 7] = [1, 2, 15, 16, 17, 100, 1000];
const THREADS: [usize; 3] = [1, 2, 5];

/// A state of numbers from 0.25 to 1.25, the same for a seed.
fn drawn(image: &Image<'_>, seed: u32) -> Memory {
    let (mut memory, mut random) = (Memory::new(image), xorshift(seed));
    let mut number = || 0.25 + (random() >> 8) as f32 / (1 << 24) as f32;
    let dims = image.header().dims;
    let mut state = memory.state(image).expect("it fits");
    for layer in 0..dims.layers as usize {
        for row in state.layer_mut(&dims, layer) {
            row.fill_with(&mut number);
        }
    }
    memory
}

/// The digests of a text that is read in pieces of random lengths.
fn in_pieces(image: &Image<'_>, mut text: &[u32], seed: u32) -> Vec<Digest> {
    let (mut memory, mut random) = (drawn(image, seed), xorshift(seed));
    let mut found = Vec::new();
    while !text.is_empty() {
        let piece = text.len().min(1 + random() as usize % 400);
        let (now, later) = text.split_at(piece);
        found.extend(digests(image, memory.state(image).expect("it fits"), now).expect("it reads"));
        text = later;
    }
    found
}

/// A model that is wide enough for what pays with large matrices alone: columns spread over the
/// threads, tiles on their own and joined.
#[test]
fn a_wide_model_has_the_bits_of_its_steps() {
    let pool = ThreadPoolBuilder::new().num_threads(5).build().expect("a pool of threads");
    let checkpoint = random::wider("7", 6);
    for (format, options) in formats() {
        let file = image_with(checkpoint.path(), &options);
        let image = file.open().expect("it opens");
        for length in [1, 2, 4, 9, 40] {
            let text = text(length, length as u32);
            let expected = step(&mut drawn(&image, 3), &image, &text).expect("it steps").0;
            let mut memory = drawn(&image, 3);
            let state = memory.state(&image).expect("it fits");
            let found = pool.install(|| digests(&image, state, &text)).expect("it reads");
            assert!(found == expected, "{format}, {length} tokens");
        }
    }
}

#[test]
fn a_sequence_has_the_bits_of_its_steps() {
    let pools = THREADS.map(|threads| {
        ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads")
    });
    for (number, version) in (1..).zip(VERSIONS) {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        for (format, options) in formats() {
            let file = image_with(checkpoint.path(), &options);
            let image = file.open().expect("it opens");
            for length in LENGTHS {
                let seed = number * 1000 + length as u32;
                let text = text(length, seed);
                let expected = step(&mut drawn(&image, seed), &image, &text).expect("it steps").0;
                for (pool, threads) in pools.iter().zip(THREADS) {
                    let found = pool.install(|| in_pieces(&image, &text, seed));
                    assert!(
                        found == expected,
                        "{version}, {format}, {length} tokens, {threads} threads"
                    );
                }
            }
        }
    }
}
