//! The agent over a transport in memory. Boards without an image are enough for the protocol;
//! what is computed is tested with real images, end to end.

use core::convert::Infallible;
use std::{string::String, vec, vec::Vec};

use embedded_io::ErrorType;
use proptest::prelude::*;
use rwkv_core::sampler::SamplerConfig;
use rwkv_core::{exec::Part, sampler::Order};

use super::{
    frame::FrameError,
    protocol::{Depth, MAX_DIGESTS, MAX_FEED, MAX_SPENT, MAX_STATE, MAX_VALUES, Spent},
    *,
};

mod random;

struct Bench;

impl Board for Bench {
    const NAME: &'static str = "bench";
    const CORE: &'static str = "none";

    fn now(&mut self) -> u32 {
        0
    }

    fn tick(&self) -> Tick {
        Tick::Nanoseconds(1)
    }
}

/// Gives its input in pieces of `piece` bytes, then ends; keeps what is written.
struct Wire<'a> {
    input: &'a [u8],
    piece: usize,
    output: Vec<u8>,
}

impl ErrorType for Wire<'_> {
    type Error = Infallible;
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let len = self.piece.min(buffer.len()).min(self.input.len());
        let (now, later) = self.input.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.input = later;
        Ok(len)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        self.output.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Sends bytes to an agent with this flash; returns how it ended and its replies.
fn talk(flash: &[u8], input: &[u8], piece: usize) -> (End, Vec<Reply>) {
    let mut arena = [0.0; 16];
    let mut wire = Wire { input, piece, output: Vec::new() };
    let end = Agent::new(Bench, flash, &mut arena).run(&mut wire).unwrap();
    let mut decoder = Decoder::new();
    let replies = wire.output.iter().filter_map(|byte| decoder.push(*byte));
    (end, replies.collect::<Result<_, _>>().unwrap())
}

fn frame(request: &Request) -> Vec<u8> {
    let mut buffer = [0; MAX_FRAME];
    encode(request, &mut buffer).unwrap().to_vec()
}

fn info(error: ImageError) -> Reply {
    Reply::Info(Info {
        protocol: PROTOCOL_VERSION,
        board: "bench".try_into().unwrap(),
        core: "none".try_into().unwrap(),
        tick: Tick::Nanoseconds(1),
        image: Err(error.into()),
    })
}

const ERASED: [u8; 256] = [0xFF; 256];

#[test]
fn without_an_image_it_answers_and_halts() {
    let requests = [
        Request::Info,
        Request::Reset(SamplerConfig::GREEDY.into()),
        Request::Feed([1, 2, 3].as_slice().try_into().unwrap()),
        Request::Generate { count: u8::MAX },
        Request::Memory,
        Request::Verify,
        Request::Profile([1, 2, 3].as_slice().try_into().unwrap()),
        Request::ReadState { first: 0 },
        Request::WriteState { first: 0, words: [1.0].into_iter().collect() },
        Request::AcceptState,
        Request::Benchmark([1, 2, 3].as_slice().try_into().unwrap()),
        Request::Look { token: 1, depth: Depth::Sections },
        Request::ReadImage { first: 0 },
        Request::Halt,
    ];
    let input: Vec<u8> = requests.iter().flat_map(frame).collect();
    let bad = Reply::Error(AgentError::Model(ImageError::Magic.into()));
    let mut expected = vec![info(ImageError::Magic)];
    expected.resize(requests.len() - 1, bad);
    expected.push(Reply::Done);
    assert_eq!(talk(&ERASED, &input, 64), (End::Halted, expected));
}

#[test]
fn an_empty_flash_is_reported() {
    let (end, replies) = talk(&[], &frame(&Request::Info), 64);
    assert_eq!(end, End::Closed);
    assert!(
        matches!(&replies[..], [Reply::Info(info)]
            if matches!(info.image, Err(Error::Image(ImageError::Truncated { .. })))),
        "{replies:?}"
    );
}

#[test]
fn frames_may_come_in_any_pieces() {
    let input = [frame(&Request::Info), frame(&Request::Halt)].concat();
    for piece in 1..=input.len() {
        let (end, replies) = talk(&ERASED, &input, piece);
        assert_eq!((end, replies.len()), (End::Halted, 2), "pieces of {piece} bytes");
    }
}

#[test]
fn every_frame_is_answered_once_and_the_next_one_is_in_step() {
    let mut damaged = frame(&Request::Info);
    damaged[1] ^= 0x40;
    let mut unknown = [0; MAX_FRAME];
    let unknown = encode(&[0x7F_u8], &mut unknown).unwrap();
    let mut longer = [0; MAX_FRAME];
    let longer = encode(&(0_u8, 0_u8), &mut longer).unwrap();
    let whole = frame(&Request::Memory);
    let mut cut = whole[..whole.len() - 3].to_vec();
    cut.push(0);
    let mut oversize = vec![1; 5 * MAX_FRAME];
    oversize.push(0);
    for bad in [&[0][..], &damaged, unknown, longer, &cut, &oversize] {
        let input = [bad, &frame(&Request::Info)].concat();
        let expected = vec![Reply::Error(AgentError::Frame), info(ImageError::Magic)];
        assert_eq!(talk(&ERASED, &input, 64), (End::Closed, expected), "{bad:?}");
    }
}

#[test]
fn the_longest_messages_fit_a_frame() {
    let feed = Request::Feed([u32::MAX; MAX_FEED].as_slice().try_into().unwrap());
    assert!(frame(&feed).len() <= MAX_FRAME);
    let words = [f32::MAX; MAX_STATE].into_iter().collect();
    let write = Request::WriteState { first: u32::MAX, words };
    assert!(frame(&write).len() <= MAX_FRAME);
    let config = SamplerConfig { top_k: u16::MAX, seed: u64::MAX, ..SamplerConfig::GREEDY };
    let banned = [u32::MAX; MAX_BANNED].as_slice().try_into().unwrap();
    let reset = Request::Reset(SamplerSettings { config, banned });
    assert!(frame(&reset).len() <= MAX_FRAME);
    let name: String = core::iter::repeat_n('x', 24).collect();
    let image = ImageInfo { version: u8::MAX, identity: u32::MAX, vocab: u32::MAX };
    let mut buffer = [0; MAX_FRAME];
    let info = Info {
        protocol: u16::MAX,
        board: name.as_str().try_into().unwrap(),
        core: name.as_str().try_into().unwrap(),
        tick: Tick::Instructions(u32::MAX),
        image: Ok(image),
    };
    encode(&Reply::Info(info), &mut buffer).unwrap();
    let (section, part) = (u16::MAX, Part::Move);
    let most = Spent { section, id: u8::MAX, part, times: u32::MAX, ticks: u32::MAX };
    let spent = Reply::Spent([most; MAX_SPENT].as_slice().try_into().unwrap());
    encode(&spent, &mut buffer).unwrap();
    let digests = Reply::Digests([Digest(u32::MAX, u32::MAX); MAX_DIGESTS].into_iter().collect());
    encode(&digests, &mut buffer).unwrap();
    encode(&Reply::Values([f32::MAX; MAX_VALUES].into_iter().collect()), &mut buffer).unwrap();
    encode(&Reply::Image([u32::MAX; MAX_IMAGE].into_iter().collect()), &mut buffer).unwrap();
    let state = Reply::State([f32::MAX; MAX_STATE].into_iter().collect());
    encode(&state, &mut buffer).unwrap();
}

#[test]
fn a_short_buffer_is_an_error() {
    let whole = frame(&Request::Feed([0, 1, 2, 3].as_slice().try_into().unwrap()));
    for len in 0..whole.len() {
        let mut buffer = vec![0; len];
        let request = Request::Feed([0, 1, 2, 3].as_slice().try_into().unwrap());
        assert_eq!(encode(&request, &mut buffer), Err(FrameError::TooLong), "{len} bytes");
    }
}

fn settings() -> impl Strategy<Value = SamplerSettings> {
    let order = prop_oneof![Just(Order::Common), Just(Order::Official)];
    let numbers = prop::array::uniform7(-2.0..2.0_f32);
    let banned = prop::collection::vec(any::<u32>(), 0..=MAX_BANNED);
    (numbers, 0..64_u16, order, any::<u64>(), banned).prop_map(
        |(numbers, top_k, order, seed, banned)| {
            let [temperature, top_p, min_p, repetition, presence, frequency, penalty_decay] =
                numbers;
            SamplerSettings {
                config: SamplerConfig {
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    repetition,
                    presence,
                    frequency,
                    penalty_decay,
                    order,
                    seed,
                },
                banned: banned.as_slice().try_into().unwrap(),
            }
        },
    )
}

fn depth() -> impl Strategy<Value = Depth> {
    prop_oneof![
        Just(Depth::Sections),
        any::<u16>().prop_map(|section| Depth::Operations { section }),
        any::<(u16, u16)>()
            .prop_map(|(section, operation)| Depth::Values(Written { section, operation })),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let feed = prop::collection::vec(any::<u32>(), 0..=MAX_FEED);
    let (profile, benchmark) = (feed.clone(), feed.clone());
    prop_oneof![
        Just(Request::Info),
        Just(Request::Memory),
        Just(Request::Verify),
        Just(Request::Halt),
        Just(Request::AcceptState),
        any::<u32>().prop_map(|first| Request::ReadState { first }),
        any::<u32>().prop_map(|first| Request::ReadImage { first }),
        (any::<u32>(), depth()).prop_map(|(token, depth)| Request::Look { token, depth }),
        (any::<u32>(), prop::collection::vec(-1e30..1e30_f32, 0..=MAX_STATE)).prop_map(
            |(first, words)| Request::WriteState { first, words: words.into_iter().collect() }
        ),
        any::<u8>().prop_map(|count| Request::Generate { count }),
        feed.prop_map(|tokens| Request::Feed(tokens.as_slice().try_into().unwrap())),
        profile.prop_map(|tokens| Request::Profile(tokens.as_slice().try_into().unwrap())),
        benchmark.prop_map(|tokens| Request::Benchmark(tokens.as_slice().try_into().unwrap())),
        settings().prop_map(Request::Reset),
    ]
}

proptest! {
    #[test]
    fn a_request_survives_the_wire(request in request(), noise: Vec<u8>) {
        let mut decoder = Decoder::new();
        for byte in noise.iter().chain(&[0]) {
            let _ = decoder.push::<Request>(*byte);
        }
        let bytes = frame(&request);
        let (end, start) = bytes.split_last().unwrap();
        prop_assert!(start.iter().all(|byte| *byte != 0));
        prop_assert!(start.iter().all(|byte| decoder.push::<Request>(*byte).is_none()));
        prop_assert_eq!(decoder.push(*end), Some(Ok(request)));
    }

    #[test]
    fn a_flipped_bit_never_passes(request in request(), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = frame(&request);
        let at = at.index(bytes.len() - 1);
        bytes[at] ^= 1_u8 << bit;
        let mut decoder = Decoder::new();
        let found = bytes.iter().filter_map(|byte| decoder.push::<Request>(*byte));
        prop_assert!(found.into_iter().all(|found| found.is_err()));
    }

    #[test]
    fn any_bytes_end_in_one_reply_per_zero(input: Vec<u8>) {
        let (_, replies) = talk(&ERASED, &input, 7);
        prop_assert_eq!(replies.len(), input.iter().filter(|byte| **byte == 0).count());
    }

    #[test]
    fn any_flash_is_survived(flash: Vec<u8>) {
        let mut aligned = vec![0_u32; flash.len().div_ceil(4)];
        bytemuck::cast_slice_mut(&mut aligned)[..flash.len()].copy_from_slice(&flash);
        let flash = &bytemuck::cast_slice(&aligned)[..flash.len()];
        let (end, replies) = talk(flash, &frame(&Request::Info), 64);
        prop_assert_eq!((end, replies.len()), (End::Closed, 1));
    }
}

/// The bytes of messages, as other programs may have written them down. A change here is a change
/// of [`PROTOCOL_VERSION`].
#[test]
fn messages_are_the_pinned_bytes() {
    use rwkv_core::StreamError;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| std::format!("{b:02x}")).collect::<String>();
    let pack = |message: &dyn Fn(&mut [u8]) -> usize| {
        let mut buffer = [0; MAX_FRAME];
        let len = message(&mut buffer);
        hex(&buffer[..len])
    };
    let request = |r: Request| pack(&|b| postcard::to_slice(&r, b).unwrap().len());
    let reply = |r: Reply| pack(&|b| postcard::to_slice(&r, b).unwrap().len());
    let error = |e: Error| reply(Reply::Error(AgentError::Model(e)));
    let config = SamplerConfig {
        temperature: 0.5,
        top_k: 300,
        top_p: 0.25,
        min_p: 0.125,
        repetition: 2.0,
        presence: -0.25,
        frequency: 3.0,
        penalty_decay: 0.75,
        order: Order::Official,
        seed: 5,
    };
    let settings = SamplerSettings { config, banned: [7, 300].into_iter().collect() };
    assert_eq!(request(Request::Info), "00");
    assert_eq!(
        request(Request::Reset(settings)),
        "010000003fac020000803e0000003e00000040000080be000040400000403f01050207ac02"
    );
    assert_eq!(request(Request::Feed([1, 300].into_iter().collect())), "020201ac02");
    assert_eq!(request(Request::Generate { count: 9 }), "0309");
    assert_eq!(request(Request::Memory), "04");
    assert_eq!(request(Request::Verify), "05");
    assert_eq!(request(Request::Halt), "06");
    assert_eq!(request(Request::Profile([1, 300].into_iter().collect())), "070201ac02");
    assert_eq!(request(Request::ReadState { first: 300 }), "08ac02");
    let words = [1.0, -0.5].into_iter().collect();
    assert_eq!(request(Request::WriteState { first: 300, words }), "09ac02020000803f000000bf");
    assert_eq!(request(Request::AcceptState), "0a");
    assert_eq!(request(Request::Benchmark([1, 300].into_iter().collect())), "0b0201ac02");
    let look = |depth| request(Request::Look { token: 300, depth });
    assert_eq!(look(Depth::Sections), "0cac0200");
    assert_eq!(look(Depth::Operations { section: 300 }), "0cac0201ac02");
    assert_eq!(look(Depth::Values(Written { section: 2, operation: 300 })), "0cac020202ac02");
    assert_eq!(request(Request::ReadImage { first: 300 }), "0dac02");
    let token = Token { token: 65, digest: Digest(1, 2), ticks: 128, read: 300 };
    assert_eq!(reply(Reply::Token(token)), "014101028001ac02");
    let memory = Memory {
        state: 1,
        scratch: 2,
        stack: Some(3),
        statics: None,
        heap: 0,
        flash: Some(300),
        buffers: 4,
    };
    assert_eq!(reply(Reply::Memory(memory)), "0201020103000001ac0204");
    assert_eq!(reply(Reply::Done), "03");
    let name = |name: &str| name.try_into().unwrap();
    let (board, core, tick) = (name("b"), name("c"), Tick::SimulatedCycles(300));
    let image = Err(ImageError::Magic.into());
    let info = Info { protocol: 300, board, core, tick, image };
    assert_eq!(reply(Reply::Info(info)), "00ac020162016302ac02010003");
    let spent = Spent { section: 300, id: 68, part: Part::Columns, times: 2, ticks: 128 };
    assert_eq!(reply(Reply::Spent([spent].into_iter().collect())), "0501ac024405028001");
    assert_eq!(reply(Reply::State([1.0, -0.5].into_iter().collect())), "06020000803f000000bf");
    assert_eq!(reply(Reply::Ticks(1 << 32)), "078080808010");
    assert_eq!(reply(Reply::Error(AgentError::StateRange { words: 300 })), "0405ac02");
    assert_eq!(reply(Reply::Error(AgentError::StateOrder { next: 300 })), "0406ac02");
    assert_eq!(reply(Reply::Error(AgentError::StateNonFinite { word: 300 })), "0407ac02");
    assert_eq!(reply(Reply::Error(AgentError::OtherImage { identity: 300 })), "0408ac02");
    assert_eq!(reply(Reply::Error(AgentError::Frame)), "0401");
    assert_eq!(reply(Reply::Error(AgentError::NothingRead)), "0402");
    assert_eq!(error(ImageError::Magic.into()), "04000003");
    assert_eq!(error(ImageError::Plan.into()), "04000010");
    assert_eq!(error(ImageError::StartState { word: 300 }.into()), "04000012ac02");
    assert_eq!(error(StreamError::Buffer { words: 7 }.into()), "0400010207");
    assert_eq!(error(Error::Token { token: 300, vocab: 256 }), "040002ac028002");
    assert_eq!(error(Error::LogitsSize { needed: 9 }), "04000509");
    assert_eq!(error(Error::NonFinite), "040006");
    assert_eq!(error(Error::BrokenState), "040007");
    assert_eq!(error(Error::Internal), "040008");
}
