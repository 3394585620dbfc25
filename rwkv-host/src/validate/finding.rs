//! What a bisection finds, and how it reads.

use std::fmt;

use rwkv_core::{Digest, exec::Written};
use serde::Serialize;

use super::verdict::{Row, write_rows};

/// Bytes of a page, as flash is commonly erased.
pub(super) const PAGE: u32 = 4096;

/// What is wrong where a device differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// An operation whose inputs were right writes something else.
    Operation(Box<Wrong>),
    /// Asked again, from the host's state before the token, the device computes the host's bits.
    NotReproduced {
        /// What is wrong with the device's image, if anything is.
        image: Option<Cause>,
    },
    /// After equal states and logits, the device chose another token.
    Sampler,
    /// Steps on this host lead elsewhere, too: what the device is held to is in doubt.
    Record {
        /// The digest that they find.
        digest: Digest,
    },
    /// The image is not at hand, and it alone tells which operation is wrong.
    NoImage,
    /// It could not be found out.
    Unknown {
        /// Why, in words.
        error: String,
    },
}

/// What an operation wrote that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Wrong {
    /// Which one: the section, and the number of what is written there.
    #[serde(flatten)]
    pub written: Written,
    /// The section in words.
    pub section_name: String,
    /// How many there are in that section.
    pub operations: usize,
    /// The operation of the executor.
    pub operation_name: &'static str,
    /// The record that it reads, if it reads one.
    pub record: Option<String>,
    /// The part of the operation.
    pub part: String,
    /// How many values it writes.
    pub values: usize,
    /// How many the device wrote: fewer if it failed.
    pub written_values: usize,
    /// How many of those differ.
    pub differing: usize,
    /// The first of them.
    pub first: Option<Value>,
    /// Why.
    pub cause: Cause,
    /// The digests of the sections, in the order in which they are computed.
    pub sections: Vec<Compared>,
    /// And those of the operations of this section.
    pub section_operations: Vec<Compared>,
    /// The values that the operation writes on the host.
    #[serde(skip)]
    pub host: Vec<f32>,
    /// Those of the device.
    #[serde(skip)]
    pub device: Vec<f32>,
}

/// A digest that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Of what it is.
    pub name: String,
    /// Whether it is the host's; `None` if the device failed before.
    pub agrees: Option<bool>,
}

/// A value that differs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Value {
    /// Its index in the vector.
    pub index: usize,
    /// The host's.
    pub host: f32,
    /// The bits of the host's.
    pub host_bits: u32,
    /// The device's; JSON has null where it is no number.
    pub device: f32,
    /// The bits of the device's.
    pub device_bits: u32,
}

/// Why an operation writes something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The weights that it reads are not the host's.
    Image {
        /// Byte offset of the first word that differs.
        offset: u32,
        /// Its page of 4,096 bytes, counted from the start of the image.
        page: u32,
        /// Where that is.
        place: String,
        /// The host's word.
        host: u32,
        /// The device's.
        device: u32,
        /// Words that differ within the section.
        words: usize,
    },
    /// The device runs another image by now.
    OtherImage {
        /// Its identity.
        identity: u32,
    },
    /// The device finds a fault in its image, and shows the host's words when they are read again.
    Unsteady {
        /// What it finds.
        found: String,
    },
    /// The device failed to compute it.
    Refused {
        /// Why, in words.
        error: String,
    },
    /// The weights are the host's: what was computed from them is not.
    Computation {
        /// What it looks like.
        pattern: Pattern,
    },
    /// It could not be found out.
    Unknown {
        /// Why, in words.
        error: String,
    },
}

/// What a wrong computation looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pattern {
    /// One bit of one value.
    OneBit,
    /// Zeros where the host has values below the smallest normal number.
    FlushToZero,
    /// Differences as small as those of roundings, beside the largest value.
    LastBits,
    /// None of these.
    Other,
}

/// Differences of so much of the largest value may come from roundings: 64 units in its last place.
const ROUNDINGS: f32 = 64.0 / (1 << 23) as f32;

impl Pattern {
    pub(super) fn of(host: &[f32], device: &[f32]) -> Self {
        let pairs = || host.iter().zip(device).filter(|(a, b)| a.to_bits() != b.to_bits());
        let bits: u32 = pairs().map(|(a, b)| (a.to_bits() ^ b.to_bits()).count_ones()).sum();
        let largest = host.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        if bits == 0 {
            Self::Other
        } else if pairs().all(|(a, b)| a.is_subnormal() && *b == 0.0) {
            Self::FlushToZero
        } else if bits == 1 {
            Self::OneBit
        } else if pairs().all(|(a, b)| (a - b).abs() <= ROUNDINGS * largest) {
            Self::LastBits
        } else {
            Self::Other
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneBit => "one bit of one value: memory or a register that does not hold it",
            Self::FlushToZero => {
                "zeros for numbers below the smallest normal one: the core flushes them to zero, which \
                 the firmware must switch off (on Arm, bit 24 of FPSCR)"
            }
            Self::LastBits => {
                "last bits: multiplications and additions contracted into one rounding, sums in \
                 another order, or another rounding mode"
            }
            Self::Other => "other code than the host's, or memory that was written over",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { offset, page, place, host, device, words } => write!(
                f,
                "the flash: in the word at byte {offset} of the image ({place}; page {page}, of {PAGE} \
                 bytes each, from its start), the device has {device:08x}, the host {host:08x}; words \
                 of that section that differ: {words}. Write the image anew"
            ),
            Self::Unsteady { found } => {
                write!(f, "reading the flash: {found}, and all is there when it is read again")
            }
            Self::OtherImage { identity } => {
                write!(f, "another image, {identity:08x}, which the device runs by now")
            }
            Self::Refused { error } => write!(f, "the device failed: {error}"),
            Self::Computation { pattern } => {
                write!(f, "the computation, since what it reads is the host's: {pattern}")
            }
            Self::Unknown { error } => write!(f, "unknown: {error}"),
        }
    }
}

impl Finding {
    /// Names and texts: what is wrong, and the likely cause.
    pub(super) fn rows(&self) -> Vec<Row> {
        let first = |text: &str| ("first wrong", text.to_owned());
        let cause = |text: String| ("cause", text);
        match self {
            Self::Operation(wrong) => wrong.rows(),
            Self::NotReproduced { image } => vec![
                first("nothing, when the token is computed again from the host's state"),
                cause(image.as_ref().map_or_else(
                    || {
                        "memory that was written over before it, or a fault that comes and goes"
                            .to_owned()
                    },
                    ToString::to_string,
                )),
            ],
            Self::Sampler => {
                vec![first("the choice of the token, after equal states and logits: the sampler")]
            }
            Self::Record { digest: Digest(a, b) } => vec![
                first(&format!(
                    "what the device is held to: this host finds the digest {a:08x}{b:08x} step by step"
                )),
                cause(
                    "a trace that was recorded by other software than this, or on a machine that \
                     computes other bits: rwkv trace --check compares all of it; without a trace, \
                     this host's GPU or its parallel prefill: repeat with --backend cpu"
                        .to_owned(),
                ),
            ],
            Self::NoImage => vec![first(
                "unknown without the image; to learn which operation it is: \
                 rwkv validate IMAGE --golden TRACE, with the same device",
            )],
            Self::Unknown { error } => vec![first(&format!("unknown: {error}"))],
        }
    }
}

impl Wrong {
    fn rows(&self) -> Vec<Row> {
        let Self { written, operations, values, written_values, differing, .. } = self;
        let record = self.record.as_ref().map_or_else(String::new, |record| format!(" {record}"));
        let place = format!(
            "{}, operation {} of {operations}: {}{record} ({}); {differing} of {values} values differ",
            self.section_name, written.operation, self.operation_name, self.part
        );
        let mut rows = vec![("first wrong", place)];
        match &self.first {
            Some(Value { index, host, host_bits, device, device_bits }) => rows.extend([
                ("value", index.to_string()),
                ("host", format!("{host:e} ({host_bits:08x})")),
                ("device", format!("{device:e} ({device_bits:08x})")),
            ]),
            None => rows.push(("device", format!("failed after {written_values} values"))),
        }
        rows.push(("cause", self.cause.to_string()));
        rows
    }
}

/// Lines of a table.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rows(f, &self.rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_told_apart() {
        let host = [1.0, 2.0, 1e-40, -3.0];
        let with = |index: usize, value: f32| {
            let mut device = host;
            device[index] = value;
            Pattern::of(&host, &device)
        };
        assert_eq!(with(0, f32::from_bits(1.0_f32.to_bits() ^ 1 << 22)), Pattern::OneBit);
        assert_eq!(with(2, 0.0), Pattern::FlushToZero);
        assert_eq!(with(3, -2.999_999_3), Pattern::LastBits);
        // A product with one rounding for each multiplication and addition together, and in the
        // other order: what cancels differs by many units in its own last place.
        let (a, b): (Vec<f32>, Vec<f32>) =
            (0..96).map(|i| ((i as f32).sin(), (3.7 * i as f32).cos())).unzip();
        let row = |shift: usize| a.iter().zip(b.iter().cycle().skip(shift));
        let sums = |sum: &dyn Fn(usize) -> f32| (0..96).map(sum).collect::<Vec<f32>>();
        let plain = sums(&|shift| row(shift).fold(0.0, |sum, (x, y)| sum + x * y));
        let fused = sums(&|shift| row(shift).fold(0.0, |sum: f32, (x, y)| x.mul_add(*y, sum)));
        let turned = sums(&|shift| {
            let products: Vec<f32> = row(shift).map(|(x, y)| x * y).collect();
            products.iter().rev().fold(0.0, |sum, x| sum + x)
        });
        assert_eq!(Pattern::of(&plain, &fused), Pattern::LastBits);
        assert_eq!(Pattern::of(&plain, &turned), Pattern::LastBits);
        assert_eq!(with(1, 7.25), Pattern::Other);
        // Fewer values than there should be, and nothing wrong with them.
        assert_eq!(Pattern::of(&host, &host[..2]), Pattern::Other);
    }
}
