//! Where the records of an image lie, be it there or only planned.

use rwkv_core::{
    Image,
    image::{HEADER_BYTES, Header, RECORD_WORDS, Record, SECTION_BYTES, Section},
};

use crate::convert::{self, Options};

/// The records of an image in order, and its sizes.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The header. Of a planned image only version, dimensions and sizes count.
    pub header: Header,
    /// Bytes of the whole image.
    pub bytes: u64,
    /// The fewest words that a buffer has room for: longer blocks come in pieces.
    pub least_words: usize,
    /// The records of embedding, layers and head, and the words at which they begin.
    pub records: Vec<(Record, usize)>,
}

impl Layout {
    /// That of an image.
    pub fn of(image: &Image<'_>) -> Self {
        let (mut records, mut least_words) = (Vec::new(), 0);
        // The image was checked when it was opened, and nothing else is refused here.
        let _ = image.walk(|request, found| {
            records.push((found.record, found.offset as usize / 4));
            least_words = least_words.max(request.least_room(&found.record));
            Ok(())
        });
        let header = *image.header();
        Self { header, bytes: header.bytes().into(), least_words, records }
    }

    /// That of an image of the same model in another format, without converting it. Sections
    /// behind the head stay as long as they are.
    pub fn planned(image: &Image<'_>, options: &Options<'_>) -> Self {
        let mut header = *image.header();
        let requests = convert::planned(header.version, &header.dims, options);
        let table = usize::from(header.section_count()) * SECTION_BYTES;
        let (mut at, mut largest, mut least_words) = ((HEADER_BYTES + table) / 4, 0, 0);
        let mut records = Vec::with_capacity(requests.len());
        for (request, record) in requests {
            if request.opens_section {
                at = at.next_multiple_of(4);
            }
            records.push((record, at));
            at += RECORD_WORDS + record.payload_words();
            largest = record.blocks().fold(largest, usize::max);
            least_words = least_words.max(request.least_room(&record));
        }
        let behind = |section: &Section| section.kind.is_optional();
        let rest: u64 =
            image.sections().filter(behind).map(|section| u64::from(section.length)).sum();
        header.block_words = largest as u32;
        Self { header, bytes: 4 * at.next_multiple_of(4) as u64 + rest, least_words, records }
    }

    /// Columns of sparse products.
    pub fn columns(&self) -> u64 {
        let sparse = self.records.iter().filter(|(record, _)| is_sparse(record));
        sparse.map(|(record, _)| u64::from(record.cols)).sum()
    }

    /// Words of the longest row of a table: what a second buffer of a stream holds.
    pub fn row_words(&self) -> usize {
        let tables = self.records.iter().filter(|(record, _)| is_table(record));
        tables.map(|(record, _)| record.tile_words(1)).fold(RECORD_WORDS, usize::max)
    }
}

/// Whether columns whose input is zero are passed over.
pub(super) fn is_sparse(record: &Record) -> bool {
    record.layout == rwkv_core::image::Layout::InputMajor
}

/// Whether it is read row by row.
pub(super) const fn is_table(record: &Record) -> bool {
    use rwkv_core::image::Id;
    matches!(record.id, Id::Embedding | Id::DeepEmbed)
}
