//! The CUDA executor, its kernels run by the emulation, against the step executor.

use rwkv_host::convert::Weights;

#[cfg(not(feature = "cuda-emulation"))]
#[test]
fn kernels_are_emulated() {
    println!("skipped: built without the feature cuda-emulation");
}

/// Wherever a prompt runs, the state is the same; what is missing is said.
#[test]
fn prefill_runs_where_it_is_told() {
    use rwkv_tests::rwkv;
    let dir = tempfile::tempdir().expect("a folder");
    let file = rwkv_tests::image(&rwkv_tests::shipped("tunes-v4"), Weights::Int8);
    std::fs::write(dir.path().join("m.rwkv"), file.bytes()).expect("written");
    let run = |backend: &str| {
        let output = format!("@{backend}.state");
        let args = ["prefill", "@m.rwkv", "--prompt", "X:1\nT:The", "-o", &output];
        rwkv(dir.path(), &[&args[..], &["--backend", backend]].concat())?;
        anyhow::Ok(std::fs::read(dir.path().join(format!("{backend}.state")))?)
    };
    let expected = run("cpu").expect("there is a CPU");
    assert!(run("auto").expect("there is a CPU") == expected);
    match run("cuda") {
        Ok(found) => assert!(found == expected),
        Err(error) => {
            println!("skipped in part: {error:#}");
            assert!(error.to_string().contains("--backend cpu"), "{error:#}");
        }
    }
    rwkv(dir.path(), &["prefill", "@m.rwkv", "-o", "@x", "--backend", "gpu"]).expect_err("no such");
}

/// The same suite as the program `cuda-check` runs, where there is a device.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_gives_the_bits_of_steps() {
    use rwkv_host::prefill::cuda::device::Device;
    match Device::open() {
        Err(error) => println!("skipped: {error}"),
        Ok(device) => {
            let must = &mut |name: &str, result| assert_eq!(result, Ok(()), "{name}");
            rwkv_tests::cuda::versions(&|_| &device, must);
            rwkv_tests::cuda::released(&|_| &device, must);
        }
    }
}

#[cfg(feature = "cuda-emulation")]
mod emulated {
    use std::{
        cell::{Cell, RefCell},
        rc::Rc,
    };

    use rwkv_core::{Digest, Error};
    use rwkv_host::{
        convert::Weights,
        file::ImageFile,
        memory::Memory,
        prefill::cuda::{
            CudaError, Driver, Launch, Options, Prefill,
            emulate::{Buffer, Emulated, Generation},
        },
    };
    use rwkv_tests::{cuda, image, random, step, text};

    const DEVICE: Emulated = Emulated { generation: Generation::Ampere, backward: false };

    /// A device for each of [`cuda::WAYS`].
    fn device(way: usize) -> Emulated {
        match way {
            0 => DEVICE,
            1 => Emulated { generation: Generation::Turing, backward: true },
            _ => Emulated { backward: true, ..DEVICE },
        }
    }

    fn must(name: &str, result: Result<(), String>) {
        assert_eq!(result, Ok(()), "{name}");
    }

    #[test]
    fn kernels_give_the_bits_of_steps() {
        cuda::versions(&device, &mut must);
    }

    #[test]
    fn shipped_models_give_the_bits_of_steps() {
        cuda::shipping(&device, &mut must);
    }

    #[test]
    fn released_head_sizes_give_the_bits_of_steps() {
        cuda::released(&device, &mut must);
    }

    #[test]
    fn lengths_and_splits_and_initial_states_give_the_bits_of_steps() {
        cuda::lengths(&device, &mut must);
    }

    #[test]
    fn the_last_tokens_have_logits_and_the_others_need_none() {
        let file = image(random::small("7").path(), Weights::Int8);
        let image = file.open().expect("it opens");
        let (prompt, vocab) = (text(21, 4), image.header().dims.vocab as usize);
        let options = Options { piece: 16, slab: 4, ..Options::default() };
        let prefill = Prefill::new(DEVICE, &image, options).expect("it fits");
        let mut found = vec![vec![0.0; vocab]; 7];
        let mut sinks: Vec<&mut [f32]> = found.iter_mut().map(Vec::as_mut_slice).collect();
        let mut memory = Memory::new(&image);
        let state = memory.state(&image).expect("it fits");
        prefill.prefill(state, &prompt, &mut sinks).expect("it prefills");

        let mut stepped = Memory::new(&image);
        step(&mut stepped, &image, &prompt[..14]).expect("it steps");
        for (token, found) in prompt[14..].iter().zip(&found) {
            assert_eq!(&step(&mut stepped, &image, &[*token]).expect("it steps").1, found);
        }
        let words =
            [memory, stepped].map(|mut memory| memory.state(&image).unwrap().words().concat());
        assert_eq!(words[0], words[1]);
    }

    fn v4() -> ImageFile {
        image(random::small("4").path(), Weights::F32)
    }

    #[test]
    fn what_a_step_refuses_is_refused() {
        let file = v4();
        let image = file.open().expect("it opens");
        let prefill = Prefill::new(DEVICE, &image, Options::default()).expect("it fits");
        let mut memory = Memory::new(&image);
        let run = |memory: &mut Memory, tokens: &[u32], digests: bool| {
            let state = memory.state(&image).expect("it fits");
            let sinks: &mut [&mut [f32]] = &mut [];
            match digests {
                true => prefill.digests(state, tokens, sinks).map(|_| ()),
                false => prefill.prefill(state, tokens, sinks),
            }
        };
        let wrong = Error::Token { token: 256, vocab: 256 };
        assert_eq!(run(&mut memory, &[65, 256], true), Err(CudaError::Model(wrong)));
        assert_eq!(run(&mut memory, &[65], true), Ok(()), "the state is as it was");
        for digests in [false, true] {
            memory.reset(&image);
            let mut state = memory.state(&image).expect("it fits");
            state.layer_mut(&image.header().dims, 0)[1][0] = f32::NAN;
            let error = CudaError::Model(Error::NonFinite);
            assert_eq!(run(&mut memory, &text(5, 1), digests), Err(error));
            let error = CudaError::Model(Error::BrokenState);
            assert_eq!(run(&mut memory, &text(5, 1), digests), Err(error));
        }
    }

    /// A device that goes wrong once: after some kernel, a bit of some word of its memory flips.
    struct Faulty {
        kernels: Cell<u32>,
        fault: (u32, usize),
        scratch: RefCell<Option<Rc<Buffer>>>,
    }

    // SAFETY: memory and kernels are those of the emulation.
    unsafe impl Driver for Faulty {
        type Buffer = Rc<Buffer>;

        fn name(&self) -> String {
            DEVICE.name()
        }

        fn allocate(&self, words: usize) -> Result<Rc<Buffer>, CudaError> {
            let buffer = Rc::new(DEVICE.allocate(words)?);
            let mut scratch = self.scratch.borrow_mut();
            // The fourth one, after image, state and tokens.
            let count = self.kernels.get() + 1;
            self.kernels.set(count);
            if count == 4 {
                *scratch = Some(buffer.clone());
            }
            Ok(buffer)
        }

        fn address(&self, buffer: &Rc<Buffer>) -> u64 {
            DEVICE.address(buffer)
        }

        fn clear(&self, buffer: &Rc<Buffer>, words: usize) -> Result<(), CudaError> {
            DEVICE.clear(buffer, words)
        }

        fn upload(&self, words: &[u32], to: &Rc<Buffer>, at: usize) -> Result<(), CudaError> {
            DEVICE.upload(words, to, at)
        }

        fn download(
            &self,
            from: &Rc<Buffer>,
            at: usize,
            words: &mut [u32],
        ) -> Result<(), CudaError> {
            DEVICE.download(from, at, words)
        }

        fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
            DEVICE.launch(launch)?;
            self.kernels.set(self.kernels.get() + 1);
            if let Some(scratch) = &*self.scratch.borrow()
                && self.kernels.get() == self.fault.0
            {
                let mut word = [0];
                DEVICE.download(scratch, self.fault.1, &mut word)?;
                DEVICE.upload(&[word[0] ^ 1], scratch, self.fault.1)?;
            }
            Ok(())
        }
    }

    /// The lowest bit of one element of the residual of one token, in the middle of a prompt: no
    /// digest before that token differs, and those from it on do.
    #[test]
    fn a_planted_error_is_noticed() {
        let file = v4();
        let image = file.open().expect("it opens");
        let prompt = text(12, 2);
        let (expected, _) = step(&mut Memory::new(&image), &image, &prompt).expect("it steps");
        let (token, buffers) = (7, 11);
        let place = token * image.header().scratch_words as usize + 3;
        // After the first kernel, which reads the embedding into the residual.
        let device = Faulty {
            kernels: Cell::new(0),
            fault: (buffers + 1, place),
            scratch: RefCell::default(),
        };
        let prefill = Prefill::new(device, &image, Options::default()).expect("it fits");
        let mut memory = Memory::new(&image);
        let state = memory.state(&image).expect("it fits");
        let none: &mut [&mut [f32]] = &mut [];
        let found: Vec<Digest> = prefill.digests(state, &prompt, none).expect("it prefills");
        let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert_eq!(wrong, Some(token));
        assert!(found[token..].iter().zip(&expected[token..]).all(|(a, b)| a != b));
    }
}
