//! Records: one matrix or one group of interleaved vectors, in checksummed blocks.

use core::iter;

use super::checksum::checksum;

/// Words of a record header.
pub const RECORD_WORDS: usize = 4;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $code,)+ }

        impl $name {
            /// The value that a code of the image stands for.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
pub(super) use codes;

codes! {
    /// What a record holds; the codes are part of the image format.
    #[non_exhaustive]
    Id {
        /// Embedding table with `ln0` folded in, one row per token.
        Embedding = 1,
        /// First layer norm: weight, bias.
        Ln1 = 2,
        /// Second layer norm: weight, bias.
        Ln2 = 3,
        /// Output layer norm: weight, bias.
        LnOut = 4,
        /// Head, one row per token.
        Head = 5,
        /// Version 7a: DeepEmbed table, one row per token and layer.
        DeepEmbed = 6,
        /// The words of a state.
        StartState = 7,
        /// Time mix: token-shift weights of the receptance.
        AttMixR = 16,
        /// Time mix: token-shift weights of the key.
        AttMixK = 17,
        /// Time mix: token-shift weights of the value.
        AttMixV = 18,
        /// Time mix: token-shift weights of the decay.
        AttMixW = 19,
        /// Time mix: token-shift weights of the in-context learning rate.
        AttMixA = 20,
        /// Time mix: token-shift weights of the gate.
        AttMixG = 21,
        /// Time mix: receptance matrix.
        AttReceptance = 22,
        /// Time mix: key matrix.
        AttKey = 23,
        /// Time mix: value matrix.
        AttValue = 24,
        /// Time mix: output matrix.
        AttOutput = 25,
        /// Version 4: decay and first, per channel.
        AttWkv4 = 26,
        /// Version 7: `k_k`, `k_a`, `r_k`, group-norm weight and bias, per channel.
        AttWkv7 = 27,
        /// Versions 6 and 7: decay, low rank in.
        AttW1 = 28,
        /// Versions 6 and 7: decay, low rank out.
        AttW2 = 29,
        /// Versions 6 and 7: decay, bias.
        AttW0 = 30,
        /// Version 7: in-context learning rate, low rank in.
        AttA1 = 31,
        /// Version 7: in-context learning rate, low rank out.
        AttA2 = 32,
        /// Version 7: in-context learning rate, bias.
        AttA0 = 33,
        /// Version 7: value residual, low rank in.
        AttV1 = 34,
        /// Version 7: value residual, low rank out.
        AttV2 = 35,
        /// Version 7: value residual, bias.
        AttV0 = 36,
        /// Version 7: gate, low rank in.
        AttG1 = 37,
        /// Version 7: gate, low rank out.
        AttG2 = 38,
        /// Versions 5.2 and 6: gate matrix.
        AttGate = 39,
        /// Version 5: decay, per channel.
        AttDecay = 40,
        /// Versions 5 and 6: bonus, group-norm weight and bias, per channel.
        AttWkv5 = 41,
        /// Version 6: token-shift weights of the input of all other token shifts.
        AttMixX = 42,
        /// Version 6: token shift, low rank in, of all five inputs.
        AttMix1 = 43,
        /// Version 6: token shift of the decay, low rank out.
        AttMixW2 = 44,
        /// Version 6: token shift of the key, low rank out.
        AttMixK2 = 45,
        /// Version 6: token shift of the value, low rank out.
        AttMixV2 = 46,
        /// Version 6: token shift of the receptance, low rank out.
        AttMixR2 = 47,
        /// Version 6: token shift of the gate, low rank out.
        AttMixG2 = 48,
        /// Channel mix: token-shift weights of the key.
        FfnMixK = 64,
        /// Channel mix: token-shift weights of the receptance.
        FfnMixR = 65,
        /// Channel mix: key matrix.
        FfnKey = 66,
        /// Channel mix: receptance matrix.
        FfnReceptance = 67,
        /// Channel mix: value matrix, input-major.
        FfnValue = 68,
        /// Version 7a: DeepEmbed, low rank in.
        FfnS1 = 69,
        /// Version 7a: DeepEmbed, low rank out.
        FfnS2 = 70,
        /// Version 7a: DeepEmbed, bias.
        FfnS0 = 71,
    }
}

codes! {
    /// How weights are stored.
    Format {
        /// IEEE binary32.
        F32 = 0,
        /// IEEE binary16.
        F16 = 1,
        /// A byte per weight, value + 128, with one f32 scale per row (output).
        Int8 = 2,
        /// Four bits per weight, value + 8, in groups of 32 along a line, with a sub-scale per
        /// group and one f32 scale per row. Pairs of a line's weights lie 16 bits apart.
        Int4 = 3,
        /// As `Int4`, with the weights of two rows in the halves of a word. Row-major only.
        Int4Lanes = 4,
    }
}

impl Format {
    /// Whether the input of a product is quantised and sums are integers.
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4 | Self::Int4Lanes)
    }

    /// Rows that share their words.
    pub const fn interleaved(self) -> usize {
        if matches!(self, Self::Int4Lanes) { 2 } else { 1 }
    }

    /// Weights in a word.
    pub const fn weights_per_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::F16 => 2,
            Self::Int8 => 4,
            Self::Int4 | Self::Int4Lanes => 8,
        }
    }

    /// Words of a line of `len` weights, padding and sub-scales included.
    pub const fn line_words(self, len: usize) -> usize {
        let groups = len.div_ceil(GROUP);
        match self {
            Self::F32 => len,
            Self::F16 => len.div_ceil(2),
            Self::Int8 => groups * 8,
            Self::Int4 | Self::Int4Lanes => groups.div_ceil(4) + groups * 4,
        }
    }
}

/// Weights that share a sub-scale; lines of integer formats are padded to whole groups.
pub const GROUP: usize = 32;

codes! {
    /// In which direction a matrix is stored.
    Layout {
        /// Output after output: a block holds whole rows.
        RowMajor = 0,
        /// Input after input: a block holds one column, so that a zero input's column is skipped.
        InputMajor = 1,
    }
}

/// What the model text knows of a record before it reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shape {
    /// What it holds.
    pub id: Id,
    /// Outputs of a matrix; channels of a vector group.
    pub rows: u32,
    /// Inputs of a matrix; vectors of a group.
    pub cols: u32,
    /// The direction it must be stored in.
    pub layout: Layout,
    /// Rows that must lie in one block (the head size of a recurrence), or 0 for any number.
    pub tile_rows: u32,
    /// Whether it must be f32, as vectors are.
    pub precise: bool,
}

impl Shape {
    /// A row-major matrix.
    pub const fn matrix(id: Id, rows: u32, cols: u32) -> Self {
        Self { id, rows, cols, layout: Layout::RowMajor, tile_rows: 0, precise: false }
    }

    /// An input-major matrix.
    pub const fn columns(id: Id, rows: u32, cols: u32) -> Self {
        Self { layout: Layout::InputMajor, ..Self::matrix(id, rows, cols) }
    }

    /// A table that is read row by row.
    pub const fn table(id: Id, rows: u32, cols: u32) -> Self {
        Self { tile_rows: 1, ..Self::matrix(id, rows, cols) }
    }

    /// Whether [`Format::Int4Lanes`] can hold it.
    pub fn may_interleave(&self) -> bool {
        self.layout == Layout::RowMajor && self.tile_rows == 0 && !self.precise
    }

    /// `cols` interleaved vectors of `rows` channels, in f32.
    pub const fn vectors(id: Id, rows: u32, cols: u32) -> Self {
        Self { precise: true, ..Self::matrix(id, rows, cols) }
    }

    /// Interleaved vectors, one block per head.
    pub const fn heads(id: Id, rows: u32, cols: u32, head_size: u32) -> Self {
        Self { tile_rows: head_size, ..Self::vectors(id, rows, cols) }
    }
}

/// A record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Record {
    /// What it holds.
    pub id: Id,
    /// How the weights are stored.
    pub format: Format,
    /// In which direction.
    pub layout: Layout,
    /// Bits of the quantised input, sign included: 8 to 15, or 0 for float formats.
    pub bits: u8,
    /// Outputs.
    pub rows: u32,
    /// Inputs.
    pub cols: u32,
    /// Rows per block of a row-major record, outputs per scale block of an input-major one.
    pub tile_rows: u16,
}

impl Record {
    /// Reads a header of which nothing is expected. `None` if it is none.
    pub fn peek(words: &[u32; RECORD_WORDS]) -> Option<Self> {
        let [codes, rows, cols, tail] = *words;
        let [id, format, layout, bits] = codes.to_le_bytes();
        let record = Self {
            id: Id::from_code(id)?,
            format: Format::from_code(format)?,
            layout: Layout::from_code(layout)?,
            bits,
            rows,
            cols,
            tile_rows: tail as u16,
        };
        let fits = record.tile_rows > 0 && (tail >> 16) as u16 == record.check();
        fits.then_some(record)
    }

    /// Reads a header and compares it with what the model text expects. `None` if it differs.
    pub fn parse(words: &[u32; RECORD_WORDS], shape: &Shape) -> Option<Self> {
        let record = Self::peek(words)?;
        let Self { rows, cols, bits, .. } = record;
        let bits_fit = match record.format {
            Format::F32 => bits == 0,
            Format::F16 => bits == 0 && !shape.precise,
            _ => (8..=15).contains(&bits) && !shape.precise,
        };
        let lanes_fit = record.format != Format::Int4Lanes
            || (shape.may_interleave()
                && (record.tile_rows.is_multiple_of(2) || u32::from(record.tile_rows) >= rows));
        let fits = record.id == shape.id
            && record.layout == shape.layout
            && (rows, cols) == (shape.rows, shape.cols)
            && (shape.tile_rows == 0 || shape.tile_rows == u32::from(record.tile_rows))
            && bits_fit
            && lanes_fit;
        fits.then_some(record)
    }

    /// The header as it lies in the image.
    pub fn to_words(&self) -> [u32; RECORD_WORDS] {
        let check = u32::from(self.check()) << 16;
        [self.codes(), self.rows, self.cols, u32::from(self.tile_rows) | check]
    }

    fn codes(&self) -> u32 {
        u32::from_le_bytes([self.id as u8, self.format as u8, self.layout as u8, self.bits])
    }

    /// Folded checksum of everything else in the header.
    fn check(&self) -> u16 {
        let sum = checksum(&[self.codes(), self.rows, self.cols, self.tile_rows.into()]);
        (sum ^ (sum >> 16)) as u16
    }

    /// Words of one row, or of one column if input-major, padding included.
    pub fn line_words(&self) -> usize {
        let inner = match self.layout {
            Layout::RowMajor => self.cols,
            Layout::InputMajor => self.rows,
        };
        self.format.line_words(inner as usize)
    }

    /// Words of sub-scales in front of a line.
    pub const fn sub_words(&self) -> usize {
        let inner = match self.layout {
            Layout::RowMajor => self.cols,
            Layout::InputMajor => self.rows,
        };
        match self.format {
            Format::Int4 | Format::Int4Lanes => (inner as usize).div_ceil(GROUP).div_ceil(4),
            Format::F32 | Format::F16 | Format::Int8 => 0,
        }
    }

    /// Words of scales per row.
    pub const fn scale_words(&self) -> usize {
        self.format.is_integer() as usize
    }

    /// The runs of rows that a block holds: first row and number of rows.
    pub fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, step) = (self.rows as usize, usize::from(self.tile_rows).max(1));
        (0..rows).step_by(step).map(move |first| (first, step.min(rows - first)))
    }

    /// Words of a block of `rows` rows, its checksum included.
    pub fn tile_words(&self, rows: usize) -> usize {
        let scales = rows.saturating_mul(self.scale_words());
        self.lines_words(rows).saturating_add(scales).saturating_add(1)
    }

    /// Words of the weights of `rows` rows.
    fn lines_words(&self, rows: usize) -> usize {
        rows.next_multiple_of(self.format.interleaved()).saturating_mul(self.line_words())
    }

    /// The sizes in words of all blocks, in order.
    ///
    /// Row-major: tiles, each of checksum, scales and rows. Input-major: one block per column,
    /// then, where the format has scales, tiles of checksum and scales.
    pub fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        let record = *self;
        let columns = match record.layout {
            Layout::RowMajor => 0,
            Layout::InputMajor => record.cols as usize,
        };
        let tiles = record.tiles().map(move |(_, rows)| match record.layout {
            Layout::RowMajor => record.tile_words(rows),
            Layout::InputMajor => 1 + rows * record.scale_words(),
        });
        let scaled = columns == 0 || record.scale_words() > 0;
        iter::repeat_n(1 + record.line_words(), columns).chain(tiles.filter(move |_| scaled))
    }

    /// Words of all blocks; saturates on hostile headers.
    pub fn payload_words(&self) -> usize {
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        let tiles = rows.div_ceil(usize::from(self.tile_rows).max(1));
        let scales = rows.saturating_mul(self.scale_words());
        match self.layout {
            Layout::RowMajor => self.lines_words(rows).saturating_add(scales).saturating_add(tiles),
            Layout::InputMajor => {
                let tail = if scales > 0 { scales.saturating_add(tiles) } else { 0 };
                cols.saturating_mul(self.line_words() + 1).saturating_add(tail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the book's chapter *Image format*.
    #[test]
    fn examples_of_the_book() {
        let examples: [(&[u32], u32); 5] = [
            (&[], 0x0000_0001),
            (&[0], 0x3779_b100),
            (&[1, 2, 3], 0x08d4_be6f),
            (&[3, 2, 1], 0x2b2f_8e10),
            (&[0x3f80_0000, 0xbf80_0000], 0xe4ef_f54d),
        ];
        for (words, sum) in examples {
            assert_eq!(checksum(words), sum, "{words:x?}");
        }
        let vector = Record {
            id: Id::AttMixK,
            format: Format::F32,
            layout: Layout::RowMajor,
            bits: 0,
            rows: 4,
            cols: 1,
            tile_rows: 4,
        };
        let value = Record {
            id: Id::FfnValue,
            format: Format::Int8,
            layout: Layout::InputMajor,
            bits: 11,
            rows: 128,
            cols: 512,
            tile_rows: 128,
        };
        assert_eq!(vector.to_words(), [0x11, 4, 1, 0x9cef_0004]);
        assert_eq!(value.to_words(), [0x0b01_0244, 0x80, 0x200, 0xae56_0080]);
    }

    #[test]
    fn blocks_add_up() {
        for layout in [Layout::RowMajor, Layout::InputMajor] {
            for code in 0..5 {
                let format = Format::from_code(code).unwrap();
                for (rows, cols, tile_rows) in [(256, 40, 60), (1, 1, 1), (7, 33, 7), (65, 5, 8)] {
                    let id = Id::AttKey;
                    let record = Record { id, format, layout, bits: 0, rows, cols, tile_rows };
                    assert_eq!(record.blocks().sum::<usize>(), record.payload_words());
                }
            }
        }
    }
}
