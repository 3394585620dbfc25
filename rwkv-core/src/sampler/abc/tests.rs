use std::{string::String, vec::Vec};

use super::*;
use crate::sampler::Xoshiro128StarStar;

/// Lengths of the bars of a body in 48ths of the unit, counted in another way: all notes first,
/// then what changes them. With each what bar line follows.
fn bars(body: &str) -> Vec<(u32, String)> {
    let (mut bars, mut notes, mut triplet) = (Vec::new(), Vec::<u32>::new(), 0);
    let mut broken = None;
    let mut chars = body.chars().peekable();
    let mut grace = false;
    while let Some(c) = chars.next() {
        match c {
            '{' => grace = true,
            '}' => grace = false,
            _ if grace => {}
            'A'..='G' | 'a'..='g' | 'z' => {
                while matches!(chars.peek(), Some('\'' | ',')) {
                    chars.next();
                }
                let mut text = String::new();
                while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || *c == '/') {
                    text.push(c);
                }
                let (beats, rest) = match text.split_once('/') {
                    None => (text.as_str(), None),
                    Some((beats, rest)) => (beats, Some(rest)),
                };
                let beats: u32 = if beats.is_empty() { 1 } else { beats.parse().unwrap() };
                let mut length = 48 * beats;
                match rest {
                    None => {}
                    Some("") => length /= 2,
                    Some("/") => length /= 4,
                    Some(number) => length /= number.parse::<u32>().unwrap(),
                }
                if triplet > 0 {
                    triplet -= 1;
                    length = length * 2 / 3;
                }
                match broken.take() {
                    Some('>') => {
                        *notes.last_mut().unwrap() = length * 3 / 2;
                        length /= 2;
                    }
                    Some(_) => {
                        *notes.last_mut().unwrap() = length / 2;
                        length = length * 3 / 2;
                    }
                    None => {}
                }
                notes.push(length);
            }
            '(' if chars.peek() == Some(&'3') => {
                chars.next();
                triplet = 3;
            }
            '<' | '>' => broken = Some(c),
            '|' | ':' => {
                let mut line = String::from(c);
                while let Some(c) = chars.next_if(|c| "|:]".contains(*c)) {
                    line.push(c);
                }
                line.extend(chars.next_if(|c| "12".contains(*c)));
                bars.push((notes.drain(..).sum(), line));
            }
            _ => {}
        }
    }
    bars.push((notes.drain(..).sum(), String::new()));
    bars
}

/// Every bar is whole, or a short one at the start of a section or at its end.
fn check(body: &str, full: u32) {
    let bars = bars(body);
    let (mut first, mut pickup) = (true, 0);
    let last = bars.len() - 1;
    for (index, (length, line)) in bars.into_iter().enumerate() {
        let ending = line.ends_with(['1', '2']);
        let ends = line.len() > 1 + usize::from(ending);
        if index == last {
            // It is not over.
        } else if length == 0 {
            assert!(first && ends, "an empty bar in {body}");
        } else if length != full {
            let opens = first && length < full;
            let closes = ends && length + pickup == full;
            assert!(opens || closes, "bar {index}, {line}: {length} of {full} in {body}");
        }
        if first && line.starts_with('|') {
            pickup = length % full;
        }
        first = ends && !ending;
    }
}

#[test]
fn whatever_is_written_has_whole_bars() {
    let mut rng = Xoshiro128StarStar::from_seed(7);
    let mut draw = |n: usize| ((rng.next_unit() * n as f32) as usize).min(n - 1);
    for (header, full) in [
        ("M:2/4\nL:1/16\n", 8),
        ("M:6/8\nL:1/8\n", 6),
        ("M:C|\nL:1/8\n", 8),
        ("M:C\nL:1/4\n", 4),
        ("M:9/8\n", 9),
        ("M:3/8\nL:1/16\n", 6),
    ] {
        for _ in 0..200 {
            let mut text = String::from("X:1\n") + header + "K:G\n";
            let start = text.len();
            let mut tune = Abc::new().after(text.as_bytes()).unwrap();
            for _ in 0..400 {
                let allowed: Vec<(u8, Abc)> =
                    (0..=255).filter_map(|byte| Some((byte, tune.after(&[byte])?))).collect();
                assert!(!allowed.is_empty(), "nothing may follow {text}");
                let (byte, next) = allowed[draw(allowed.len())];
                text.push(char::from(byte));
                tune = next;
                if tune == Abc::new() {
                    break;
                }
            }
            check(&text[start..], 48 * full);
        }
    }
}

#[test]
fn what_tunes_are_made_of_is_taken() {
    let tune = Abc::new().after(b"\nX:1\nT:A Tune (or two)\nM:2/4\nL:1/8\nK:G\n").unwrap();
    for body in [
        "GABc | d4 |]\n\n",
        "G2 B>c | {e}d3 .e |\n",
        "|: G | (3ABc d2 | ~G^F_B=c | (d3 e) | G3 :|\n",
        "D | GABc | d3 :|2 GABc | d3 ||\n",
        "|: GABc | d4 :: e2 (3(fga) | b'4 :|\n\n",
        "G/A/B/c/ d/e/f | g//a//b/ c2 G | z4 | A,/2B/2c3/2d3/2 | g4 |",
        "d-d d2-| d4 | ((3GAB) c2 |1 d4 :|",
    ] {
        let mut at = 0;
        let bytes = body.as_bytes();
        while at < bytes.len() && tune.after(&bytes[..=at]).is_some() {
            at += 1;
        }
        assert_eq!(&body[..at], body, "and no more is taken");
    }
}

#[test]
fn what_breaks_a_bar_is_not() {
    let tune = Abc::new().after(b"X:1\nM:2/4\nL:1/8\nK:G\n").unwrap();
    for body in [
        // Too long, too short, none at all.
        "GABcd",
        "GABc | GAB |",
        "GABc | | ",
        "GABc | GA ||",
        "GABG5",
        // No room for what was begun.
        "GABc | GAB>c4",
        "GABc>",
        "GAB(3cde",
        "GA(3cd |",
        "GA(3cd2",
        // Half of something.
        "^|",
        ".|",
        "{}",
        "(|",
        "G >",
        "G)",
        "\n",
        "GABc :d",
        // What the grammar has not.
        "[CEG]",
        "\"Am\"",
    ] {
        assert_eq!(tune.after(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn a_metre_that_is_none_binds_nothing() {
    let tune = Abc::new().after(b"X:1\nM:none\nK:G\n").unwrap();
    assert!(tune.after(b"GABcdefgGABcdefg | d | G2 ||\n\n").is_some());
    // Neither does one that is no whole number of quarters of the unit.
    let odd = Abc::new().after(b"X:1\nM:3/64\nL:1/2\nK:G\n").unwrap();
    assert!(odd.after(b"GAB | d |").is_some());
}

#[test]
fn tokens_are_taken_by_their_bytes() {
    let mut tunes = Tunes::new(Tokenizer::Bytes);
    for byte in b"X:1\nM:2/4\nL:1/8\nK:G\nGABc" {
        assert!(tunes.allows(u32::from(*byte)));
        tunes.advance(u32::from(*byte));
    }
    let allowed: Vec<u32> = (0..256).filter(|token| tunes.allows(*token)).collect();
    let wanted: Vec<u32> = "\n ',-/234:|".bytes().map(u32::from).collect();
    // Of the lengths, `c4//` is the longest that fits, and `:` may begin `:|`.
    assert_eq!(allowed, wanted);
    tunes.advance(u32::from(b'd'));
    assert_eq!((tunes.tune(), tunes.allows(u32::from(b'|'))), (None, false));
    tunes.restart();
    assert_eq!(tunes.tune(), Some(Abc::new()));
}

/// A bar of 65,024 quarters, of which the first bar has all but four.
#[test]
fn the_longest_bars_are_counted() {
    let mut tune = Abc::new().after(b"X:1\nM:127/1\nL:1/128\nK:G\n").unwrap();
    for _ in 0..1806 {
        tune = tune.after(b"c9").unwrap();
    }
    let first = tune.after(b"z | ").unwrap();
    assert!(first.after(b"z ||").is_some());
    let mut second = first;
    for _ in 0..1000 {
        second = second.after(b"c9").unwrap();
    }
    assert!(second.after(b"z |").is_none());
}

#[test]
fn the_state_is_a_few_bytes() {
    assert!(size_of::<Abc>() <= 32, "{}", size_of::<Abc>());
}
