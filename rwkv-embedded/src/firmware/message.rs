//! What the compiler says about an image. These functions panic, for a `const` to do so.

use rwkv_core::{Header, ImageError};

/// A text that is put together when the firmware is compiled; what has no room is cut off.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Message {
    bytes: [u8; 256],
    len: usize,
}

impl Message {
    /// Begins with the name of a file.
    pub const fn new(name: &str) -> Self {
        Self { bytes: [0; 256], len: 0 }.text(name).text(": ")
    }

    /// The same and a text behind it.
    pub const fn text(mut self, text: &str) -> Self {
        let mut rest = text.as_bytes();
        while let [byte, after @ ..] = rest {
            if self.len < self.bytes.len() {
                self.bytes[self.len] = *byte;
                self.len += 1;
            }
            rest = after;
        }
        self
    }

    /// The same and a number behind it.
    pub const fn number(self, number: u64) -> Self {
        const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        let before = if number < 10 { self } else { self.number(number / 10) };
        before.text(DIGITS[(number % 10) as usize])
    }

    /// The whole text.
    pub const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "the file's name is too long for a message",
        }
    }
}

/// The header of the image that a file holds, for a `const`.
///
/// # Panics
/// If the header is damaged or unknown, or the file is cut short or goes on behind the image.
pub const fn header(name: &str, bytes: &[u8]) -> Header {
    let header = match Header::parse(bytes) {
        Ok(header) => header,
        Err(error) => panic!("{}", refusal(name, error).as_str()),
    };
    if let Err(error) = whole(&header, bytes) {
        panic!("{}", refusal(name, error).as_str());
    }
    header
}

/// Compares what a model takes with the firmware's budget, in bytes, for a `const`.
///
/// # Panics
/// If it is over the budget.
pub const fn budget(name: &str, header: &Header, needed: usize, budget: usize) {
    if needed > budget {
        panic!("{}", over(name, header, needed, budget).as_str());
    }
}

const fn whole(header: &Header, bytes: &[u8]) -> Result<(), ImageError> {
    if let Err(error) = header.check_crc(bytes) {
        return Err(error);
    }
    let (expected, given) = (header.bytes(), bytes.len() as u32);
    if given < expected {
        Err(ImageError::Truncated { needed: expected, given })
    } else if given > expected {
        Err(ImageError::TrailingBytes { expected, given })
    } else {
        Ok(())
    }
}

/// Why the image is refused, and what to do.
const fn refusal(name: &str, error: ImageError) -> Message {
    let start = Message::new(name);
    match error {
        ImageError::Truncated { needed, given } => start
            .text("the image is cut short, ")
            .number(needed as u64)
            .text(" bytes expected, ")
            .number(given as u64)
            .text(" found: copy or convert it again"),
        ImageError::TrailingBytes { expected, given } => start
            .text("the image is followed by other data, ")
            .number(expected as u64)
            .text(" bytes expected, ")
            .number(given as u64)
            .text(" found: give the file as `rwkv convert` writes it"),
        ImageError::Magic => {
            start.text("not an RWKV image: make one of a checkpoint with `rwkv convert`")
        }
        ImageError::HeaderChecksum => start.text(
            "the header is damaged, its CRC-32 does not match: copy or convert the image again",
        ),
        ImageError::FormatVersion(version) => start
            .text("image format ")
            .number(version as u64)
            .text(" is not the one of this rwkv-core: convert with the tool of the same version"),
        ImageError::MathMode(_) => {
            start.text("a math mode of other builds: enable the feature micromath of rwkv-core")
        }
        ImageError::HeaderField { offset } => start
            .text("the header field at byte ")
            .number(offset as u64)
            .text(" is out of range: copy or convert the image again"),
        _ => start.text(
            "the header has a code that this rwkv-core does not know: convert with the tool of the same version",
        ),
    }
}

const fn over(name: &str, header: &Header, needed: usize, budget: usize) -> Message {
    Message::new(name)
        .text("state and scratch need ")
        .number(needed as u64)
        .text(" bytes of RAM, the budget is ")
        .number(budget as u64)
        .text(": the state has ")
        .number(4 * header.state_words() as u64)
        .text(" and the scratch ")
        .number(4 * header.scratch_words as u64)
        .text("; raise `ram`, or take a model of fewer layers or channels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::ToString, vec::Vec};

    const TINY: &[u8] = include_bytes!("tiny.rwkv");
    const DAMAGED: &[u8] = include_bytes!("damaged.rwkv");

    /// Why a file is refused.
    fn refused(bytes: &[u8]) -> Option<ImageError> {
        let header = Header::parse(bytes);
        header.and_then(|header| whole(&header, bytes)).err()
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            let message = Message::new("x").number(number);
            assert_eq!(message.as_str(), ["x: ", &number.to_string()].concat());
        }
    }

    #[test]
    fn a_message_is_cut_where_it_has_no_room() {
        let long = "a".repeat(300);
        assert_eq!(Message::new(&long).as_str(), &long[..256]);
        let cut = Message::new(&"é".repeat(127)).text("é").as_str().len();
        assert_eq!(cut, 256);
        assert!(Message::new(&["a", &"é".repeat(200)].concat()).as_str().contains("too long"));
    }

    #[test]
    fn a_budget_says_all_that_is_needed() {
        let header = header("tiny.rwkv", TINY);
        budget("tiny.rwkv", &header, 512, 512);
        let message = over("tiny.rwkv", &header, 513, 512);
        let expected =
            "tiny.rwkv: state and scratch need 513 bytes of RAM, the budget is 512: the state has ";
        assert!(message.as_str().starts_with(expected), "{}", message.as_str());
        assert!(message.as_str().ends_with("fewer layers or channels"), "{}", message.as_str());
    }

    #[test]
    fn any_damage_of_a_header_is_refused() {
        assert_eq!(refused(TINY), None);
        assert_eq!(refused(DAMAGED), Some(ImageError::HeaderChecksum));
        let header = Header::parse(TINY).unwrap();
        let table_end = 80 + 16 * usize::from(header.section_count());
        let mut bytes = Vec::from(TINY);
        for at in 0..table_end {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(refused(&bytes).is_some(), "byte {at}, bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
        for len in 0..TINY.len() {
            assert!(refused(&TINY[..len]).is_some(), "{len} bytes");
        }
        bytes.push(0);
        let (expected, given) = (TINY.len() as u32, TINY.len() as u32 + 1);
        assert_eq!(refused(&bytes), Some(ImageError::TrailingBytes { expected, given }));
    }
}
