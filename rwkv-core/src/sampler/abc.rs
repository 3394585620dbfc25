//! A grammar of tunes in ABC notation whose bars have the length of their metre.
//!
//! It takes a part of ABC, as the book's chapter *Sampling* says. While a bar is written it counts
//! what is left of it, and takes nothing after which the bar could not be filled exactly.

use super::Mask;
use crate::tokenizer::Tokenizer;

/// Quarters of the unit length `L:`, in which lengths are counted.
const UNIT: u16 = 4;
/// A metre without an end: `M:none`.
const FREE: u16 = u16::MAX;
/// Slurs that may be open at once.
const SLURS: u8 = 3;

/// Where a tune is, byte by byte: the state of the grammar, a few bytes that are copied.
///
/// ```
/// use rwkv_core::sampler::Abc;
///
/// let tune = Abc::new().after(b"X:1\nT:Hare\nM:3/4\nL:1/8\nK:G\nG6 | G2 A2 B").unwrap();
/// assert!(tune.after(b"2 |").is_some());
/// // The bar would be too short, or too long.
/// assert!(tune.after(b"|").is_none());
/// assert!(tune.after(b"3 |").is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Abc {
    header: Header,
    /// Where in the text.
    place: Place,
    /// Quarters of the unit in a bar.
    full: u16,
    /// Those of the bar before the note that is being written. Where lengths are spoken for, they
    /// count already.
    done: u16,
    /// Those of the bar that the section began with, if it was a short one.
    pickup: u16,
    /// Whether this bar begins a section, and may be a short one.
    first: bool,
    /// The length that the next notes must have: those of a triplet behind its first one, or the
    /// second of a broken pair.
    same: Length,
    /// How many.
    left: u8,
    /// Slurs that are open.
    slurs: u8,
    /// Whether the tune has a bar.
    begun: bool,
}

/// Values of the header, in the numbers of their fractions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Header {
    metre: [u8; 2],
    unit: u8,
}

/// A length as written: `beats / 2^halves` units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Length {
    beats: u8,
    halves: u8,
}

impl Length {
    const ONE: Self = Self { beats: 1, halves: 0 };
    /// Of a triplet's first note, which the others follow.
    const ANY: Self = Self { beats: 0, halves: 0 };

    /// In quarters of a unit.
    const fn quarters(self) -> u16 {
        (self.beats as u16 * UNIT) >> self.halves
    }

    /// The shortest one that it may become by a slash or more.
    const fn shortest(self) -> u16 {
        self.beats as u16
    }
}

/// What came last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Place {
    /// Nothing of a header line.
    Line,
    /// The letter of a field.
    Field(u8),
    /// Part of its value.
    Value(u8, Fraction),
    /// A blank, or a line break, `true`.
    Gap(bool),
    /// An opening parenthesis.
    Paren,
    /// A decoration or grace notes, which belong to the next note.
    Mark,
    /// The accidental of the next note.
    Accidental,
    /// Among grace notes, behind what of them.
    Grace(Grace),
    /// A note whose length may go on.
    Note(Note, Length),
    /// A note that is over: a tie, or the end of a slur.
    Over,
    /// A sign of broken rhythm.
    Broken,
    /// A bar line of one stroke.
    Bar,
    /// One that ends a section, or begins one; its strokes and colons behind the first two.
    Section(u8),
    /// The number of an ending.
    Ending,
    /// A stroke, or else a colon, that only another one makes a bar line of.
    Half(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Grace {
    Brace,
    Accidental,
    Letter,
}

/// How far a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Note {
    Letter,
    Octave,
    Digit,
    Slash,
    Denominator,
}

/// A fraction that is being read: its numbers, and whether it is at the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Fraction {
    numbers: [u8; 2],
    second: bool,
}

impl Fraction {
    const NONE: Self = Self { numbers: [0; 2], second: false };

    /// With another byte of it: `C` and `C|` are four and two beats.
    fn with(self, byte: u8) -> Self {
        let Self { numbers: [first, last], second } = self;
        let grown = |number: u8| number.saturating_mul(10).saturating_add(byte.wrapping_sub(b'0'));
        match byte {
            b'0'..=b'9' if second => Self { numbers: [first, grown(last)], second },
            b'0'..=b'9' => Self { numbers: [grown(first), last], second },
            b'/' => Self { second: true, ..self },
            b'C' => Self { numbers: [4, 4], second },
            b'|' => Self { numbers: [2, 2], second },
            _ => Self::NONE,
        }
    }
}

impl Default for Abc {
    fn default() -> Self {
        Self::new()
    }
}

impl Abc {
    /// Before the header of a tune.
    pub const fn new() -> Self {
        Self {
            header: Header { metre: [0; 2], unit: 8 },
            place: Place::Line,
            full: FREE,
            done: 0,
            pickup: 0,
            first: true,
            same: Length::ONE,
            left: 0,
            slurs: 0,
            begun: false,
        }
    }

    /// After some more bytes; `None` if they are not in the grammar.
    pub fn after(self, bytes: &[u8]) -> Option<Self> {
        bytes.iter().try_fold(self, |tune, byte| tune.with(*byte))
    }

    /// Quarters of the unit that are left of the bar.
    const fn rest(self) -> u16 {
        self.full.saturating_sub(self.done)
    }

    const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// After one more byte.
    fn with(self, byte: u8) -> Option<Self> {
        match self.place {
            // Between tunes.
            Place::Line if byte == b'\n' && self == Self::new() => Some(self),
            Place::Line => byte.is_ascii_alphabetic().then(|| self.at(Place::Field(byte))),
            Place::Field(name) => {
                (byte == b':').then(|| self.at(Place::Value(name, Fraction::NONE)))
            }
            Place::Value(name, value) => self.value(name, value, byte),
            Place::Mark if b"^=_".contains(&byte) => Some(self.at(Place::Accidental)),
            Place::Mark | Place::Accidental => self.letter(byte),
            Place::Grace(part) => self.grace(part, byte),
            Place::Note(part, length) => {
                let longer = self.longer(part, length, byte);
                if longer.is_some() {
                    return longer;
                }
                let free = self.left == 0;
                self.over(length)?.body(byte, free.then_some(length))
            }
            Place::Half(stroke) => {
                let whole = byte == b'|' || byte == b':' || (stroke && byte == b']');
                whole.then(|| self.section(0))
            }
            _ => self.body(byte, None),
        }
    }

    /// A byte of a header line's value.
    fn value(self, name: u8, value: Fraction, byte: u8) -> Option<Self> {
        if byte != b'\n' {
            let printable = byte == b' ' || byte.is_ascii_graphic();
            return printable.then(|| self.at(Place::Value(name, value.with(byte))));
        }
        let mut next = self.at(Place::Line);
        match (name, value.numbers) {
            (b'M', metre) => next.header.metre = metre,
            (b'L', [1, unit]) if unit > 0 => next.header.unit = unit,
            (b'K', _) => {
                next.full = next.header.bar();
                next.place = Place::Gap(true);
            }
            _ => {}
        }
        Some(next)
    }

    /// A byte of the body. `free` is the length of the note before, if none was asked of it.
    fn body(self, byte: u8, free: Option<Length>) -> Option<Self> {
        // Behind these, a note is due.
        let due = matches!(self.place, Place::Paren | Place::Broken);
        let note = matches!(self.place, Place::Note(..) | Place::Over);
        let bound = self.left > 0;
        match byte {
            b' ' if !matches!(self.place, Place::Gap(_) | Place::Paren) => {
                Some(self.at(Place::Gap(false)))
            }
            b'\n' if !due && !bound => self.line_break(),
            b'(' if self.slurs < SLURS && self.has_room() && self.place != Place::Broken => {
                Some(Self { slurs: self.slurs + 1, place: Place::Paren, ..self })
            }
            // It was no slur, but the beginning of a triplet.
            b'3' if self.place == Place::Paren && !bound && self.rest() >= 2 => Some(Self {
                slurs: self.slurs.saturating_sub(1),
                same: Length::ANY,
                left: 3,
                place: Place::Gap(false),
                ..self
            }),
            b')' if self.slurs > 0 && note => {
                Some(Self { slurs: self.slurs - 1, place: Place::Over, ..self })
            }
            b'-' if matches!(self.place, Place::Note(..)) && !bound => Some(self.at(Place::Over)),
            b'<' | b'>' => self.broken(free?),
            b'.' | b'~' | b'T' | b'H' if self.has_room() => Some(self.at(Place::Mark)),
            b'^' | b'=' | b'_' if self.has_room() => Some(self.at(Place::Accidental)),
            b'{' if self.has_room() => Some(self.at(Place::Grace(Grace::Brace))),
            b'|' | b':' | b']' if !bound && !due => self.bar_line(byte),
            // An ending goes on with its section.
            b'1' | b'2' if matches!(self.place, Place::Bar | Place::Section(_)) => {
                Some(Self { first: false, place: Place::Ending, ..self })
            }
            b'z' if self.has_room() => Some(self.at(Place::Note(Note::Octave, Length::ONE))),
            _ => self.letter(byte),
        }
    }

    /// A line may break anywhere; a line without anything on it ends the tune, behind a bar line.
    fn line_break(self) -> Option<Self> {
        let ends = self.begun && self.done == 0 && self.slurs == 0;
        match self.place {
            Place::Gap(true) => ends.then(Self::new),
            _ => Some(self.at(Place::Gap(true))),
        }
    }

    /// Whether a note may come, at least the shortest one.
    fn has_room(self) -> bool {
        match (self.left, self.same) {
            (0, _) => self.rest() >= 1,
            (_, Length::ANY) => self.rest() >= 2,
            _ => true,
        }
    }

    /// The letter of a note.
    fn letter(self, byte: u8) -> Option<Self> {
        let letter = matches!(byte, b'A'..=b'G' | b'a'..=b'g');
        (letter && self.has_room()).then(|| self.at(Place::Note(Note::Letter, Length::ONE)))
    }

    /// A byte within the braces of grace notes, which take no time.
    fn grace(self, part: Grace, byte: u8) -> Option<Self> {
        let next = match byte {
            b'^' | b'=' | b'_' if part != Grace::Accidental => Place::Grace(Grace::Accidental),
            b'A'..=b'G' | b'a'..=b'g' => Place::Grace(Grace::Letter),
            b'}' if part == Grace::Letter => Place::Mark,
            _ => return None,
        };
        Some(self.at(next))
    }

    /// A note of which a byte more is written.
    fn longer(self, part: Note, length: Length, byte: u8) -> Option<Self> {
        let Length { beats, halves } = length;
        let (part, length) = match (byte, part) {
            (b'\'' | b',', Note::Letter) => (Note::Octave, length),
            (b'2'..=b'9', Note::Letter | Note::Octave) => {
                (Note::Digit, Length { beats: byte - b'0', halves })
            }
            (b'/', Note::Letter | Note::Octave | Note::Digit | Note::Slash) if halves < 2 => {
                (Note::Slash, Length { beats, halves: halves + 1 })
            }
            (b'2', Note::Slash) if halves == 1 => (Note::Denominator, length),
            (b'4', Note::Slash) if halves == 1 => (Note::Denominator, Length { beats, halves: 2 }),
            _ => return None,
        };
        self.can_become(part, length).then(|| self.at(Place::Note(part, length)))
    }

    /// Whether some end of a note that was begun fits.
    fn can_become(self, part: Note, length: Length) -> bool {
        let open = part != Note::Denominator;
        let least = if open { length.shortest() } else { length.quarters() };
        match (self.left, self.same) {
            (0, _) => least <= self.rest(),
            // A triplet takes the time of two.
            (_, Length::ANY) => least <= self.rest() / 2,
            (_, same) => {
                let grows = matches!(part, Note::Letter | Note::Octave) && length == Length::ONE;
                let shrinks = open && length.halves < same.halves;
                (length.beats == same.beats || grows) && (length.halves == same.halves || shrinks)
            }
        }
    }

    /// With the note that was written last counted; `None` if it may not end here.
    fn over(self, length: Length) -> Option<Self> {
        let quarters = length.quarters();
        match (self.left, self.same) {
            (0, _) => (quarters <= self.rest())
                .then(|| Self { done: self.done.saturating_add(quarters), ..self }),
            (left, Length::ANY) => (quarters <= self.rest() / 2).then(|| Self {
                done: self.done.saturating_add(2 * quarters),
                same: length,
                left: left - 1,
                ..self
            }),
            (left, same) => (length == same).then(|| Self { left: left - 1, ..self }),
        }
    }

    /// Broken rhythm behind a note: the next one is as long as written, so both have the time of
    /// two.
    fn broken(self, before: Length) -> Option<Self> {
        let quarters = before.quarters();
        (quarters <= self.rest()).then(|| Self {
            done: self.done.saturating_add(quarters),
            same: before,
            left: 1,
            place: Place::Broken,
            ..self
        })
    }

    /// A stroke, colon or bracket of a bar line.
    fn bar_line(self, byte: u8) -> Option<Self> {
        let empty = self.done == 0;
        let whole = self.done == self.full || (self.full == FREE && !empty);
        let next = Self { done: 0, first: false, begun: true, ..self };
        match (byte, self.place) {
            (_, Place::Bar) => Some(self.section(0)),
            (b'|' | b':', Place::Section(more @ ..2)) => Some(self.section(more + 1)),
            // A section that begins with a whole bar ends with one.
            (b'|', _) if whole && self.first => Some(Self { pickup: 0, ..next.at(Place::Bar) }),
            (b'|', _) if whole => Some(next.at(Place::Bar)),
            (b'|', Place::Gap(true)) if empty && self.first => Some(self.at(Place::Half(true))),
            (b'|', _) if !empty && self.first => {
                Some(Self { pickup: self.done, ..next.at(Place::Bar) })
            }
            (b':', _) if whole => Some(next.at(Place::Half(false))),
            // The bar that the section began with is the rest of this one.
            (b'|' | b':', _) if !empty && self.pickup > 0 && self.pickup == self.rest() => {
                Some(next.at(Place::Half(byte == b'|')))
            }
            _ => None,
        }
    }

    /// Behind a bar line that ends a section or begins one.
    const fn section(self, more: u8) -> Self {
        Self { first: true, place: Place::Section(more), ..self }
    }
}

impl Header {
    /// Quarters of the unit in a bar of this metre; [`FREE`] if there is none, or no whole number.
    const fn bar(self) -> u16 {
        let [beats, of] = self.metre;
        let (all, of) = (UNIT as u32 * beats as u32 * self.unit as u32, of as u32);
        if of == 0 || all % of != 0 || all == 0 || all / of >= FREE as u32 {
            return FREE;
        }
        (all / of) as u16
    }
}

/// Tunes in ABC notation as a mask: tokens whose bytes the grammar takes.
///
/// ```
/// use rwkv_core::{sampler::{Mask, Tunes}, tokenizer::Tokenizer};
///
/// let mut tunes = Tunes::new(Tokenizer::Bytes);
/// b"X:1\nM:2/4\nK:G\nGABc".iter().for_each(|byte| tunes.advance(u32::from(*byte)));
/// assert!(tunes.allows('|'.into()) && !tunes.allows('d'.into()));
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tunes<'a> {
    tokenizer: Tokenizer<'a>,
    /// `None` behind a text that the grammar does not take.
    tune: Option<Abc>,
}

impl<'a> Tunes<'a> {
    /// Before the header of a tune. The tokenizer is the model's.
    pub const fn new(tokenizer: Tokenizer<'a>) -> Self {
        Self { tokenizer, tune: Some(Abc::new()) }
    }

    /// Where the tune is; `None` behind a text that the grammar does not take, such as a prompt with
    /// chords. Nothing is allowed then.
    pub const fn tune(&self) -> Option<Abc> {
        self.tune
    }

    /// A token without a text would change nothing, for ever; the one that ends the text may stand
    /// between tunes.
    fn after(&self, token: u32) -> Option<Abc> {
        let tune = self.tune?;
        if self.tokenizer.end_of_text() == Some(token) {
            return (tune == Abc::new()).then_some(tune);
        }
        let bytes = self.tokenizer.decode(token).ok().filter(|bytes| !bytes.is_empty())?;
        tune.after(bytes)
    }
}

impl Mask for Tunes<'_> {
    fn allows(&self, token: u32) -> bool {
        self.after(token).is_some()
    }

    fn advance(&mut self, token: u32) {
        self.tune = self.after(token);
    }

    fn restart(&mut self) {
        self.tune = Some(Abc::new());
    }
}

#[cfg(test)]
mod tests;
