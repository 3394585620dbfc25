//! Ways to damage an image, and what a reader must say of each.

use rwkv_core::{
    Image, ImageError,
    image::{SectionKind, checksum},
};
use rwkv_host::file::ImageFile;

use crate::repair_header;

/// A way to damage an image, and what a reader must say.
#[derive(Debug)]
pub struct Damage {
    /// What was done.
    pub what: String,
    /// The damaged image.
    pub file: ImageFile,
    /// What a reader of the file must say.
    pub error: ImageError,
}

impl Damage {
    /// What a reader says who finds the bytes at the start of an erased flash of `room` bytes,
    /// where nothing tells it that they end early.
    ///
    /// # Panics
    /// If it finds no fault.
    pub fn in_flash(&self, room: usize) -> ImageError {
        let mut flash = self.file.bytes().to_vec();
        flash.resize(room, 0);
        let flash = ImageFile::new(&flash);
        Image::open_prefix(flash.bytes()).expect_err(&self.what)
    }
}

/// Damages `good` in every way.
///
/// # Panics
/// If `good` is not.
pub fn list(good: &ImageFile) -> Vec<Damage> {
    let mut all = Vec::new();
    let bytes = good.bytes();
    let header = *Image::open(bytes).expect("it opens").header();
    let total = bytes.len() as u32;
    let mut add = |what: &str, error, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.to_vec();
        edit(&mut bytes);
        all.push(Damage { what: what.to_owned(), file: ImageFile::new(&bytes), error });
    };
    add("no byte", ImageError::Truncated { needed: 80, given: 0 }, &|b| b.clear());
    add("half a header", ImageError::Truncated { needed: 80, given: 40 }, &|b| b.truncate(40));
    let given = total - 1;
    add("last byte missing", ImageError::Truncated { needed: total, given }, &|b| {
        b.truncate(given as usize);
    });
    add("half the image", ImageError::Truncated { needed: total, given: total / 2 }, &|b| {
        b.truncate(total as usize / 2);
    });
    add("magic", ImageError::Magic, &|b| b[0] = b'Q');
    add("format version", ImageError::FormatVersion(1), &|b| {
        b[4] = 1;
        repair_header(b);
    });
    add("RWKV version", ImageError::Version(80), &|b| {
        b[16] = 80;
        repair_header(b);
    });
    add("math mode", ImageError::MathMode(9), &|b| {
        b[17] = 9;
        repair_header(b);
    });
    add("state precision", ImageError::StatePrecision(1), &|b| {
        b[18] = 1;
        repair_header(b);
    });
    add("tokenizer", ImageError::Tokenizer(7), &|b| {
        b[19] = 7;
        repair_header(b);
    });
    add("no layers", ImageError::HeaderField { offset: 20 }, &|b| {
        b[20..24].fill(0);
        repair_header(b);
    });
    add("reserved field", ImageError::HeaderField { offset: 72 }, &|b| {
        b[72] = 1;
        repair_header(b);
    });
    add("bit in the header", ImageError::HeaderChecksum, &|b| b[50] ^= 4);
    let sections = header.section_count();
    add("wrong length", ImageError::SectionTable { section: sections }, &|b| {
        let longer = total + 16;
        b[8..12].copy_from_slice(&longer.to_le_bytes());
        repair_header(b);
        b.extend([0; 16]);
    });
    add("scratch too small", ImageError::Plan, &|b| {
        b[48..52].copy_from_slice(&16u32.to_le_bytes());
        repair_header(b);
    });
    let head = header.dims.layers as u16 + 1;
    add("more layers than there are", ImageError::SectionTable { section: head }, &|b| {
        b[20] += 1;
        repair_header(b);
    });
    for (index, section) in (0..).zip(Image::open(bytes).expect("it opens").sections()) {
        for at in [0, section.length / 2, section.length - 1] {
            let error = ImageError::SectionChecksum { section: index };
            add(&format!("bit in section {index} at {at}"), error, &|b| {
                b[(section.offset + at) as usize] ^= 1 << (at % 8);
            });
        }
    }
    // With a CRC that matches, the records speak.
    let layer = Image::open(bytes).expect("it opens").sections().nth(1).expect("a layer");
    let record = ImageError::Record { offset: layer.offset, expected: 2 };
    add("a record that is another", record, &|b| {
        b[layer.offset as usize] = 3;
        repair_section(b, 1);
    });
    let block = ImageError::BlockChecksum { offset: layer.offset + 16 };
    add("a block whose checksum is wrong", block, &|b| {
        b[layer.offset as usize + 24] ^= 1;
        repair_section(b, 1);
    });
    let mut sections = (0..).zip(Image::open(bytes).expect("it opens").sections());
    let start = sections.find(|(_, section)| section.kind == SectionKind::StartState);
    if let Some((index, section)) = start {
        let at = section.offset as usize;
        let record = ImageError::Record { offset: section.offset, expected: 7 };
        let block = ImageError::BlockChecksum { offset: section.offset + 16 };
        let mut add = |what: &str, error, edit: &dyn Fn(&mut [u8])| {
            add(&format!("start state: {what}"), error, &|b| {
                edit(b);
                repair_section(b, index);
            });
        };
        add("another record", record, &|b| b[at] = 6);
        add("another number of words", record, &|b| b[at + 4] ^= 4);
        add("a block whose checksum is wrong", block, &|b| b[at + 40] ^= 1);
        add("a value that is no number", ImageError::StartState { word: 5 }, &|b| {
            b[at + 40..at + 44].copy_from_slice(&f32::NAN.to_le_bytes());
            let rows = usize::from(u16::from_le_bytes([b[at + 12], b[at + 13]]));
            let words = b[at + 20..at + 20 + 4 * rows].as_chunks().0.iter();
            let words: Vec<u32> = words.map(|word| u32::from_le_bytes(*word)).collect();
            b[at + 16..at + 20].copy_from_slice(&checksum(&words).to_le_bytes());
        });
        // The header names the section, or none.
        for offset in [0, section.offset + 16, u32::MAX] {
            add("elsewhere", ImageError::HeaderField { offset: 76 }, &|b| {
                b[76..80].copy_from_slice(&offset.to_le_bytes());
            });
        }
    }
    all
}

/// Makes the CRC of a section, and that of the header, right again.
///
/// # Panics
/// If the table has no such section.
pub fn repair_section(bytes: &mut [u8], index: usize) {
    let entry = rwkv_core::image::HEADER_BYTES + index * rwkv_core::image::SECTION_BYTES;
    let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().expect("4"));
    let (offset, length) = (word(bytes, entry + 4) as usize, word(bytes, entry + 8) as usize);
    let Some(content) = bytes.get(offset..offset.saturating_add(length)) else { return };
    let crc = rwkv_core::image::CRC.checksum(content);
    bytes[entry + 12..entry + 16].copy_from_slice(&crc.to_le_bytes());
    repair_header(bytes);
}
