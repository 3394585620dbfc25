//! Ten thousand requests at random, and noise between them, to an agent that has an image. Each is
//! answered, and what the agent computes after a reset is what it would have computed at once.

use std::{cell::Cell, vec, vec::Vec};

use rwkv_core::{
    StreamError,
    exec::Written,
    sampler::{SamplerConfig, Xoshiro128StarStar},
};

use super::{
    super::protocol::{Depth, MAX_STATE},
    *,
};
use crate::{
    agent::Weights,
    stream::{Buffered, Medium},
};

crate::model!(
    #[expect(unreachable_pub, reason = "firmware may make its module public")]
    mod tiny = "../../firmware/tiny.rwkv"
);

const FRAMES: usize = 10_000;
const WARM: SamplerConfig =
    SamplerConfig { temperature: 0.9, presence: 0.5, seed: 4, ..SamplerConfig::GREEDY };

/// An image on a medium, one of whose reads fails now and then while `faults` is on.
struct Flash<'a> {
    faults: &'a Cell<bool>,
    reads: u32,
}

impl Medium for Flash<'_> {
    const UNIT: usize = 4;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), StreamError> {
        self.reads += 1;
        let error = StreamError::Medium { offset };
        if self.faults.get() && self.reads.is_multiple_of(5003) {
            return Err(error);
        }
        let from = tiny::IMAGE.0.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(error)?);
        Ok(())
    }
}

fn exchange<S: Weights>(agent: &mut Agent<'_, Bench, S>, input: &[u8]) -> Vec<Reply> {
    let mut wire = Wire { input, piece: 61, output: Vec::new() };
    assert_eq!(agent.run(&mut wire), Ok(End::Closed));
    let mut decoder = Decoder::new();
    let replies = wire.output.iter().filter_map(|byte| decoder.push(*byte));
    replies.collect::<Result<_, _>>().expect("replies are whole")
}

/// A normal one.
fn ordinary<S: Weights>(agent: &mut Agent<'_, Bench, S>) -> Vec<Reply> {
    let requests = [
        Request::Reset(WARM.into()),
        Request::Feed([1, 2, 3].into_iter().collect()),
        Request::Generate { count: 9 },
        Request::ReadState { first: 0 },
        Request::Verify,
        Request::Info,
    ];
    exchange(agent, &requests.iter().flat_map(frame).collect::<Vec<u8>>())
}

/// Requests, most of them such as a host sends.
struct Random(Xoshiro128StarStar);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        (self.0.next_unit() * limit as f32) as usize
    }

    fn tokens(&mut self, most: usize) -> heapless::Vec<u32, MAX_FEED> {
        let vocab = tiny::HEADER.dims.vocab as usize;
        // Now and then one more than there are.
        (0..self.below(most + 1)).map(|_| self.below(vocab + 1) as u32).collect()
    }

    fn settings(&mut self) -> SamplerSettings {
        let part = |random: &mut Self| random.0.next_unit() * 1.1;
        let config = SamplerConfig {
            temperature: part(self),
            top_k: self.below(70) as u16,
            top_p: part(self),
            min_p: part(self) / 2.0,
            repetition: part(self) * 2.0,
            presence: part(self),
            frequency: part(self),
            penalty_decay: part(self),
            seed: self.below(1 << 20) as u64,
            ..SamplerConfig::GREEDY
        };
        let banned = (0..self.below(MAX_BANNED)).map(|token| 3 * token as u32).collect();
        SamplerSettings { config, banned }
    }

    fn word(&mut self) -> f32 {
        match self.below(3000) {
            0 => f32::INFINITY,
            1 => 3e38,
            _ => self.0.next_unit() - 0.5,
        }
    }

    fn piece(&mut self, first: usize, words: usize) -> Request {
        let words = (0..words).map(|_| self.word()).collect();
        Request::WriteState { first: first as u32, words }
    }

    /// Sections and operations that there are, and a few more.
    fn depth(&mut self) -> Depth {
        let section = self.below(tiny::HEADER.dims.layers as usize + 4) as u16;
        match self.below(3) {
            0 => Depth::Sections,
            1 => Depth::Operations { section },
            _ => Depth::Values(Written { section, operation: self.below(24) as u16 }),
        }
    }

    /// One frame or more.
    fn frames(&mut self) -> Vec<u8> {
        let words = tiny::HEADER.state_words();
        let request = match self.below(16) {
            0 => Request::Info,
            1 => Request::Memory,
            2 if self.below(20) == 0 => Request::Verify,
            3 => Request::AcceptState,
            4 => Request::ReadState { first: self.below(words + 70) as u32 },
            5 => {
                let (first, len) = (self.below(3) * MAX_STATE, self.below(MAX_STATE + 1));
                self.piece(first, len)
            }
            6 => {
                let pieces = (0..words).step_by(MAX_STATE);
                let all = pieces.map(|at| self.piece(at, MAX_STATE.min(words - at)));
                let all: Vec<_> = all.chain([Request::AcceptState]).collect();
                return all.iter().flat_map(frame).collect();
            }
            7 | 8 => Request::Generate { count: self.below(4) as u8 },
            9 => Request::Profile(self.tokens(2)),
            10 => Request::Benchmark(self.tokens(2)),
            11 => Request::Reset(self.settings()),
            12 => {
                let noise = (0..self.below(500)).map(|_| 1 + self.below(255) as u8);
                return noise.chain([0]).collect();
            }
            13 => Request::Look { token: self.below(257) as u32, depth: self.depth() },
            14 => {
                let words = tiny::HEADER.bytes() as usize / 4;
                Request::ReadImage { first: self.below(words + 70) as u32 }
            }
            _ => Request::Feed(self.tokens(4)),
        };
        frame(&request)
    }
}

/// Noise for an agent, and what it did not lose by it.
fn disturb<S: Weights>(agent: &mut Agent<'_, Bench, S>, faults: &Cell<bool>) -> Vec<Reply> {
    let mut random = Random(Xoshiro128StarStar::from_seed(7));
    let (mut tokens, mut errors) = (0, Vec::new());
    faults.set(true);
    for _ in 0..FRAMES {
        let input = random.frames();
        let replies = exchange(agent, &input);
        let last = replies.iter().filter(|reply| match reply {
            Reply::Token(_) => {
                tokens += 1;
                false
            }
            Reply::Spent(_) | Reply::Digests(..) | Reply::Values(..) => false,
            Reply::Error(error) => {
                errors.push(*error);
                true
            }
            _ => true,
        });
        assert_eq!(last.count(), input.iter().filter(|byte| **byte == 0).count());
    }
    faults.set(false);
    std::println!("{tokens} tokens, {} errors", errors.len());
    assert!(tokens > FRAMES / 10, "{tokens} tokens");
    // What can go wrong did.
    for error in [
        AgentError::Frame,
        AgentError::NothingRead,
        AgentError::Sampler,
        AgentError::StateRange { words: tiny::HEADER.state_words() as u32 },
        AgentError::Model(Error::BrokenState),
    ] {
        assert!(errors.contains(&error), "{error:?}");
    }
    ordinary(agent)
}

#[test]
fn ten_thousand_requests_leave_an_image_in_place_in_order() {
    let mut words = vec![0.0; 4096];
    let expected = ordinary(&mut Agent::new(Bench, &tiny::IMAGE.0, &mut words));
    let tokens = expected.iter().filter(|reply| matches!(reply, Reply::Token(_)));
    assert_eq!((tokens.count(), expected.len()), (12, 18), "{expected:?}");
    words.fill(f32::NAN);
    let mut agent = Agent::new(Bench, &tiny::IMAGE.0, &mut words);
    assert_eq!(disturb(&mut agent, &Cell::new(false)), expected);
}

#[test]
fn ten_thousand_requests_leave_an_image_on_a_medium_in_order() {
    let faults = Cell::new(false);
    let flash = || Flash { faults: &faults, reads: 0 };
    let place = 0..tiny::HEADER.bytes();
    let mut words = vec![0.0; 4096];
    let expected =
        ordinary(&mut Agent::<_, Buffered<'_, _>>::over(Bench, flash(), place.clone(), &mut words));
    assert_eq!(expected.len(), 18, "{expected:?}");
    let mut agent = Agent::<_, Buffered<'_, _>>::over(Bench, flash(), place, &mut words);
    assert_eq!(disturb(&mut agent, &faults), expected);
}
