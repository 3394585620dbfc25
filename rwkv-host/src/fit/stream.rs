//! How long a token takes over a medium that cannot be addressed.
//!
//! The touches of a token are asked of the streams that firmware has, over a simulated flash in
//! virtual time: so what is read, and when, is theirs.

use rwkv_core::{StreamError, stream::Stream};
use rwkv_embedded::stream::{Buffered, ReadAhead, buffer_words, words_around};
use serde::Serialize;

use super::{Clock, Known, Layout, SimFlash, Touch, Trace};

/// A medium.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Medium {
    /// Bytes that are read together: a power of two from 4 to 4096.
    pub unit: u32,
    /// Bytes per second.
    pub bandwidth: f64,
    /// Seconds before the first byte of a read.
    pub latency: f64,
    /// Instructions for each byte, where the core itself moves the bytes; 0 where it computes
    /// meanwhile.
    pub per_byte: f64,
}

/// What a token takes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Time {
    /// Reads of the medium.
    pub reads: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Seconds that the medium is busy.
    pub reading: f64,
    /// Seconds that the core computes.
    pub computing: f64,
    /// Seconds from the beginning to the end.
    pub seconds: f64,
}

/// Tokens that are played: the first finds nothing that was read before it, and how two buffers fall
/// into step depends on where they begin.
const TOKENS: u8 = 4;

/// Ticks of the clock per second.
const TICKS: f64 = 1e12;

/// A length of time in ticks. What is too long for the clock is the longest that it knows.
const fn ticks(seconds: f64) -> u64 {
    (seconds * TICKS).round() as u64
}

/// A token of a text, of an image through one buffer or two, each for its largest block. With one, what is
/// asked for is read when it is asked for; with two, and one more for a row of a table, one is read
/// into while the core computes from the other. `per_second` are the instructions of the core.
///
/// # Errors
/// If the trace is not of this layout, or the unit is none.
pub fn over(
    layout: &Layout,
    trace: &Trace,
    medium: &Medium,
    buffers: u8,
    per_second: f64,
) -> Result<Time, StreamError> {
    let replay = match medium.unit {
        4 => replay::<4>,
        8 => replay::<8>,
        16 => replay::<16>,
        32 => replay::<32>,
        64 => replay::<64>,
        128 => replay::<128>,
        256 => replay::<256>,
        512 => replay::<512>,
        1024 => replay::<1024>,
        2048 => replay::<2048>,
        4096 => replay::<4096>,
        unit => return Err(StreamError::Misplaced { offset: unit }),
    };
    replay(layout, trace, medium, buffers, per_second)
}

/// Words of the buffers of a stream over a medium of this unit in bytes.
pub(super) fn words(layout: &Layout, unit: u32, buffers: u8) -> [usize; 3] {
    let block = buffer_words(&layout.header, unit as usize);
    match buffers {
        0 | 1 => [block, 0, 0],
        // Rows of tables have a buffer of their own.
        _ => [block, block, words_around(layout.row_words(), unit as usize)],
    }
}

fn replay<const UNIT: usize>(
    layout: &Layout,
    trace: &Trace,
    medium: &Medium,
    buffers: u8,
    per_second: f64,
) -> Result<Time, StreamError> {
    let clock = Clock::default();
    let image = headers(layout);
    let mut flash = SimFlash::<UNIT>::new(&image, &clock);
    let per_byte = (1.0 / medium.bandwidth).max(medium.per_byte / per_second);
    (flash.latency, flash.per_word) = (ticks(medium.latency), ticks(4.0 * per_byte));
    let player = Player { touches: &trace.touches, clock: &clock, per_second };
    let bytes = layout.bytes as u32;
    let [a, b, rows] = &mut words(layout, medium.unit, buffers).map(|words| vec![0; words]);
    let reads = if buffers > 1 {
        let ahead = ReadAhead::new(&mut flash, 0, bytes, [a, b], rows)?;
        clock.run(ahead.drive(player.play(ahead.stream::<false>())))?;
        ahead.reads()
    } else {
        let mut stream = Buffered::<_, false>::new(&mut flash, 0, bytes, a)?;
        clock.run(player.play(&mut stream))?;
        stream.reads()
    };
    let tokens = u64::from(TOKENS);
    let seconds = |ticks: u64| ticks as f64 / TICKS / f64::from(TOKENS);
    Ok(Time {
        reads: reads.count / tokens,
        bytes: reads.bytes / tokens,
        reading: seconds(flash.busy),
        computing: trace.instructions / per_second,
        seconds: seconds(clock.now()),
    })
}

/// The image as far as a stream looks at it: the headers of its records.
fn headers(layout: &Layout) -> Vec<u8> {
    let mut image = vec![0; layout.bytes as usize];
    for (record, word) in &layout.records {
        let header = record.to_words();
        let place = image.get_mut(4 * word..).unwrap_or_default();
        place.iter_mut().zip(bytemuck::cast_slice(&header)).for_each(|(to, from)| *to = *from);
    }
    image
}

/// Asks a stream for the touches of tokens, as a model does.
struct Player<'a> {
    touches: &'a [Touch],
    clock: &'a Clock,
    per_second: f64,
}

impl Player<'_> {
    async fn play(&self, mut stream: impl Stream) -> Result<(), StreamError> {
        let tokens = (0..TOKENS).flat_map(|_| self.touches.iter().enumerate());
        for (index, touch) in tokens {
            let Touch { word, words, known, work } = *touch;
            match known {
                Known::Aside => {
                    stream.read_at(word, words).await?;
                }
                Known::Sought => {
                    stream.seek(word).await?;
                    stream.next(words).await?;
                }
                Known::Straight | Known::Told | Known::Named => {
                    if known == Known::Named {
                        stream.ahead(word, words);
                    }
                    let passed = word.saturating_sub(stream.position());
                    if passed > 0 {
                        stream.skip(passed).await?;
                    }
                    if let Some(next) = self.touches.get(index + 1)
                        && next.known == Known::Told
                    {
                        stream.ahead(next.word, next.words);
                    }
                    stream.next(words).await?;
                }
            }
            self.clock.pass(ticks(work / self.per_second));
        }
        Ok(())
    }
}
