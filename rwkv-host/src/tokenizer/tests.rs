use std::path::Path;

use proptest::prelude::*;
use rwkv_core::tokenizer::{Tokenizer, TokenizerError, Utf8Stream, Vocabulary, VocabularyError};

use super::{List, ListError, literal};

/// Every single byte, then `more`, ids from 1 on.
fn list(more: &[&[u8]]) -> List {
    let singles = (0..=255u8).map(|byte| vec![byte]);
    let more = more.iter().map(|token| token.to_vec());
    List { tokens: [Vec::new()].into_iter().chain(singles).chain(more).collect() }
}

/// The longest token, found the slow way.
fn naive(list: &List, text: &[u8]) -> Vec<u32> {
    let (mut rest, mut tokens) = (text, Vec::new());
    while !rest.is_empty() {
        let fits = |(_, token): &(usize, &Vec<u8>)| !token.is_empty() && rest.starts_with(token);
        let all = list.tokens.iter().enumerate().filter(fits);
        let (id, token) = all.max_by_key(|(_, token)| token.len()).unwrap();
        tokens.push(id as u32);
        rest = &rest[token.len()..];
    }
    tokens
}

/// Few letters, so that tokens begin alike.
fn letters(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let letter = proptest::sample::select(&[0, b'a', b'b', b'c', 0xc3, 0xa9, 0xff][..]);
    proptest::collection::vec(letter, 2..most)
}

proptest! {
    #[test]
    fn the_longest_match_equals_the_naive_one(
        more in proptest::collection::btree_set(letters(7), 0..60),
        text in letters(200),
    ) {
        let more: Vec<&[u8]> = more.iter().map(Vec::as_slice).collect();
        let list = list(&more);
        let words = list.section();
        let tokenizer = Tokenizer::Vocabulary(Vocabulary::open(&words).unwrap());
        let tokens: Vec<u32> = tokenizer.encode(&text).collect();
        prop_assert_eq!(&tokens, &naive(&list, &text));
        let back: Vec<u8> = tokens.iter().flat_map(|t| tokenizer.decode(*t).unwrap()).copied().collect();
        prop_assert_eq!(back, text);
    }

    #[test]
    fn any_bytes_make_the_round_trip(text: Vec<u8>) {
        let list = List::parse(EXCERPT).unwrap();
        let words = list.section();
        let vocabulary = Tokenizer::Vocabulary(Vocabulary::open(&words).unwrap());
        for tokenizer in [Tokenizer::Bytes, vocabulary] {
            let (mut stream, mut shown, mut back) = (Utf8Stream::new(), String::new(), Vec::new());
            for token in tokenizer.encode(&text) {
                prop_assert!(token < tokenizer.vocab());
                let piece = tokenizer.decode(token).unwrap();
                stream.push(piece, &mut shown).unwrap();
                back.extend_from_slice(piece);
            }
            stream.finish(&mut shown).unwrap();
            prop_assert_eq!(&back, &text);
            prop_assert_eq!(shown, String::from_utf8_lossy(&text));
        }
    }

    /// Whatever is accepted encodes and decodes; nothing panics or goes on for ever.
    #[test]
    fn hostile_sections_end(changes in proptest::collection::vec((any::<usize>(), any::<u32>()), 1..4)) {
        let mut words = list(&[b"ab", b"abc", b"abcd", b"bc"]).section();
        let len = words.len();
        for (at, xor) in changes {
            words[at % len] ^= xor >> (at % 32);
        }
        if let Ok(vocabulary) = Vocabulary::open(&words) {
            let tokenizer = Tokenizer::Vocabulary(vocabulary);
            let text = b"abcdabcabbcd";
            let back: Vec<u8> =
                tokenizer.encode(text).flat_map(|t| tokenizer.decode(t).unwrap()).copied().collect();
            prop_assert_eq!(&back, text);
        }
    }
}

/// Lines of `rwkv_vocab_v20230424.txt`, CRLF as in the package `rwkv`.
const EXCERPT: &[u8] = include_bytes!("../../../tests/golden/tokens/excerpt.txt");

#[test]
fn an_excerpt_of_the_world_vocabulary() {
    let list = List::parse(EXCERPT).unwrap();
    let lf: Vec<u8> = EXCERPT.iter().copied().filter(|byte| *byte != b'\r').collect();
    assert_ne!(lf.len(), EXCERPT.len());
    assert_eq!(List::parse(&lf).unwrap(), list);
    let words = list.section();
    let tokenizer = Tokenizer::Vocabulary(Vocabulary::open(&words).unwrap());
    assert_eq!(tokenizer.end_of_text(), Some(0));
    assert_eq!(tokenizer.decode(0), Ok(&[][..]));
    let vocab = tokenizer.vocab();
    assert_eq!(tokenizer.decode(vocab), Err(TokenizerError::UnknownToken { token: vocab }));
    for (id, token) in list.tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
        assert_eq!(tokenizer.decode(id as u32), Ok(token.as_slice()));
        assert!(tokenizer.encode(token).eq([id as u32]), "{id}");
    }
    let invalid = list.tokens.iter().filter(|token| std::str::from_utf8(token).is_err()).count();
    assert!(invalid > 128 + 20, "{invalid} tokens are not UTF-8");
}

#[test]
fn literals() {
    let good: [(&str, &[u8]); 9] = [
        ("'a'", b"a"),
        ("\"it's\"", b"it's"),
        (r"'\\\''", b"\\'"),
        (r"'\n\t\r\x00\xe9'", "\n\t\r\0\u{e9}".as_bytes()),
        (r"b'\xff\n\''", b"\xff\n'"),
        (r"'\u4e16\U0001f600'", "世😀".as_bytes()),
        ("'世界'", "世界".as_bytes()),
        (r"b'\0\101\1018'", b"\0AA8"),
        ("' '", b" "),
    ];
    for (literal, bytes) in good {
        assert_eq!(literal::parse(literal), Ok(bytes.to_vec()), "{literal}");
    }
    for literal in [
        "",
        "a",
        "'",
        "'a",
        "'a\"",
        "''a'",
        r"'\'",
        r"'\q'",
        r"'\x1'",
        r"'\ud800'",
        "b'é'",
        r"b'\u0041'",
        r"b'\777'",
    ] {
        assert!(literal::parse(literal).is_err(), "{literal}");
    }
}

#[test]
fn lists_are_checked() {
    let whole = String::from_utf8(EXCERPT.to_vec()).unwrap();
    let error = |text: &str| List::parse(text.as_bytes()).unwrap_err().to_string();
    let with = |line: &str| error(&format!("{whole}{line}\n"));
    let lines = whole.lines().count() + 1;
    for (line, reason) in [
        ("70000 'x y' 3", "the id 70000 is above 65535"),
        ("-1 'x y' 3", "\"-1\" is not an id"),
        ("300", "there are not three parts"),
        ("65000 'x y' 4", "the token has 3 bytes, not 4"),
        ("65000 'x y", "it is not a Python literal such as 'a' or b'\\xff'"),
        ("65 'x y' 3", "the id 65 is there already"),
        ("65000 'a' 1", "the token is there already, as 98"),
        ("65000 '' 0", "the token is empty"),
    ] {
        assert_eq!(with(line), format!("line {lines} is not `id literal length`: {reason}"));
    }
    let long = format!("65000 '{}' 256", "x".repeat(256));
    assert!(with(&long).ends_with("the token has 256 bytes: 255 are the most"));
    let without = whole.lines().filter(|line| !line.starts_with("98 ")).collect::<Vec<_>>();
    assert!(error(&without.join("\n")).starts_with("no token is the single byte 0x61"));
    assert!(matches!(List::parse(b"1 '\xff' 1"), Err(ListError::Utf8 { line: 1 })));
}

#[test]
fn damaged_sections_are_refused() {
    let good = list(&[b"ab", b"abc"]).section();
    assert_eq!(Vocabulary::open(&good).unwrap().ids(), 259);
    let refused = |edit: &dyn Fn(&mut Vec<u32>)| {
        let mut words = good.clone();
        edit(&mut words);
        Vocabulary::open(&words).unwrap_err()
    };
    let order = 4 + 259;
    assert_eq!(refused(&|w| w.clear()), VocabularyError::Size);
    assert_eq!(refused(&|w| w[0] = 65_537), VocabularyError::Size);
    assert_eq!(refused(&|w| w[1] = 260), VocabularyError::Size);
    assert_eq!(refused(&|w| w[2] = u32::MAX), VocabularyError::Size);
    assert_eq!(refused(&|w| w[3] = 1), VocabularyError::Size);
    assert_eq!(refused(&|w| w.extend([0; 4])), VocabularyError::Size);
    assert_eq!(refused(&|w| w.truncate(200)), VocabularyError::Size);
    assert_eq!(refused(&|w| w[5] |= 0xff_ffff), VocabularyError::Entry { token: 1 });
    assert_eq!(refused(&|w| w[4] = 1), VocabularyError::Entry { token: 0 });
    assert_eq!(refused(&|w| w[4] = 1 << 24), VocabularyError::Order { rank: 258 });
    assert_eq!(refused(&|w| w[order] = 0x0001_0002), VocabularyError::Order { rank: 1 });
    assert_eq!(refused(&|w| w[order] = 0x0001_0001), VocabularyError::Order { rank: 1 });
    // The length of the token 0xff grows: no byte follows it.
    assert_eq!(refused(&|w| w[4 + 256] += 1 << 24), VocabularyError::Entry { token: 256 });
    // 0x00 becomes 0x00 0x01: still in order.
    assert_eq!(refused(&|w| w[4 + 1] += 1 << 24), VocabularyError::Singles);
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/tokens");

/// Compares the tokens of the golden text with those that another implementation found.
fn agree(list: &List, ids: &str) {
    let read = |name: &str| std::fs::read(format!("{GOLDEN}/{name}")).unwrap();
    let (text, ids) = (read("text.bin"), read(ids));
    let expected = ids.as_chunks::<2>().0.iter().map(|id| u32::from(u16::from_le_bytes(*id)));
    let words = list.section();
    let tokenizer = Tokenizer::Vocabulary(Vocabulary::open(&words).unwrap());
    assert_eq!(tokenizer.encode(&text).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn an_excerpt_agrees_with_the_package_rwkv() {
    agree(&List::parse(EXCERPT).unwrap(), "excerpt.ids");
}

/// Greedy longest match in Python, and a list as `models/train/vocabulary.py` writes it.
#[test]
fn a_trained_vocabulary_agrees_with_the_script_that_trained_it() {
    let list = List::read(&Path::new(GOLDEN).join("trained.txt")).unwrap();
    let empty = list.tokens.iter().filter(|token| token.is_empty()).count();
    assert_eq!((list.ids(), empty, list.tokens[0].len()), (384, 1, 0));
    agree(&list, "trained.ids");
}

/// The whole list has a megabyte and is not in the repository.
#[test]
fn the_world_vocabulary_agrees_with_the_package_rwkv() {
    let name = "rwkv_vocab_v20230424.txt";
    let path = match std::env::var_os("RWKV_VOCABULARY") {
        Some(path) => path.into(),
        None => Path::new(GOLDEN).join("../../../target/tokenizers").join(name),
    };
    if !path.exists() {
        println!(
            "skipped: {} is not there; name it in RWKV_VOCABULARY, or let `cargo xtask test` fetch it",
            path.display()
        );
        return;
    }
    let list = List::read(&path).unwrap();
    agree(&list, "world.ids");
    let count = |keep: &dyn Fn(&Vec<u8>) -> bool| list.tokens.iter().filter(|t| keep(t)).count();
    assert_eq!((list.ids(), count(&|t| !t.is_empty())), (65_530, 65_529));
    assert_eq!(count(&|t| std::str::from_utf8(t).is_err()), 486);
    let words = list.section();
    assert_eq!(4 * words.len(), 663_136);
    let tokenizer = Tokenizer::Vocabulary(Vocabulary::open(&words).unwrap());
    for (id, token) in list.tokens.iter().enumerate().skip(1) {
        assert_eq!(tokenizer.decode(id as u32), Ok(token.as_slice()));
        assert!(tokenizer.encode(token).eq([id as u32]), "{id}");
    }
}
