//! States on their own: saved, resumed, side by side, carried for a million tokens.

use std::fs;

use rwkv_core::{
    Digest, Image, Model,
    saved::{SAVED_BYTES, Saved, SavedError},
    stream::InPlace,
};
use rwkv_host::{
    convert::Weights,
    memory::Memory,
    prefill::digests,
    state::{self, Place},
};
use rwkv_tests::{
    image,
    random::{self, Container, VERSIONS},
    rwkv, shipped, step, text,
};

#[test]
fn a_saved_state_goes_on_with_the_same_bits() {
    let prompt = text(90, 6);
    for version in VERSIONS {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        let file = image(checkpoint.path(), Weights::Int8);
        let image = file.open().expect("it opens");
        let (expected, _) = step(&mut Memory::new(&image), &image, &prompt).expect("it steps");
        let mut memory = Memory::new(&image);
        let mut found = step(&mut memory, &image, &prompt[..40]).expect("it steps").0;
        let place = Place { position: 40, pending: Some(prompt[40]) };
        let saved = state::to_bytes(&image, &mut memory, place).expect("a state");
        assert_eq!(saved.len(), SAVED_BYTES + 4 * image.header().state_words());

        let mut memory = Memory::new(&image);
        assert_eq!(state::restore(&image, &mut memory, &saved), Ok(place));
        found.extend(step(&mut memory, &image, &prompt[40..]).expect("it steps").0);
        assert_eq!(found, expected, "{version}");
    }
}

/// The tool: prefill, go on in pieces, and the logits of all of it at once.
#[test]
fn the_commands_resume_where_they_stopped() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    fs::write(dir.path().join("m.rwkv"), file.bytes()).expect("written");
    let run = |args: &[&str]| rwkv(dir.path(), args).expect("it runs");
    let read = |name: &str| fs::read(dir.path().join(name)).expect("it is there");

    run(&["prefill", "@m.rwkv", "--prompt", "X:1\nT:", "-o", "@a.state"]);
    run(&["prefill", "@m.rwkv", "--state", "@a.state", "--prompt", "The", "-o", "@b.state"]);
    run(&["prefill", "@m.rwkv", "--prompt", "X:1\nT:The", "-o", "@c.state"]);
    assert!(read("b.state") == read("c.state"));
    run(&["logits", "@m.rwkv", "--state", "@b.state", "-o", "@resumed"]);
    run(&["logits", "@m.rwkv", "--prompt", "X:1\nT:The", "-o", "@whole"]);
    assert!(read("resumed") == read("whole"));

    run(&["generate", "@m.rwkv", "--prompt", "X:1\n", "-n", "20", "--save-state", "@d.state"]);
    let more = ["--state", "@d.state", "-n", "20", "--save-state", "@e.state"];
    run(&[&["generate", "@m.rwkv"], &more[..]].concat());
    run(&["generate", "@m.rwkv", "--prompt", "X:1\n", "-n", "40", "--save-state", "@f.state"]);
    assert!(read("e.state") == read("f.state"));
    let nothing = ["generate", "@m.rwkv", "--state", "@d.state", "-n", "0", "--save-state", "@g"];
    let error = rwkv(dir.path(), &nothing).expect_err("no token is left pending").to_string();
    assert!(error.contains("at least one token") && error.contains("rwkv prefill"), "{error}");
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let mut memory = Memory::new(&image);
    let good = state::to_bytes(&image, &mut memory, Place::default()).expect("a state");
    let words = good.len() - SAVED_BYTES;
    let length = |given| SavedError::Length { needed: good.len() as u64, given: given as u64 };
    let flip = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut longer = good.clone();
    longer.push(0);
    let start = SavedError::Length { needed: SAVED_BYTES as u64, given: 0 };
    let cases = [
        (Vec::new(), start),
        (good[..good.len() - 1].to_vec(), length(good.len() - 1)),
        (good[..SAVED_BYTES].to_vec(), length(SAVED_BYTES)),
        (longer, length(good.len() + 1)),
        (flip(0), SavedError::Magic),
        (flip(4), SavedError::Version(0)),
        (flip(9), SavedError::HeaderChecksum),
        (flip(SAVED_BYTES + words / 2), SavedError::Checksum),
    ];
    for (bytes, error) in cases {
        let found = state::restore(&image, &mut memory, &bytes);
        assert_eq!(found, Err(error));
    }
    let far = Place { position: 1, pending: Some(256) };
    let bytes = state::to_bytes(&image, &mut memory, far).expect("a state");
    assert_eq!(state::restore(&image, &mut memory, &bytes), Err(SavedError::Pending(256)));

    let other = rwkv_tests::image(&shipped("tunes-v4"), Weights::F32);
    let other = other.open().expect("it opens");
    let (state, image) = (image.identity(), other.identity());
    let refused = state::restore(&other, &mut Memory::new(&other), &good);
    assert_eq!(refused, Err(SavedError::OtherImage { state, image }));

    // The view of another model: nothing is written to it.
    let other = rwkv_tests::image(&shipped("tunes-v7"), Weights::Int8);
    let other = other.open().expect("it opens");
    let mut memory = Memory::new(&other);
    step(&mut memory, &other, &text(3, 1)).expect("it steps");
    let before = state::to_bytes(&other, &mut memory, Place::default()).expect("a state");
    let saved = Saved::parse(&good).expect("a header");
    let mut view = memory.state(&other).expect("it fits");
    let refused = saved.restore(&good[SAVED_BYTES..], &mut view);
    assert_eq!(refused, Err(SavedError::Shape));
    let after = state::to_bytes(&other, &mut memory, Place::default()).expect("a state");
    assert!(before == after);
}

/// A model holds no state: three sequences take turns in one.
#[test]
fn several_states_share_a_model() {
    let file = image(&shipped("tunes-v4"), Weights::Int8);
    let image = file.open().expect("it opens");
    let texts = [1, 2, 3].map(|seed| text(40, seed));
    let expected = texts
        .each_ref()
        .map(|tokens| step(&mut Memory::new(&image), &image, tokens).expect("it steps").0);
    let mut scratch = vec![0.0; image.header().scratch_words as usize];
    let stream = InPlace::new(image.words());
    let mut model = Model::new(*image.header(), stream, &mut scratch).expect("it fits");
    let mut memories = [(); 3].map(|()| Memory::new(&image));
    let mut found: [Vec<Digest>; 3] = Default::default();
    for index in 0..40 {
        for ((memory, tokens), found) in memories.iter_mut().zip(&texts).zip(&mut found) {
            let mut state = memory.state(&image).expect("it fits");
            let mut logits = Digest::default();
            model.step(state.reborrow(), tokens[index], &mut logits).expect("it steps");
            found.push(Digest::token(image.header(), &state, logits).expect("finite"));
        }
    }
    assert_eq!(found, expected);
}

/// Half a million tokens, and half a million more in one go and after a stop.
#[test]
fn a_million_tokens_leave_a_finite_state() {
    const HALF: usize = 500_000;
    let piece = text(5_000, 8);
    for version in ["4", "7"] {
        let checkpoint = random::small(version);
        let file = image(checkpoint.path(), Weights::F32);
        let image = file.open().expect("it opens");
        let half = |memory: &mut Memory| {
            for _ in 0..HALF / piece.len() {
                let state = memory.state(&image).expect("it fits");
                rwkv_host::prefill::prefill::<&mut [f32]>(&image, state, &piece, &mut [])
                    .expect("it reads");
            }
            last(&image, memory)
        };
        let mut memory = Memory::new(&image);
        half(&mut memory);
        let place = Place { position: HALF as u64, pending: None };
        let saved = state::to_bytes(&image, &mut memory, place).expect("a finite state");
        let mut resumed = Memory::new(&image);
        assert_eq!(state::restore(&image, &mut resumed, &saved), Ok(place));
        assert_eq!(half(&mut memory), half(&mut resumed), "{version}");
        state::to_bytes(&image, &mut memory, place).expect("a finite state");
    }
}

/// The digest of a token more, in a state of its own.
fn last(image: &Image<'_>, memory: &mut Memory) -> Vec<Digest> {
    let saved = state::to_bytes(image, memory, Place::default()).expect("a finite state");
    let mut copy = Memory::new(image);
    state::restore(image, &mut copy, &saved).expect("a state of this image");
    digests(image, copy.state(image).expect("it fits"), &[65]).expect("it reads")
}
