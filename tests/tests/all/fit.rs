//! What `rwkv fit` predicts, beside what happens.

use std::cell::Cell;

use rwkv_core::{Image, Model, exec::Columns, image::Id, stream::Stream};
use rwkv_embedded::stream::{Buffered, ReadAhead, Reads, buffer_words};
use rwkv_host::{
    convert::{Options, Weights},
    fit::{Core, Layout, Medium, Time, Trace, over},
    memory::Memory,
};
use rwkv_tests::{
    formats, image, image_with,
    medium::{Clock, Costly, SimFlash},
    random::{self, Container, VERSIONS},
    shipped,
};

const PROMPT: [u32; 4] = [88, 58, 49, 10];

/// Sizes of images in other formats, without converting to them.
#[test]
fn planned_images_are_as_large_as_converted_ones() {
    for version in VERSIONS {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        let given = image(checkpoint.path(), Weights::F16);
        let given = given.open().unwrap();
        for (name, options) in formats() {
            for block_bytes in [256, 4096] {
                let options = Options { block_bytes, ..options };
                let file = image_with(checkpoint.path(), &options);
                let made = Layout::of(&file.open().unwrap());
                let planned = Layout::planned(&given, &options);
                assert_eq!(planned.bytes, made.bytes, "{version} {name}");
                assert_eq!(planned.header.block_words, made.header.block_words);
                for ((planned, at), (made, word)) in planned.records.iter().zip(&made.records) {
                    let bits = made.bits;
                    let planned = rwkv_core::image::Record { bits, ..*planned };
                    assert_eq!((&planned, at), (made, word), "{version} {name}");
                }
            }
        }
    }
}

/// How long things take, in any unit: before a read, to read a word and to compute with one.
#[derive(Debug, Clone, Copy)]
struct Times {
    latency: u64,
    read: u64,
    compute: u64,
}

/// Steps through the prompt over a stream whose words take time; returns the columns.
async fn tokens<S: Stream>(image: &Image<'_>, mut stream: Costly<'_, S>) -> Columns {
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).unwrap();
    let mut logits = vec![0.0; image.header().dims.vocab as usize];
    let mut model = Model::new(*image.header(), &mut stream, scratch).unwrap();
    for token in PROMPT {
        model.step_async(state.reborrow(), token, logits.as_mut_slice()).await.unwrap();
    }
    let columns = model.columns();
    // With the last words nobody has computed yet.
    stream.clock.pass(stream.per_word * stream.handed as u64);
    columns
}

/// The time of the prompt over a simulated flash, and what was read of it.
fn simulate<const UNIT: usize>(image: &Image<'_>, times: Times, two: bool) -> (f64, Reads, f64) {
    let header = *image.header();
    let (clock, spent) = (Clock::default(), Cell::new(0));
    let mut flash = SimFlash::<UNIT>::new(image.bytes(), &clock);
    (flash.latency, flash.per_word) = (times.latency, times.read);
    let room = buffer_words(&header, UNIT);
    let per_word = times.compute;
    let mut buffers = [vec![0; room], vec![0; room], vec![0; room.max(4096)]];
    let [a, b, rows] = buffers.each_mut().map(Vec::as_mut_slice);
    let (columns, reads) = if two {
        let ahead = ReadAhead::new(&mut flash, 0, header.bytes(), [a, b], rows).unwrap();
        let stream = ahead.stream::<true>();
        let stream = Costly { stream, clock: &clock, per_word, spent: &spent, handed: 0 };
        (clock.run(ahead.drive(tokens(image, stream))), ahead.reads())
    } else {
        let mut buffered = Buffered::<_, true>::new(&mut flash, 0, header.bytes(), a).unwrap();
        let stream = &mut buffered;
        let stream = Costly { stream, clock: &clock, per_word, spent: &spent, handed: 0 };
        (clock.run(tokens(image, stream)), buffered.reads())
    };
    (clock.now() as f64, reads, columns.live as f64 / columns.all as f64)
}

/// What is predicted for the prompt.
fn predict<const UNIT: usize>(layout: &Layout, times: Times, live: f64, two: bool) -> Time {
    let mut trace = Trace::new(layout, &Core::M4.costs(), live);
    for touch in &mut trace.touches {
        touch.work = (times.compute * touch.words as u64) as f64;
    }
    // A unit of time is a microsecond.
    let medium = Medium {
        unit: UNIT as u32,
        bandwidth: 4e6 / times.read as f64,
        latency: 1e-6 * times.latency as f64,
        per_byte: 0.0,
    };
    let mut time = over(layout, &trace, &medium, 1 + u8::from(two), 1e6).unwrap();
    time.seconds *= 1e6;
    time
}

/// How far a prediction may be from the simulation.
const MARGIN: f64 = 0.05;

fn compare<const UNIT: usize>(name: &str, image: &Image<'_>) {
    let layout = Layout::of(image);
    // Slow and fast beside the computation, with and without time before a read.
    for (latency, read, compute) in
        [(0, 10, 10), (100, 10, 11), (0, 40, 10), (0, 10, 40), (400, 10, 20), (50, 3, 10)]
    {
        let times = Times { latency, read, compute };
        for two in [false, true] {
            let (now, reads, live) = simulate::<UNIT>(image, times, two);
            let count = PROMPT.len() as f64;
            let seen = now / count;
            let time = predict::<UNIT>(&layout, times, live, two);
            let (bytes, off) = (reads.bytes as f64 / count, time.seconds / seen - 1.0);
            println!(
                "{name:<22} {UNIT:>4} {latency:>4} {read:>3} {compute:>3} {:>3} {:>10} {bytes:>10.0} {:>12.0} {seen:>12.0} {:>7.2} %",
                if two { "two" } else { "one" },
                time.bytes,
                time.seconds,
                100.0 * off
            );
            assert!(off.abs() <= MARGIN, "{name} {times:?} {two}: {off}");
            let off = time.bytes as f64 / bytes - 1.0;
            assert!(off.abs() <= MARGIN, "{name} {times:?} {two}: {off} of the bytes");
        }
    }
}

/// Tokens per second over streams with one buffer and with two.
#[test]
fn predicted_times_are_those_of_the_simulated_flash() {
    println!(
        "model, unit, latency, read, compute, buffers, bytes predicted and read, time predicted and seen"
    );
    let [four, seven] = ["4", "7"].map(random::wide);
    let [f16, int8, int4] = [1, 2, 3].map(|i| formats()[i].1);
    for (name, path, block_bytes, options) in [
        ("wide 4, int8", four.path(), 1024, int8),
        ("wide 4, int4", four.path(), 4096, int4),
        ("wide 7, int8", seven.path(), 1024, int8),
        ("wide 7, f16", seven.path(), 4096, f16),
        ("tunes-v4, int8", &shipped("tunes-v4"), 384, int8),
        ("tunes-v4, int4", &shipped("tunes-v4"), 4096, int4),
        ("tunes-v7, int8", &shipped("tunes-v7"), 4096, int8),
        ("tunes-v7, int4", &shipped("tunes-v7"), 1024, int4),
    ] {
        let file = image_with(path, &Options { block_bytes, ..options });
        let image = file.open().unwrap();
        compare::<4>(name, &image);
        if block_bytes == 4096 {
            compare::<512>(name, &image);
        }
    }
}

/// Without time, what one buffer reads is counted to the byte, but for a column more or less.
#[test]
fn what_is_read_is_counted() {
    for version in VERSIONS {
        let checkpoint = random::checkpoint(version, Container::Safetensors);
        for (name, options) in formats() {
            let file = image_with(checkpoint.path(), &options);
            let image = file.open().unwrap();
            let layout = Layout::of(&image);
            let times = Times { latency: 0, read: 1, compute: 0 };
            let (_, reads, live) = simulate::<4>(&image, times, false);
            let time = predict::<4>(&layout, times, live, false);
            let count = PROMPT.len() as u64;
            let sparse = layout.records.iter().find(|(record, _)| record.id == Id::FfnValue);
            let column = 4 * (1 + sparse.unwrap().0.line_words() as u64);
            let (ours, theirs) = (count * time.bytes, reads.bytes);
            assert!(ours.abs_diff(theirs) <= count * column, "{version} {name}: {ours} {theirs}");
            assert!((count * time.reads).abs_diff(reads.count) <= count, "{version} {name}");
        }
    }
}
