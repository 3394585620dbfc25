//! The check of an image over a medium: it has the verdict of the same bytes in memory, and no read of
//! it fails in silence.

use rwkv_core::{
    Error, Image, StreamError,
    image::{CRC, HEADER_BYTES, SECTION_BYTES},
};
use rwkv_host::file::ImageFile;
use rwkv_tests::{
    baked, damage,
    medium::{Clock, Fault, SimFlash, check_over},
    random, repair_header, seeds, xorshift,
};

use crate::agents::every_image;

fn same_verdict(name: &str, bytes: &[u8]) {
    let file = ImageFile::new(bytes);
    let clock = Clock::default();
    let wanted = Image::open_prefix(file.bytes());
    let wanted = wanted.map(|image| (*image.header(), image.identity())).map_err(Error::Image);
    let found = [
        check_over::<4>(SimFlash::new(bytes, &clock)),
        check_over::<512>(SimFlash::new(bytes, &clock)),
    ];
    for found in found {
        assert_eq!(found.map(|found| (found.header, found.identity)), wanted, "{name}");
    }
}

#[test]
fn an_image_on_a_medium_has_the_verdict_of_the_same_bytes_in_memory() {
    every_image(|name, file| same_verdict(name, file.bytes()));
    let good = baked(&random::tiny_image(), &[1, 2]);
    same_verdict("a start state", good.bytes());
    for damage in damage::list(&good) {
        same_verdict(&damage.what, damage.file.bytes());
        let mut flash = damage.file.bytes().to_vec();
        flash.resize(flash.len() + 4096, 0xff);
        same_verdict(&damage.what, &flash);
    }
    for len in 0..good.bytes().len() {
        same_verdict("cut", &good.bytes()[..len]);
    }
}

/// Words changed anywhere, with the checksums of header and sections made right again.
#[test]
fn hostile_images_have_one_verdict() {
    let mut all = seeds::all();
    all.retain(|(target, _)| *target == "image");
    let mut random = xorshift(77);
    for good in all.into_iter().flat_map(|(_, images)| images) {
        let sections = u16::from_le_bytes([good[56], good[57]]);
        for turn in 0..400 {
            let mut bytes = good.clone();
            for _ in 0..=turn % 3 {
                let at = random() as usize % (bytes.len() / 4) * 4;
                // Half of the time near the front, where the header and its table are.
                let at = if random().is_multiple_of(2) { at % 256 } else { at };
                let word = match random() % 4 {
                    0 => random(),
                    1 => 0,
                    2 => u32::MAX,
                    _ => {
                        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"))
                            ^ 1 << (random() % 32)
                    }
                };
                bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            if turn % 8 > 0 {
                repair(&mut bytes, sections.into());
            }
            same_verdict(&format!("turn {turn}"), &bytes);
        }
    }
}

pub(crate) fn repair(bytes: &mut [u8], sections: usize) {
    for entry in (0..sections).map(|section| HEADER_BYTES + section * SECTION_BYTES) {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
        let (offset, length) = (word(entry + 4) as usize, word(entry + 8) as usize);
        let Some(content) = bytes.get(offset..offset.saturating_add(length)) else { continue };
        let crc = CRC.checksum(content);
        bytes[entry + 12..entry + 16].copy_from_slice(&crc.to_le_bytes());
    }
    repair_header(bytes);
}

/// Every read of a check fails in every way: it is named, and nothing is made of it.
#[test]
fn no_fault_of_a_check_is_silent() {
    let file = random::tiny_image();
    let clock = Clock::default();
    let over = |fault| {
        let mut flash = SimFlash::<4>::new(file.bytes(), &clock);
        flash.fault = fault;
        check_over(flash)
    };
    assert!(over(None).is_ok());
    let mut at = 0;
    while over(Some((at, Fault::Error))).is_err() {
        for fault in [Fault::Error, Fault::Short] {
            let found = over(Some((at, fault)));
            assert!(
                matches!(found, Err(Error::Stream(StreamError::Medium { .. }))),
                "{fault:?} at {at}: {found:?}"
            );
        }
        let flipped = over(Some((at, Fault::Flip)));
        // An entry of the table is read again where it is used, and may then point anywhere.
        let named = matches!(
            flipped,
            Err(Error::Image(_) | Error::Stream(StreamError::OutOfBounds { .. }))
        );
        assert!(named, "a flip at {at}: {flipped:?}");
        at += 1;
    }
    println!("{at} reads");
    assert!(at > 100);
}
