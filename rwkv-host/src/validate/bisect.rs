//! From a token that differs to the first value that is wrong.
//!
//! The token is computed again from the host's state before it, and the device shows what it
//! writes: a digest for each section, then for each operation of the first section that differs,
//! then the values of the first operation. Whatever that operation read was right; so it is either
//! the weights that are wrong, which the device's own image tells, or how they were computed with.

use rwkv_core::{
    Digest, Error, Image, ImageError, Logits, Model,
    exec::{Numbered, Work, Written},
    image::{Id, RECORD_WORDS, Section, SectionKind},
    stream::InPlace,
};
use rwkv_embedded::agent::protocol::{AgentError, Depth};

use super::{
    ValidateError,
    finding::{Cause, Compared, Finding, PAGE, Pattern, Value, Wrong},
};
use crate::{
    device::{Device, DeviceError, Looked, Refusal},
    memory::Memory,
    profile::{operation_name, part_name, section_name},
};

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
    fn name(&self) -> String {
        let Work { id, part, .. } = self.work;
        let record = id.map_or_else(String::new, |id| format!(" {id:?}"));
        format!("{}{record} ({})", operation_name(id, part), part_name(part))
    }

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
    let trace = trace.map_err(|error| ValidateError::Host { index: 0, error: error.into() })?;
    let mut look = |depth| {
        device.write_state(before)?;
        device.look(token, depth)
    };

    let layers = image.header().dims.layers;
    let digests = trace.sections();
    let found = look(Depth::Sections)?.digests;
    let Some(section) = first_difference(&digests, &found) else {
        return Ok(not_reproduced(device, image));
    };
    let names = (0..).map(|section| section_name(section, layers));
    let sections = compared(names, &digests, &found);
    let section = section as u16;
    let operations: Vec<&Operation> = trace.section(section).collect();
    let digests: Vec<Digest> = operations.iter().map(|operation| operation.digest()).collect();
    let found = look(Depth::Operations { section })?.digests;
    let Some(&operation) = first_difference(&digests, &found).and_then(|i| operations.get(i))
    else {
        return Ok(not_reproduced(device, image));
    };
    let names = operations.iter().map(|operation| operation.name());
    let section_operations = compared(names, &digests, &found);
    let Looked { values, refused, .. } = look(Depth::Values(operation.written))?;

    let host = &operation.values;
    let differs = |(index, (host, device)): (usize, (&f32, &f32))| {
        let (host_bits, device_bits) = (host.to_bits(), device.to_bits());
        let value = Value { index, host: *host, host_bits, device: *device, device_bits };
        (host_bits != device_bits).then_some(value)
    };
    let differing: Vec<Value> = host.iter().zip(&values).enumerate().filter_map(differs).collect();
    let first = differing.first().copied();
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
    Ok(Finding::Operation(Box::new(Wrong {
        written: operation.written,
        section_name: section_name(section, layers),
        operations: operations.len(),
        operation_name: operation_name(id, part),
        record: id.map(|id| format!("{id:?}")),
        part: part_name(part),
        values: host.len(),
        written_values: values.len(),
        differing: differing.len(),
        first,
        cause,
        sections,
        section_operations,
        host: host.clone(),
        device: values,
    })))
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

/// Each of the host's digests beside the device's.
fn compared(
    names: impl Iterator<Item = String>,
    host: &[Digest],
    device: &[Digest],
) -> Vec<Compared> {
    let one = |(index, (name, host)): (usize, (String, &Digest))| {
        let agrees = device.get(index).map(|device| device == host);
        Compared { name, agrees }
    };
    names.zip(host).enumerate().map(one).collect()
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
    let layers = image.header().dims.layers;
    let name = match section.kind {
        SectionKind::Embedding => section_name(0, layers),
        SectionKind::Layer => section_name(section.index + 1, layers),
        SectionKind::Head => section_name(layers as u16 + 1, layers),
        kind => format!("{kind:?}"),
    };
    let mut record: Option<Id> = None;
    // The host's image is whole.
    let _ = image.walk(|request, found| {
        let bytes = 4 * (RECORD_WORDS + found.payload.len()) as u32;
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
