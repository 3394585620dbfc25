//! What fuzzing starts from: a few small files for every reader, made by code.

use std::fs;

use rwkv_core::{exec::Written, image::SectionKind, sampler::SamplerConfig};
use rwkv_embedded::agent::{
    frame::encode,
    protocol::{Depth, MAX_FRAME, Reply, Request, SamplerSettings},
};
use rwkv_host::{
    convert::{Weights, with_section},
    memory::Memory,
    prompts::Case,
    state::{self, Place},
    tokenizer::List,
    trace::Trace,
};

use crate::{
    baked,
    blocks::Blocks,
    formats, image_with,
    random::{self, Container, VERSIONS},
    step,
};

/// The name of each fuzz target, and its seeds.
///
/// # Panics
/// If one cannot be made.
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let checkpoints = |containers: &[Container], versions: &[&str]| -> Vec<Vec<u8>> {
        let pairs = containers.iter().flat_map(|c| versions.iter().map(move |v| (*v, *c)));
        pairs.map(|(version, container)| random::tiny(version, container)).collect()
    };
    let torch = checkpoints(&[Container::Torch], &VERSIONS);
    let pickle = VERSIONS.map(random::tiny_pickle).to_vec();
    let mut safetensors = checkpoints(&[Container::Safetensors], &VERSIONS);
    safetensors.extend(checkpoints(&[Container::HuggingFace], &["4", "6"]));
    safetensors.extend(checkpoints(
        &[Container::FlashLinearAttention, Container::FlashLinearAttentionJoined],
        &["7"],
    ));
    let mut gguf = checkpoints(&[Container::Gguf], &["6", "7"]);
    let [quantised, _] = random::quantised(Blocks::Q5_1);
    gguf.push(fs::read(quantised.path()).expect("it is there"));
    vec![
        ("torch", torch),
        ("pickle", pickle),
        ("safetensors", safetensors),
        ("shards", shards()),
        ("rwkv_cpp", checkpoints(&[Container::RwkvCpp], &["4", "5.0", "5.2", "6", "7"])),
        ("gguf", gguf),
        ("image", images()),
        ("tokens", vec![list("\n"), list("\r\n")]),
        ("vocabulary", vec![vocabulary()]),
        ("state", vec![saved()]),
        ("trace", vec![golden()]),
        ("prompts", prompts()),
        ("recipe", recipes()),
        ("frame", frames()),
    ]
}

/// The index of a model in two shards, and one that names itself.
fn shards() -> Vec<Vec<u8>> {
    let folder = random::tiny_shards("7");
    let name = "model.safetensors.index.json";
    let index = fs::read(folder.path().join(name)).expect("it is there");
    vec![index, format!(r#"{{"weight_map":{{"emb.weight":"{name}"}}}}"#).into_bytes()]
}

/// Every version, each in another format, and one with a vocabulary.
fn images() -> Vec<Vec<u8>> {
    let image = |(index, version): (usize, &str)| {
        let file = random::file(&random::tiny(version, Container::Safetensors));
        image_with(file.path(), &formats()[index % 6].1).bytes().to_vec()
    };
    let mut images: Vec<Vec<u8>> = VERSIONS.into_iter().enumerate().map(image).collect();
    let bare = crate::image(random::small("4").path(), Weights::Int4);
    let words = List::parse(&list("\n")).expect("a list").section();
    images.push(baked(&bare, &[1, 2]).bytes().to_vec());
    let bare = bare.open().expect("it opens");
    let scaled: Vec<String> = (0..bare.header().dims.dim).map(|i| (i % 3).to_string()).collect();
    let metadata = format!(r#"{{"scaled":{{"head":[{}]}}}}"#, scaled.join(","));
    let mut text = metadata.into_bytes();
    text.resize(text.len().next_multiple_of(16), b' ');
    let text = text.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    images.push(with_section(&bare, SectionKind::Metadata, Some(text)).expect("it fits"));
    images.push(with_section(&bare, SectionKind::Tokenizer, Some(words)).expect("it fits"));
    images
}

/// A list of all bytes and a few longer tokens.
fn list(end: &str) -> Vec<u8> {
    let mut lines: Vec<String> = (0..256).map(|b| format!("{b} b'\\x{b:02x}' 1")).collect();
    lines.extend(
        [r"256 'ab' 2", r#"257 "it's" 4"#, r"259 '\n\n' 2", "260 '\u{e9}' 2"].map(str::to_owned),
    );
    lines.iter().flat_map(|line| [line, end]).collect::<String>().into_bytes()
}

fn vocabulary() -> Vec<u8> {
    let words = List::parse(&list("\n")).expect("a list").section();
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn saved() -> Vec<u8> {
    let file = random::tiny_image();
    let image = file.open().expect("it opens");
    let mut memory = Memory::new(&image);
    step(&mut memory, &image, &[1, 2]).expect("it steps");
    let place = Place { position: 2, pending: Some(3) };
    state::to_bytes(&image, &mut memory, place).expect("it is saved")
}

fn golden() -> Vec<u8> {
    let file = random::tiny_image();
    let image = file.open().expect("it opens");
    let cases = [Case::numbered(0, vec![1, 2], 2), Case::numbered(1, vec![3], 0)];
    let banned = [5, 7].into_iter().collect();
    let sampler = SamplerSettings { config: SamplerConfig::GREEDY, banned };
    let trace = Trace::record(&image, sampler, &cases, |_| {}).expect("it is traced");
    trace.to_bytes().expect("it is short")
}

fn prompts() -> Vec<Vec<u8>> {
    let text = "\"X:1\"\n{\"prompt\": \"\\u00e9\", \"generate\": 6, \"name\": \"a\"}\n{\"tokens\":[1,2]}\n";
    vec![text.into()]
}

fn recipes() -> Vec<Vec<u8>> {
    let text = "[[rule]]\ntensor = 'blocks.*.att.[kv]*'\nweights = 'int4'\ninput_bits = 9\n\
                [[rule]]\ntensor = '*'\nweights = 'f16'\n";
    vec![text.into()]
}

fn frames() -> Vec<Vec<u8>> {
    let mut buffer = [0; MAX_FRAME];
    let tokens = [1, 300, 70_000].into_iter().collect();
    let mut frames: Vec<Vec<u8>> = [
        Request::Info,
        Request::Reset(SamplerConfig { temperature: 0.8, ..SamplerConfig::GREEDY }.into()),
        Request::Feed(tokens),
        Request::Generate { count: 9 },
        Request::ReadState { first: 0 },
        Request::WriteState { first: 0, words: [0.5; 3].into_iter().collect() },
        Request::AcceptState,
        Request::Benchmark([1, 300].into_iter().collect()),
        Request::Look { token: 300, depth: Depth::Sections },
        Request::Look { token: 300, depth: Depth::Operations { section: 1 } },
        Request::Look { token: 300, depth: Depth::Values(Written { section: 1, operation: 2 }) },
        Request::ReadImage { first: 300 },
    ]
    .iter()
    .map(|request| encode(request, &mut buffer).expect("it fits").to_vec())
    .collect();
    frames.push(encode(&Reply::Done, &mut buffer).expect("it fits").to_vec());
    frames.push(frames.concat());
    // Without its end and its checksum, a frame of one block is a count and the message.
    let whole = encode(&Request::Generate { count: 9 }, &mut buffer).expect("it fits");
    frames.push(whole[1..whole.len() - 5].to_vec());
    frames
}
