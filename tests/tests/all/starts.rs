//! States that an image begins at: tuned ones of a checkpoint, and those after a prompt.

use std::fs;

use rwkv_core::{Digest, Model, State, image::SectionKind, stream::InPlace};
use rwkv_host::{
    checkpoint::Checkpoint,
    convert::{Options, Weights, convert, tuned, with_start},
    eval::{EvalError, Options as Eval, evaluate},
    file::ImageFile,
    memory::Memory,
    prefill::digests,
};
use rwkv_tests::{image, random, rwkv, shipped, step, text};

/// The largest difference of the logits after each token, as a part of the largest logit.
fn difference(file: &ImageFile, text: &[u32], expected: &[f32]) -> f32 {
    let image = file.open().expect("it opens");
    let mut memory = Memory::new(&image);
    let max = |values: &mut dyn Iterator<Item = f32>| {
        values.fold(0.0, |m: f32, x| if x.abs() > m { x.abs() } else { m })
    };
    let rows = text.iter().zip(expected.chunks_exact(image.header().dims.vocab as usize));
    let each = rows.map(|(token, expected)| {
        let (_, logits) = step(&mut memory, &image, &[*token]).expect("it steps");
        let apart = max(&mut logits.iter().zip(expected).map(|(a, b)| a - b));
        apart / max(&mut expected.iter().copied())
    });
    each.fold(0.0, |m, x| if x > m { x } else { m })
}

const TUNED: [&str; 6] = ["5.0", "5.1", "5.2", "6", "7", "7a"];

#[test]
fn tuned_states_agree_with_the_package() {
    for version in TUNED {
        let checkpoint = random::tuned(version);
        let file = image(checkpoint.path(), Weights::F32);
        let (text, expected) = random::expected_tuned(version);
        let found = difference(&file, &text, &expected);
        println!("{version}: {found:e} of the largest logit");
        assert!(found <= 1e-4, "{version}: {found:e}");

        // Keys and values the other way round, or no state at all, is something else.
        let opened = file.open().expect("it opens");
        let dims = opened.header().dims;
        let n = dims.head_size as usize;
        let mut words: Vec<f32> = opened.start_state().expect("a state").collect();
        for head in words[opened.header().shift_words()..].chunks_exact_mut(n * n) {
            let turned: Vec<f32> = (0..n * n).map(|i| head[i % n * n + i / n]).collect();
            head.copy_from_slice(&turned);
        }
        for words in [Some(&words[..]), None] {
            let other = ImageFile::new(&with_start(&opened, words).expect("it fits"));
            let found = difference(&other, &text, &expected);
            assert!(found > 0.01, "{version}: {found:e}");
        }
    }
}

/// An image is read, and its parts are put into its reference, from where both begin.
#[test]
fn a_tuned_image_is_evaluated_from_its_state() {
    let checkpoint = random::tuned("6");
    let [float, int8] = [Weights::F32, Weights::Int8].map(|w| image(checkpoint.path(), w));
    let (float, int8) = (float.open().expect("it opens"), int8.open().expect("it opens"));
    let tokens = text(200, 5);
    let report =
        |image, reference| evaluate(image, Some(reference), &tokens, &Eval::default(), |_, _| {});
    let own = report(&float, &float).expect("a report").reference.expect("a comparison");
    assert_eq!(own.kl_bits_per_token, 0.0);
    assert!(own.parts.iter().all(|part| part.kl_bits_per_token == 0.0));
    let beside = report(&int8, &float).expect("a report").reference.expect("a comparison");
    assert!(beside.kl_bits_per_token > 0.0 && beside.parts.len() == own.parts.len());

    let bare = ImageFile::new(&with_start(&float, None).expect("it fits"));
    let bare = bare.open().expect("it opens");
    for (image, reference) in [(&int8, &bare), (&bare, &float)] {
        let error = report(image, reference).expect_err("they begin elsewhere");
        assert!(matches!(error, EvalError::OtherStart), "{error}");
    }
    // A tuned state makes a difference, and calibration leaves it as it is.
    let alone =
        |image| evaluate(image, None, &tokens, &Eval::default(), |_, _| {}).expect("a report");
    assert!(alone(&float).score.bits_per_byte != alone(&bare).score.bits_per_byte);
    let options = Options { calibration: Some(&text(1024, 6)), ..Options::new(Weights::Int8) };
    let file = rwkv_tests::image_with(checkpoint.path(), &options);
    let calibrated = file.open().expect("it opens");
    let start = float.start_state().expect("a state");
    assert!(calibrated.start_state().expect("a state").eq(start));
    let beside = report(&calibrated, &float).expect("a report").reference.expect("a comparison");
    println!("calibrated: {} bits per token", beside.kl_bits_per_token);
    assert!(beside.kl_bits_per_token < 0.05, "{}", beside.kl_bits_per_token);
}

/// A file of states beside a checkpoint without them makes the image of the checkpoint with them.
#[test]
fn a_file_of_tuned_states_is_baked() {
    let dir = tempfile::tempdir().expect("a folder");
    for version in TUNED {
        let whole = image(random::tuned(version).path(), Weights::Int8);
        let bare = image(
            random::checkpoint(version, random::Container::Safetensors).path(),
            Weights::Int8,
        );
        fs::write(dir.path().join("bare.rwkv"), bare.bytes()).expect("written");
        let states = random::tuned_states(version);
        let states = states.path().to_str().expect("UTF-8");
        let run = |args: &[&str]| rwkv(dir.path(), args).expect("it runs");
        run(&["bake", "@bare.rwkv", "--tuned", states, "-o", "@baked.rwkv"]);
        let baked = fs::read(dir.path().join("baked.rwkv")).expect("it is there");
        let (a, b) = (ImageFile::new(&baked), &whole);
        let words = |file: &ImageFile| -> Vec<u32> {
            let image = file.open().expect("it opens");
            image.start_state().expect("a state").map(f32::to_bits).collect()
        };
        assert_eq!(words(&a), words(b), "{version}");
        run(&["bake", "@baked.rwkv", "--none", "-o", "@out.rwkv"]);
        assert!(fs::read(dir.path().join("out.rwkv")).expect("it is there") == bare.bytes());
    }
    let v4 = image(&shipped("tunes-v4"), Weights::Int8);
    fs::write(dir.path().join("v4.rwkv"), v4.bytes()).expect("written");
    let states = random::tuned_states("7");
    let args = ["bake", "@v4.rwkv", "--tuned", states.path().to_str().expect("UTF-8"), "-o", "@x"];
    let error = format!("{:#}", rwkv(dir.path(), &args).expect_err("it has no heads"));
    assert!(error.contains("RWKV-4 has no such state"), "{error}");
    let model = shipped("tunes-v4");
    let args = ["bake", "@v4.rwkv", "--tuned", model.to_str().expect("UTF-8"), "-o", "@x"];
    let error = format!("{:#}", rwkv(dir.path(), &args).expect_err("there are none"));
    assert!(error.contains("has no tuned states `blocks.N.att.time_state`"), "{error}");
}

#[test]
fn tuned_states_that_do_not_fit_are_refused_by_name() {
    let [first, second, third] = [0, 1, 2].map(|layer| format!("blocks.{layer}.att.time_state"));
    let refused = |version: &str, names: &[&str]| {
        let file = random::checkpoint_with(version, names);
        let checkpoint = Checkpoint::open(file.path()).expect("it opens");
        let result = convert(&checkpoint, &Options::new(Weights::F32), |_, _| {});
        result.expect_err("it is refused").to_string()
    };
    let missing = |has: &str, layer: usize, name: &str| {
        format!("{has} is a state to start from, but layer {layer} has none: no `{name}`")
    };
    assert_eq!(refused("6", &[&second]), missing(&second, 0, &first));
    assert_eq!(
        refused("4", &[&first]),
        format!("{first} is a state to start from, but RWKV-4 has no such state")
    );
    assert_eq!(
        refused("7", &[&third]),
        format!("{third} is a state to start from, but the model has 2 layers")
    );
    let shape = format!("{first} has shape [1], but [3, 16, 16] was expected");
    assert_eq!(refused("6", &[&first, &second]), shape);

    // Integers: found, though they cannot be weights.
    let file = random::tuned("7");
    let mut bytes = fs::read(file.path()).expect("the file");
    let name = format!("\"{second}\":{{\"dtype\":\"F32\"");
    let at = bytes.windows(name.len()).position(|w| w == name.as_bytes()).expect("the tensor");
    bytes[at + name.len() - 4] = b'I';
    fs::write(file.path(), bytes).expect("written");
    let checkpoint = Checkpoint::open(file.path()).expect("it opens");
    let error = convert(&checkpoint, &Options::new(Weights::F32), |_, _| {});
    let error = error.expect_err("it is refused").to_string();
    assert!(error.contains(&*second) && error.contains("I32"), "{error}");
}

/// Step by step, in parallel, and beside the prompt that was prefilled.
#[test]
fn a_baked_prompt_goes_on_as_if_it_had_been_read() {
    let (prompt, rest) = (text(40, 21), text(20, 22));
    let whole = [&prompt[..], &rest].concat();
    for model in ["tunes-v4", "tunes-v7"] {
        for weights in [Weights::F32, Weights::Int8] {
            let file = image(&shipped(model), weights);
            let bare = file.open().expect("it opens");
            let mut memory = Memory::new(&bare);
            let (expected, _) = step(&mut memory, &bare, &whole).expect("it steps");
            let mut memory = Memory::new(&bare);
            digests(&bare, memory.state(&bare).expect("it fits"), &prompt).expect("it reads");
            let words = memory.state(&bare).expect("it fits").words().concat();
            let baked = ImageFile::new(&with_start(&bare, Some(&words)).expect("it fits"));
            let image = baked.open().expect("it opens");
            assert!(image.start_state().expect("a state").eq(words.iter().copied()));
            assert_eq!(image.header().block_words, bare.header().block_words);

            let (stepped, _) = step(&mut Memory::new(&image), &image, &rest).expect("it steps");
            assert_eq!(stepped, expected[prompt.len()..], "{model}, {weights:?}");
            let mut memory = Memory::new(&image);
            let parallel = digests(&image, memory.state(&image).expect("it fits"), &rest);
            assert_eq!(parallel.expect("it reads"), stepped);
            memory.reset(&image);
            assert_eq!(step(&mut memory, &image, &rest).expect("it steps").0, stepped);

            let again = with_start(&image, Some(&words)).expect("it fits");
            assert!(again == baked.bytes());
            assert!(with_start(&image, None).expect("it fits") == file.bytes());
        }
    }
}

/// The tool: the same logits and text with the prompt in the image, in a state, and read.
#[test]
fn the_commands_begin_where_the_image_begins() {
    let dir = tempfile::tempdir().expect("a folder");
    let read = |name: &str| fs::read(dir.path().join(name)).expect("it is there");
    let run = |args: &[&str]| rwkv(dir.path(), args).expect("it runs");
    for (model, weights) in [("tunes-v4", Weights::Int8), ("tunes-v7", Weights::F32)] {
        let file = image(&shipped(model), weights);
        fs::write(dir.path().join("m.rwkv"), file.bytes()).expect("written");
        run(&["bake", "@m.rwkv", "--prompt", "X:1\nT:", "-o", "@b.rwkv"]);
        run(&["prefill", "@m.rwkv", "--prompt", "X:1\nT:", "-o", "@p.state"]);
        run(&["bake", "@m.rwkv", "--state", "@p.state", "-o", "@c.rwkv"]);
        assert!(read("b.rwkv") == read("c.rwkv"));
        for (image, prompt) in [("@m.rwkv", "X:1\nT:The"), ("@b.rwkv", "The")] {
            run(&["logits", image, "--prompt", prompt, "-o", &format!("@{}.logits", &image[1..2])]);
            let state = format!("@{}.state", &image[1..2]);
            run(&["generate", image, "--prompt", prompt, "-n", "30", "--save-state", &state]);
        }
        assert!(read("m.logits") == read("b.logits"));
        // All but the identity, the position and the CRC over them.
        let words = rwkv_core::saved::SAVED_BYTES;
        assert!(read("m.state")[words..] == read("b.state")[words..]);
        run(&["validate", "@b.rwkv", "--prompt", "The", "-n", "8"]);
        run(&["validate", "@m.rwkv", "--state", "@p.state", "-n", "8"]);
        run(&["validate", "@b.rwkv", "--state", "@b.state", "--prompt", "The", "-n", "8"]);
        run(&["info", "@b.rwkv"]);
        run(&["info", "@b.rwkv", "--json"]);

        // Baking anew replaces, and taking out leaves the image as it was.
        run(&["bake", "@m.rwkv", "--prompt", "X:2", "-o", "@d.rwkv"]);
        run(&["prefill", "@d.rwkv", "--prompt", "\n", "-o", "@d.state"]);
        run(&["bake", "@d.rwkv", "--none", "-o", "@d.rwkv"]);
        assert!(read("d.rwkv") == read("m.rwkv"));
        run(&["bake", "@b.rwkv", "--prompt", "The", "-o", "@e.rwkv"]);
        run(&["bake", "@m.rwkv", "--prompt", "X:1\nT:The", "-o", "@f.rwkv"]);
        assert!(read("e.rwkv") == read("f.rwkv"));

        // A state is of one image: of the bare or of the baked one.
        let other = ["generate", "@b.rwkv", "--state", "@m.state"];
        let error = format!("{:#}", rwkv(dir.path(), &other).expect_err("another image"));
        assert!(error.contains("state of image"), "{error}");
    }
    for args in [&["bake", "@m.rwkv", "-o", "@x"][..], &["bake", "@m.rwkv", "--none"]] {
        rwkv(dir.path(), args).expect_err("it says too little");
    }
    assert!(!dir.path().join("x").exists());
}

/// States of fixed size take turns in one model and go their own ways.
#[test]
fn two_states_share_a_model() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let header = *image.header();
    let texts = [1, 2].map(|seed| text(30, seed));
    let mut scratch = vec![0.0; header.scratch_words as usize];
    let stream = InPlace::new(image.words());
    let mut model = Model::new(header, stream, &mut scratch).expect("it fits");
    let mut states = [State::<4, 96, 3>::new(), State::new()];
    for state in &mut states {
        // Whoever forgets to begin is told so.
        let unset = model.step(state.view(), 65, ());
        assert_eq!(unset, Err(rwkv_core::Error::BrokenState));
        model.reset(state.view()).expect("it fits");
    }
    let mut found: [Vec<Digest>; 2] = Default::default();
    for index in 0..30 {
        for ((state, text), found) in states.iter_mut().zip(&texts).zip(&mut found) {
            let mut logits = Digest::default();
            model.step(state.view(), text[index], &mut logits).expect("it steps");
            found.push(Digest::token(&header, &state.view(), logits).expect("finite"));
        }
    }
    for (text, found) in texts.iter().zip(found) {
        let (alone, _) = step(&mut Memory::new(&image), &image, text).expect("it steps");
        assert_eq!(found, alone);
    }
    let mut wrong = State::<4, 96, 4>::new();
    let error = model.reset(wrong.view()).expect_err("another shape");
    assert!(matches!(error, rwkv_core::Error::StateSize { .. }));
}

#[test]
fn an_image_without_a_start_state_has_no_section() {
    let file = image(&shipped("tunes-v7"), Weights::Int8);
    let image = file.open().expect("it opens");
    assert!(image.start_state().is_none() && image.section(SectionKind::StartState).is_none());
    assert_eq!(image.header().start_offset, 0);
    let checkpoint = Checkpoint::open(&shipped("tunes-v7")).expect("it opens");
    let header = image.header();
    assert_eq!(tuned(&checkpoint, header.version, &header.dims).expect("none"), None);
}
