//! Decodes a firmware's defmt log with the strings in its ELF file.

use defmt_decoder::{DecodeError, Table};

/// The log as text, one line per frame; empty if the ELF file has no strings.
pub(super) fn decode(elf: &[u8], frames: &[u8]) -> String {
    let Ok(Some(table)) = Table::parse(elf) else { return String::new() };
    let recovers = table.encoding().can_recover();
    let mut decoder = table.new_stream_decoder();
    decoder.received(frames);
    let mut text = String::new();
    loop {
        match decoder.decode() {
            Ok(frame) => text.push_str(&format!("{}\n", frame.display(false))),
            Err(DecodeError::Malformed) if recovers => {}
            Err(_) => return text,
        }
    }
}
