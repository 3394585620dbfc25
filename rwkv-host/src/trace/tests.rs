use proptest::prelude::*;
use rwkv_core::sampler::SamplerConfig;

use super::*;
use crate::{
    convert::Weights,
    validate::tests::{MODEL, image},
};

/// A trace of no image that there is.
fn small() -> Trace {
    let traced = |name: &str, prompt: &[u32], generated: &[u32]| Traced {
        name: name.to_owned(),
        prompt: prompt.to_vec(),
        generated: generated.to_vec(),
        digests: (0..prompt.len() + generated.len())
            .map(|i| Digest(0x0123_4567 + i as u32, 7))
            .collect(),
    };
    let sampler = SamplerConfig { temperature: 0.5, seed: 3, ..SamplerConfig::GREEDY };
    Trace {
        image: ImageInfo { version: 40, identity: 0x89ab_cdef, vocab: 256 },
        sampler: SamplerSettings { config: sampler, banned: [9].into_iter().collect() },
        prompts: vec![traced("a", &[88, 58], &[1]), traced("", &[200], &[])],
    }
}

/// The same with another content, its length and checksum right.
fn with_content(content: &[u8]) -> Vec<u8> {
    let mut bytes = small().to_bytes().unwrap()[..FRONT].to_vec();
    bytes[8..].copy_from_slice(&(content.len() as u32).to_le_bytes());
    bytes.extend(content);
    bytes.extend(CRC.checksum(&bytes).to_le_bytes());
    bytes
}

/// Another implementation wrote these bytes from the layout in the book, chapter *Devices*.
#[test]
fn the_layout_is_the_pinned_bytes() {
    let bytes = small().to_bytes().unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let front = "52574b54010000004c000000";
    let image = "28ef9bafcd088002";
    let sampler = "0000003f000000803f000000000000803f00000000000000000000803f00030109";
    let prompts = "02016102583a010103e78a8d0907e88a8d0907e98a8d09070001c8010001e78a8d0907";
    let crc = "034d6cb0";
    assert_eq!(hex, [front, image, sampler, prompts, crc].concat());
}

#[test]
fn a_trace_survives_and_damage_does_not() {
    let bytes = small().to_bytes().unwrap();
    assert_eq!(Trace::parse(&bytes), Ok(small()));
    let error = |at: usize| match at {
        0..4 => TraceError::Magic,
        4 | 5 => TraceError::Version(0),
        6 | 7 => TraceError::Content(""),
        8..12 => TraceError::Short { needed: 0, given: 0 },
        _ => TraceError::Checksum,
    };
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let found = Trace::parse(&damaged).unwrap_err();
            let is_long = matches!(found, TraceError::Long { .. }) && (8..12).contains(&at);
            let is_named = std::mem::discriminant(&found) == std::mem::discriminant(&error(at));
            assert!(is_named || is_long, "byte {at}, bit {bit}: {found}");
        }
        let cut = Trace::parse(&bytes[..at]).unwrap_err();
        assert!(matches!(cut, TraceError::Short { .. }), "{at}: {cut}");
    }
    let needed = bytes.len() as u64;
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Trace::parse(&longer), Err(TraceError::Long { needed }));
    let mut newer = bytes;
    newer[4] = 2;
    assert_eq!(Trace::parse(&newer), Err(TraceError::Version(2)));
}

#[test]
fn a_content_that_makes_no_sense_is_refused() {
    type Change = fn(&mut Trace);
    let refused = |change: Change| {
        let mut trace = small();
        change(&mut trace);
        Trace::parse(&trace.to_bytes().unwrap()).unwrap_err().to_string()
    };
    let cases: [(Change, &str); 7] = [
        (|trace| trace.prompts.clear(), "there is no prompt"),
        (|trace| trace.prompts[1].prompt.clear(), "a prompt has no token"),
        (|trace| trace.prompts[0].generated.push(1), "not one digest for each token"),
        (|trace| trace.prompts[0].digests.truncate(2), "not one digest for each token"),
        (|trace| trace.prompts[0].generated[0] = 256, "a token is not in the vocabulary"),
        (|trace| trace.sampler.config.temperature = f32::NAN, "the trace's sampler"),
        (|trace| trace.sampler.banned.push(3).unwrap(), "the trace's sampler"),
    ];
    for (change, expected) in cases {
        let error = refused(change);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let bytes = small().to_bytes().unwrap();
    let content = &bytes[FRONT..bytes.len() - END];
    let longer = [content, &[0]].concat();
    let error = Trace::parse(&with_content(&longer)).unwrap_err();
    assert_eq!(error, TraceError::Content("something follows the last prompt"));
    for cut in 0..content.len() {
        let error = Trace::parse(&with_content(&content[..cut])).unwrap_err();
        assert!(matches!(error, TraceError::Content(_)), "{cut}: {error}");
    }
}

proptest! {
    #[test]
    fn any_content_is_read_or_refused(content in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(trace) = Trace::parse(&with_content(&content)) {
            prop_assert_eq!(Trace::parse(&trace.to_bytes().unwrap()), Ok(trace));
        }
    }
}

#[test]
fn a_trace_is_what_a_step_computes_and_a_check_finds_what_is_not() {
    let Some(file) = image(MODEL, Weights::Int8) else { return };
    let image = file.open().unwrap();
    let sampler = SamplerConfig { temperature: 0.8, seed: 5, ..SamplerConfig::GREEDY };
    let cases: Vec<Case> = [(1500, 3), (1, 20)]
        .iter()
        .enumerate()
        .map(|(number, (len, generate))| {
            let tokens = (0..*len).map(|i| 32 + (i * 7) % 90).collect();
            Case::numbered(number, tokens, *generate)
        })
        .collect();
    let mut heard = 0;
    let mut trace =
        Trace::record(&image, sampler.into(), &cases, |tokens| heard += tokens).unwrap();
    assert_eq!((trace.tokens(), heard), (1524, 1524));
    for (case, traced) in cases.iter().zip(&trace.prompts) {
        let mut host = Host::stepwise(&image, sampler).unwrap();
        let mut digests = host.feed(&case.tokens).unwrap();
        for token in &traced.generated {
            assert_eq!(host.choose(), Ok(*token));
            digests.extend(host.feed(&[*token]).unwrap());
        }
        assert_eq!((&traced.digests, traced.generated.len()), (&digests, case.generate as usize));
    }

    let found = check(&image, &trace, |_| {}).unwrap();
    assert!(found.is_equal() && found.tokens == 1524, "{found}");
    assert!(found.to_string().ends_with("1,524 tokens, 0 that differ from the trace"));
    trace.prompts[0].digests[1100].1 ^= 1;
    trace.prompts[0].digests[1101].1 ^= 1;
    let found = check(&image, &trace, |_| {}).unwrap();
    let first = found.prompts[0].first_difference.unwrap();
    assert_eq!((first.index, first.token), (1100, trace.prompts[0].prompt[1100]));
    assert!(found.prompts[1].first_difference.is_none());
    let last = found.to_string();
    let last = last.lines().last().unwrap();
    assert!(last.starts_with("prompt 1: token 1100 differs: after reading "), "{last}");
    trace.image.identity ^= 1;
    let error = check(&image, &trace, |_| {}).unwrap_err().to_string();
    assert!(error.starts_with("the trace is of image "), "{error}");
}
