//! Damaged images: each ends in the same typed error on the host and on a device.

use std::sync::LazyLock;

use proptest::prelude::*;
use rwkv_core::{
    Header, ImageError, Model, State,
    image::{HEADER_BYTES, SECTION_BYTES, SectionKind},
    stream::InPlace,
    tokenizer::VocabularyError,
};
use rwkv_host::{
    convert::{Weights, with_section, with_start},
    file::ImageFile,
    memory::Memory,
    tokenizer::List,
};
use rwkv_tests::{baked, damage, formats, image, image_with, repair_header, shipped, step};

#[test]
fn the_host_names_every_damage() {
    for model in ["tunes-v4", "tunes-v7"] {
        let bare = image(&shipped(model), Weights::Int8);
        let list = damage::list(&bare).into_iter();
        for damage in list.chain(damage::list(&baked(&bare, &[88]))) {
            let found = damage.file.open().map(|_| ()).unwrap_err();
            assert_eq!(found, damage.error, "{model}: {}", damage.what);
            println!("{model}: {:<40} {found}", damage.what);
        }
    }
}

#[test]
fn what_follows_an_image_is_refused_in_a_file() {
    let good = image(&shipped("tunes-v4"), Weights::Int8);
    let mut longer = good.bytes().to_vec();
    longer.extend([0; 16]);
    let expected = good.bytes().len() as u32;
    let error = ImageError::TrailingBytes { expected, given: expected + 16 };
    assert_eq!(ImageFile::new(&longer).open().unwrap_err(), error);
}

/// A vocabulary of the bytes, ids from `first` on.
fn vocabulary(first: usize) -> Vec<u32> {
    let line = |byte| format!("{} b'\\x{byte:02x}' 1\n", first + byte);
    let lines: String = (0..256).map(line).collect();
    List::parse(lines.as_bytes()).expect("a list").section()
}

#[test]
fn a_tokenizer_section_is_checked() {
    let good = image(&shipped("tunes-v4"), Weights::Int8);
    let good = good.open().expect("it opens");
    let with = |words: Vec<u32>, code: u8| {
        let bytes = with_section(&good, SectionKind::Tokenizer, Some(words)).expect("it fits");
        let mut file = ImageFile::new(&bytes);
        file.bytes_mut()[19] = code;
        repair_header(file.bytes_mut());
        file.open().map(|image| image.tokenizer().map(|tokenizer| tokenizer.vocab()))
    };
    let mut other = vocabulary(0);
    other[9] = u32::MAX;
    let entry = ImageError::Vocabulary(VocabularyError::Entry { token: 5 });
    let more = ImageError::Vocabulary(VocabularyError::Vocab { ids: 257 });
    let unnamed = ImageError::HeaderField { offset: 19 };
    assert_eq!(with(vocabulary(0), 1), Ok(Some(256)));
    assert_eq!(with(other, 1), Err(entry));
    assert_eq!(with(vocabulary(1), 1), Err(more));
    assert_eq!(with(vocabulary(0), 0), Err(unnamed));
    assert_eq!(with(vocabulary(0), 2), Err(unnamed));
    let mut bare = ImageFile::new(good.bytes());
    for (code, expected) in [(1, Err(unnamed)), (2, Ok(None))] {
        bare.bytes_mut()[19] = code;
        repair_header(bare.bytes_mut());
        assert_eq!(bare.open().map(|image| image.tokenizer()), expected);
    }
}

#[test]
fn optional_sections_follow_the_head_in_order() {
    use SectionKind::{Metadata, StartState, Tokenizer};
    let mut file = image(&shipped("tunes-v4"), Weights::Int8);
    let metadata = file.open().expect("it opens").section(Metadata).expect("metadata").to_vec();
    let vocabulary = vocabulary(0);
    let bare = file.open().expect("it opens");
    let with = with_section(&bare, Tokenizer, Some(vocabulary.clone())).expect("it fits");
    file = ImageFile::new(&with);
    let good = file.open().expect("it opens");
    assert_eq!(good.section_words(Tokenizer), Some(&vocabulary[..]));
    assert_eq!(good.section(Metadata), Some(&metadata[..]));
    let kinds: Vec<_> = good.sections().map(|s| s.kind).collect();
    assert_eq!(kinds[kinds.len() - 2..], [Tokenizer, Metadata]);

    // Each twice, and each pair the wrong way round.
    let first = kinds.len() as u16 - 2;
    for (a, b) in [(4, 4), (6, 6), (6, 4)] {
        let mut file = file.clone();
        for (entry, kind) in (usize::from(first)..).zip([a, b]) {
            file.bytes_mut()[HEADER_BYTES + entry * SECTION_BYTES] = kind;
        }
        repair_header(file.bytes_mut());
        let error = ImageError::SectionTable { section: first + 1 };
        assert_eq!(file.open().unwrap_err(), error, "{a} {b}");
    }
    let bare = with_section(&good, Tokenizer, None).expect("it fits");
    assert_eq!(ImageFile::new(&bare).open().expect("it opens").section(Tokenizer), None);

    // The start state goes between them, whichever came first.
    let kinds = |file: &ImageFile| -> Vec<_> {
        let image = file.open().expect("it opens");
        let optional = image.sections().filter(|s| s.kind.is_optional());
        optional.map(|s| s.kind).collect()
    };
    let all = [Tokenizer, StartState, Metadata];
    assert_eq!(kinds(&baked(&file, &[88])), all);
    let both = baked(&ImageFile::new(&bare), &[88]);
    let both = both.open().expect("it opens");
    let both = with_section(&both, Tokenizer, Some(vocabulary)).expect("it fits");
    assert_eq!(kinds(&ImageFile::new(&both)), all);
}

#[test]
fn every_flipped_bit_of_the_front_is_noticed() {
    let good = image(&shipped("tunes-v4"), Weights::Int8);
    let header = good.open().expect("it opens").header().section_count();
    let front =
        rwkv_core::image::HEADER_BYTES + usize::from(header) * rwkv_core::image::SECTION_BYTES;
    let mut file = good.clone();
    for bit in 0..8 * front {
        file.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        assert!(file.open().is_err(), "bit {bit}");
        file.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(file.open().is_ok());
}

#[test]
fn a_start_state_is_checked() {
    let good = image(&shipped("tunes-v4"), Weights::Int8);
    let opened = good.open().expect("it opens");
    // A header that names a section where none is.
    let mut named = good.clone();
    let metadata = opened.sections().last().expect("metadata").offset;
    named.bytes_mut()[76..80].copy_from_slice(&metadata.to_le_bytes());
    repair_header(named.bytes_mut());
    assert_eq!(named.open().unwrap_err(), ImageError::HeaderField { offset: 76 });
    // The state of another model.
    for words in [0, 1, opened.header().state_words() + 4] {
        let other = with_start(&opened, Some(&vec![0.0; words])).expect("it is written");
        let error = ImageFile::new(&other).open().map(|_| ()).unwrap_err();
        assert!(matches!(error, ImageError::Record { expected: 7, .. }), "{words}: {error}");
    }
}

/// Changes that keep every CRC: what is opened is computed, or ends in an error.
fn hostile(good: &ImageFile, changes: &[(usize, u8)]) {
    let mut file = good.clone();
    let sections = file.open().expect("it opens").header().section_count();
    let len = file.bytes().len();
    for (at, xor) in changes {
        // Half of the changes hit the header and the first records.
        let at = if at % 2 == 0 { at / 2 % 400 } else { at / 2 % len };
        file.bytes_mut()[at] ^= xor;
    }
    for section in 0..usize::from(sections) {
        damage::repair_section(file.bytes_mut(), section);
    }
    repair_header(file.bytes_mut());
    if let Ok(image) = file.open() {
        let _ = step(&mut Memory::new(&image), &image, &[65, 66]);
    }
    // Firmware that trusts its flash only parses the header: a step over it must end as well.
    if let Ok(header) = Header::parse(file.bytes()) {
        let mut state = State::<4, 96, 3>::new();
        let mut scratch = vec![0.0; (header.scratch_words as usize).min(1 << 16)];
        let words = bytemuck::cast_slice(file.bytes().get(..len / 4 * 4).unwrap_or_default());
        if let Ok(mut model) = Model::new(header, InPlace::new(words), &mut scratch) {
            let mut logits = vec![0.0; 1 << 16];
            if model.reset(state.view()).is_err() {
                state.view().clear(&header);
            }
            let _ = model.step(state.view(), 65, logits.as_mut_slice());
        }
    }
}

/// Two models in every format, each as it is and with a start state.
static GOOD: LazyLock<Vec<ImageFile>> = LazyLock::new(|| {
    let formats = formats().into_iter().map(|(_, options)| options);
    let models = formats.flat_map(|options| {
        ["tunes-v4", "tunes-v7"].map(|model| image_with(&shipped(model), &options))
    });
    models.flat_map(|file| [baked(&file, &[88]), file]).collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn hostile_images_end_in_numbers_or_errors(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        which: proptest::sample::Index,
    ) {
        hostile(which.get(&GOOD), &changes);
    }
}
