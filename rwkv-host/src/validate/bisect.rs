//! From a token that differs to the first value that is wrong.
//!
//! The token is computed again from the host's state before it, and the device shows what it
//! writes: a digest for each section, then for each operation of the first section that differs,
//! then the values of the first operation. Whatever that operation read was right; so it is either
//! the weights that are wrong, which the device's own image tells, or how they were computed with.

use std::fmt;

use rwkv_core::{
    Digest, Error, Image, ImageError, Logits, Model,
    exec::{Numbered, Work, Written},
    image::{Id, Section, SectionKind},
    stream::InPlace,
};
use rwkv_embedded::agent::protocol::{AgentError, Depth};
use serde::Serialize;

use super::ValidateError;
use crate::{
    device::{Device, DeviceError, Looked, Refusal},
    memory::Memory,
    profile::{operation_name, part_name, section_name},
};

/// Bytes of a page, as flash is commonly erased.
const PAGE: u32 = 4096;

/// Words of the image that are compared at once.
const PIECE: usize = 1024;

/// What a token writes, operation by operation.
#[derive(Debug, Default)]
struct Trace {
    numbered: Numbered,
    all: Vec<Operation>,
}

#[derive(Debug)]
struct Operation {
    written: Written,
    work: Work,
    values: Vec<f32>,
}

impl Operation {
    fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        // What is no number shows in the digest.
        let _ = digest.add(0, &self.values);
        digest
    }
}

impl Logits for Trace {
    const LOOKS: bool = true;

    fn push(&mut self, _: u32, _: &[f32]) {}

    fn wrote(&mut self, work: Work, first: u32, values: &mut [f32]) {
        let written = self.numbered.piece(work, first);
        match self.all.last_mut().filter(|last| last.written == written) {
            Some(last) => last.values.extend_from_slice(values),
            None => self.all.push(Operation { written, work, values: values.to_vec() }),
        }
    }
}

impl Trace {
    /// Of a token, from the state before it.
    fn of(image: &Image<'_>, before: &[f32], token: u32) -> Result<Self, Error> {
        let mut trace = Self::default();
        let mut memory = Memory::new(image);
        let (mut state, scratch) = memory.split(image)?;
        state.restore(before.iter().copied())?;
        let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch)?;
        model.step(state, token, &mut trace)?;
        Ok(trace)
    }

    fn sections(&self) -> Vec<Digest> {
        let mut digests: Vec<Digest> = Vec::new();
        for operation in &self.all {
            let Written { section, operation: number } = operation.written;
            digests.resize(digests.len().max(usize::from(section) + 1), Digest::default());
            digests[usize::from(section)].fold(number.into(), operation.digest());
        }
        digests
    }

    fn section(&self, section: u16) -> impl Iterator<Item = &Operation> {
        self.all.iter().filter(move |operation| operation.written.section == section)
    }
}

/// What is wrong where a device differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// An operation whose inputs were right writes something else.
    Operation(Wrong),
    /// Asked again, from the host's state before the token, the device computes the host's bits.
    NotReproduced {
        /// What is wrong with the device's image, if anything is.
        image: Option<Cause>,
    },
    /// After equal states and logits, the device chose another token.
    Sampler,
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
}

/// A value that differs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Value {
    /// Its index in the vector.
    pub index: usize,
    /// The host's, and its bits.
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
    fn of(host: &[f32], device: &[f32]) -> Self {
        let pairs = || host.iter().zip(device).filter(|(a, b)| a.to_bits() != b.to_bits());
        let bits: u32 = pairs().map(|(a, b)| (a.to_bits() ^ b.to_bits()).count_ones()).sum();
        let largest = host.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        if pairs().all(|(a, b)| a.is_subnormal() && *b == 0.0) {
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

/// Finds the first operation of `token` that the device computes otherwise than the host, both
/// from the state `before` it, in the order of `StateView::words`.
///
/// # Errors
/// Those of the device, and [`ValidateError::Host`] if the host cannot compute the token.
pub fn bisect(
    device: &mut Device,
    image: &Image<'_>,
    before: &[f32],
    token: u32,
) -> Result<Finding, ValidateError> {
    let trace = Trace::of(image, before, token);
    let trace = trace.map_err(|error| ValidateError::Host { index: 0, error })?;
    let mut look = |depth| {
        device.write_state(before)?;
        device.look(token, depth)
    };

    let sections = trace.sections();
    let found = look(Depth::Sections)?.digests;
    let Some(section) = first_difference(&sections, &found) else {
        return Ok(not_reproduced(device, image));
    };
    let section = section as u16;
    let operations: Vec<&Operation> = trace.section(section).collect();
    let digests: Vec<Digest> = operations.iter().map(|operation| operation.digest()).collect();
    let found = look(Depth::Operations { section })?.digests;
    let Some(&operation) = first_difference(&digests, &found).and_then(|i| operations.get(i))
    else {
        return Ok(not_reproduced(device, image));
    };
    let Looked { values, refused, .. } = look(Depth::Values(operation.written))?;

    let host = &operation.values;
    let differs = |(index, (host, device)): (usize, (&f32, &f32))| {
        let (host_bits, device_bits) = (host.to_bits(), device.to_bits());
        let value = Value { index, host: *host, host_bits, device: *device, device_bits };
        (host_bits != device_bits).then_some(value)
    };
    let mut differing = host.iter().zip(&values).enumerate().filter_map(differs);
    let first = differing.next();
    let differing = usize::from(first.is_some()) + differing.count();
    if first.is_none() && values.len() == host.len() {
        return Ok(not_reproduced(device, image));
    }
    let Work { id, part, .. } = operation.work;
    // What reads no record reads no weights.
    let entry = id.map(|id| table_entry(image, section, id));
    let weights = entry.and_then(|entry| weights(device, image, Some(entry)));
    let cause = weights.unwrap_or_else(|| match (first, refused) {
        (None, Some(error)) => Cause::Refused { error: error.to_string() },
        _ => Cause::Computation { pattern: Pattern::of(host, &values) },
    });
    Ok(Finding::Operation(Wrong {
        written: operation.written,
        section_name: section_name(section, image.header().dims.layers),
        operations: operations.len(),
        operation_name: operation_name(id, part),
        record: id.map(|id| format!("{id:?}")),
        part: part_name(part),
        values: host.len(),
        written_values: values.len(),
        differing,
        first,
        cause,
    }))
}

/// Whether a token of the image writes such a value: what a planted fault may name.
///
/// # Errors
/// If the host cannot compute a token.
pub(super) fn is_written(image: &Image<'_>, written: Written, element: u32) -> Result<bool, Error> {
    let state = Memory::new(image).state(image)?.words().concat();
    let trace = Trace::of(image, &state, 0)?;
    let operation = trace.all.iter().find(|operation| operation.written == written);
    Ok(operation.is_some_and(|operation| (element as usize) < operation.values.len()))
}

fn not_reproduced(device: &mut Device, image: &Image<'_>) -> Finding {
    Finding::NotReproduced { image: weights(device, image, None) }
}

/// The entry of the section table that an operation's weights lie in.
fn table_entry(image: &Image<'_>, section: u16, id: Id) -> usize {
    let deep = usize::from(image.header().version.is_deep());
    match (section, id) {
        (0, _) => 0,
        (_, Id::DeepEmbed) => 1,
        _ => usize::from(section) + deep,
    }
}

/// The first digest that differs, or that one of them lacks.
fn first_difference(host: &[Digest], device: &[Digest]) -> Option<usize> {
    let equal = host.iter().zip(device).take_while(|(a, b)| a == b).count();
    (equal < host.len() || equal < device.len()).then_some(equal)
}

/// What is wrong with a section of the device's image, or with any of them.
fn weights(device: &mut Device, image: &Image<'_>, entry: Option<usize>) -> Option<Cause> {
    let refusal = match device.verify() {
        Ok(()) => return None,
        Err(DeviceError::Refused(AgentError::OtherImage { identity })) => {
            return Some(Cause::OtherImage { identity });
        }
        Err(DeviceError::Refused(error)) => error,
        Err(error) => return Some(Cause::Unknown { error: error.to_string() }),
    };
    match compare(device, image, entry, refusal) {
        Ok(Some(cause)) => Some(cause),
        // The fault lies elsewhere.
        Ok(None) if entry.is_some() => None,
        Ok(None) => Some(Cause::Unsteady { found: Refusal(refusal).to_string() }),
        Err(error) => Some(Cause::Unknown { error: error.to_string() }),
    }
}

/// The first word of a section, or of the image, that is not the host's.
fn compare(
    device: &mut Device,
    image: &Image<'_>,
    entry: Option<usize>,
    refusal: AgentError,
) -> Result<Option<Cause>, DeviceError> {
    let table = image.sections().next().map_or(0, |first| first.range().start / 4);
    let mut parts = vec![(None, 0..table)];
    parts.extend(image.sections().map(|section| {
        let range = section.range();
        (Some(section), range.start / 4..range.end / 4)
    }));
    if let Some(entry) = entry {
        parts = parts.split_off((entry + 1).min(parts.len()));
        parts.truncate(1);
    } else if let AgentError::Model(Error::Image(ImageError::SectionChecksum { section })) = refusal
    {
        // Reading takes its time: the one that the device names comes first.
        let named = (usize::from(section) + 1) % parts.len();
        parts.rotate_left(named);
    }
    for (section, words) in parts {
        let mut first = None;
        let mut differing = 0;
        let mut at = words.start;
        while at < words.end {
            let piece = at..words.end.min(at + PIECE);
            let there = device.read_image(piece.clone())?;
            for (word, found) in piece.clone().zip(there) {
                let expected = image.words().get(word).copied().unwrap_or_default();
                if expected != found {
                    first.get_or_insert((word, expected, found));
                    differing += 1;
                }
            }
            at = piece.end;
        }
        if let Some((word, host, device)) = first {
            let offset = 4 * word as u32;
            let place = place(image, section.as_ref(), offset);
            let page = offset / PAGE;
            return Ok(Some(Cause::Image { offset, page, place, host, device, words: differing }));
        }
    }
    Ok(None)
}

/// Where a byte of the image lies, in words.
fn place(image: &Image<'_>, section: Option<&Section>, offset: u32) -> String {
    let Some(section) = section else { return "header".to_owned() };
    let name = match section.kind {
        SectionKind::Embedding => "embedding".to_owned(),
        SectionKind::Layer => format!("layer {}", section.index),
        SectionKind::Head => "head".to_owned(),
        kind => format!("{kind:?}"),
    };
    let mut record: Option<Id> = None;
    // The host's image is whole.
    let _ = image.walk(|request, found| {
        let bytes = 4 * (rwkv_core::image::RECORD_WORDS + found.payload.len()) as u32;
        if (found.offset..found.offset + bytes).contains(&offset) {
            record = Some(request.id);
        }
        Ok(())
    });
    match record {
        Some(id) => format!("{name}, record {id:?}"),
        None => name,
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

/// Lines of a table.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = match self {
            Self::Operation(wrong) => wrong,
            Self::NotReproduced { image } => {
                writeln!(
                    f,
                    "first wrong   nothing, when the token is computed again from the host's state"
                )?;
                return match image {
                    Some(cause) => writeln!(f, "cause         {cause}"),
                    None => writeln!(
                        f,
                        "cause         memory that was written over before it, or a fault that comes \
                         and goes"
                    ),
                };
            }
            Self::Sampler => {
                return writeln!(
                    f,
                    "first wrong   the choice of the token, after equal states and logits: the sampler"
                );
            }
            Self::Unknown { error } => return writeln!(f, "first wrong   unknown: {error}"),
        };
        let Wrong { written, operations, values, written_values, differing, .. } = wrong;
        write!(f, "first wrong   {}, operation {} ", wrong.section_name, written.operation)?;
        write!(f, "of {operations}: {}", wrong.operation_name)?;
        if let Some(record) = &wrong.record {
            write!(f, " {record}")?;
        }
        writeln!(f, " ({}); {differing} of {values} values differ", wrong.part)?;
        match &wrong.first {
            Some(Value { index, host, host_bits, device, device_bits }) => {
                writeln!(f, "value         {index}")?;
                writeln!(f, "host          {host:e} ({host_bits:08x})")?;
                writeln!(f, "device        {device:e} ({device_bits:08x})")?;
            }
            None => writeln!(f, "device        failed after {written_values} values")?,
        }
        writeln!(f, "cause         {}", wrong.cause)
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
    }
}
