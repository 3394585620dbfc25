//! The CUDA executor, its kernels run by the emulation, against the step executor.

#[cfg(not(feature = "cuda-emulation"))]
#[test]
fn kernels_are_emulated() {
    println!("skipped: built without the feature cuda-emulation");
}

#[cfg(feature = "cuda-emulation")]
mod emulated {
    use rwkv_core::{Digest, Image};
    use rwkv_host::{
        memory::Memory,
        prefill::cuda::{
            Options, Prefill, Products,
            emulate::{Emulated, Generation},
        },
    };
    use rwkv_tests::{
        formats, image_with,
        random::{self, Container, VERSIONS},
        shipped, step, text,
    };

    /// Ways to run a prompt, none of which may show in a bit.
    const WAYS: [(Emulated, Products); 3] = [
        (Emulated { generation: Generation::Ampere, backward: false }, Products::Tensor),
        (Emulated { generation: Generation::Turing, backward: true }, Products::Tensor),
        (Emulated { generation: Generation::Ampere, backward: true }, Products::Dot4),
    ];

    /// Runs a prompt in some pieces; returns the digest of each token and the last logits.
    fn run(
        way: usize,
        image: &Image<'_>,
        pieces: &[&[u32]],
        options: Options,
    ) -> (Vec<Digest>, Vec<f32>) {
        let (device, products) = WAYS[way % WAYS.len()];
        let options = Options { products, ..options };
        let prefill = Prefill::new(device, image, options).expect("it fits");
        let mut memory = Memory::new(image);
        let mut logits = vec![0.0; image.header().dims.vocab as usize];
        let mut digests = Vec::new();
        for piece in pieces {
            let state = memory.state(image).expect("it fits");
            let sinks = &mut [logits.as_mut_slice()];
            digests.extend(prefill.digests(state, piece, sinks).expect("it prefills"));
        }
        (digests, logits)
    }

    fn equals_step(name: &str, image: &Image<'_>, prompt: &[u32], ways: usize) {
        let expected = step(&mut Memory::new(image), image, prompt).expect("it steps");
        for way in 0..ways {
            let at = [prompt.len(), 17, 40][way % 3].min(prompt.len());
            let options = Options { piece: [64, 33, 16][way % 3], slab: 24, ..Options::default() };
            let (first, second) = prompt.split_at(at);
            let pieces = [first, second];
            let found = run(way, image, &pieces[..if second.is_empty() { 1 } else { 2 }], options);
            let wrong =
                found.0.iter().zip(&expected.0).position(|(found, expected)| found != expected);
            assert_eq!(wrong, None, "{name}, way {way}: the first token that differs");
            assert_eq!(found.1, expected.1, "{name}, way {way}");
        }
    }

    #[test]
    fn a_sequence_of_kernels_gives_the_bits_of_steps() {
        for version in VERSIONS {
            let checkpoint = random::checkpoint(version, Container::Safetensors);
            for (format, options) in formats() {
                let file = image_with(checkpoint.path(), &options);
                let image = file.open().expect("it opens");

                equals_step(&format!("{version}, {format}"), &image, &text(70, 3), 3);
            }
        }
    }

    #[test]
    fn shipped_models_give_the_bits_of_steps() {
        for model in ["tunes-v4", "tunes-v7"] {
            for (format, options) in formats() {
                let file = image_with(&shipped(model), &options);
                let image = file.open().expect("it opens");

                equals_step(&format!("{model}, {format}"), &image, &text(40, 5), 3);
            }
        }
    }
}
