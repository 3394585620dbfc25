//! Which words of an image lie in memory that the core can address, where only part of it fits.

use super::{Known, Layout, Touch, Trace, layout};

/// Words of the image in a memory.
use rwkv_embedded::stream::PlacedRange;

/// The ranges of one memory after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// In ascending order, of each memory.
    pub memories: Vec<Vec<PlacedRange>>,
}

/// Words that are read together, and how often a token reads them.
#[derive(Debug, Clone, Copy)]
struct Item {
    word: usize,
    words: usize,
    often: f64,
}

impl Placement {
    /// Fills memories of these sizes in bytes, the first of them first, so that the fewest bytes
    /// are left to stream: what every token reads comes first, in the order of the image, then
    /// columns of sparse products, of which a token reads the share `live`, then rows of tables.
    pub fn new(layout: &Layout, live: f64, sizes: &[u64]) -> Self {
        let mut items = items(layout, live);
        items.sort_by(|a, b| b.often.total_cmp(&a.often));
        let mut memories = Vec::new();
        for size in sizes {
            let mut left = *size as usize / 4;
            let mut inside = Vec::new();
            items.retain(|item| {
                let fits = item.words <= left;
                if fits {
                    left -= item.words;
                    inside.push((item.word, item.words));
                }
                !fits
            });
            memories.push(ranges(inside));
        }
        Self { memories }
    }

    /// Whether some words lie together in one of the memories.
    fn holds(&self, word: usize, words: usize) -> bool {
        let inside = |range: &PlacedRange| {
            let first = range.first as usize;
            word >= first && word + words <= first + range.words as usize
        };
        self.memories.iter().flatten().any(inside)
    }

    /// What is left of a token for the medium. The work with what is not read goes with what was
    /// read before.
    pub fn outside(&self, trace: &Trace) -> Trace {
        let mut touches: Vec<Touch> = Vec::new();
        let mut early = 0.0;
        for touch in &trace.touches {
            if !self.holds(touch.word, touch.words) {
                touches.push(Touch { work: touch.work + std::mem::take(&mut early), ..*touch });
                continue;
            }
            match touches.last_mut() {
                Some(last) => last.work += touch.work,
                None => early += touch.work,
            }
        }
        Trace { touches, ..trace.clone() }
    }

    /// The words of a memory, of an image.
    pub fn words(&self, memory: usize, image: &[u32]) -> Vec<u32> {
        let ranges = self.memories.get(memory).map_or(&[][..], Vec::as_slice);
        let words = ranges.iter().map(|range| {
            let first = range.first as usize;
            &image[first..first + range.words as usize]
        });
        words.collect::<Vec<_>>().concat()
    }
}

/// Everything that a token may read.
fn items(layout: &Layout, live: f64) -> Vec<Item> {
    // What a token reads of records that it reads whole; columns and rows are added below.
    let trace = Trace::new(layout, &super::Core::M4.costs(), 0.0);
    let whole = trace.touches.iter().filter(|touch| touch.known != Known::Aside);
    let mut items: Vec<Item> =
        whole.map(|touch| Item { word: touch.word, words: touch.words, often: 1.0 }).collect();
    for (record, word) in &layout.records {
        let first = word + rwkv_core::image::RECORD_WORDS;
        let mut lines = |count: usize, words: usize, often: f64| {
            let line = |i| Item { word: first + i * words, words, often };
            items.extend((0..count).map(line));
        };
        if layout::is_sparse(record) {
            lines(record.cols as usize, 1 + record.line_words(), live);
        } else if layout::is_table(record) {
            let rows = record.rows as usize;
            lines(rows, record.tile_words(1), 1.0 / f64::from(layout.header.dims.vocab));
            let words = rwkv_core::image::RECORD_WORDS;
            items.push(Item { word: *word, words, often: 1.0 });
        }
    }
    items
}

/// Neighbours together.
fn ranges(mut inside: Vec<(usize, usize)>) -> Vec<PlacedRange> {
    inside.sort_unstable();
    let mut ranges: Vec<PlacedRange> = Vec::new();
    let mut at = 0;
    for (word, words) in inside {
        match ranges.last_mut() {
            Some(last) if (last.first + last.words) as usize == word => last.words += words as u32,
            _ => ranges.push(PlacedRange { first: word as u32, words: words as u32, at }),
        }
        at += words as u32;
    }
    ranges
}
