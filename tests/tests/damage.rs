//! Damaged images: each ends in the same typed error on the host and on a device.

use rwkv_core::ImageError;
use rwkv_host::{convert::Weights, file::ImageFile};
use rwkv_tests::{damage, image, shipped};

#[test]
fn the_host_names_every_damage() {
    for model in ["tunes-v4", "tunes-v7"] {
        for damage in damage::list(&image(&shipped(model), Weights::Int8)) {
            let found = damage.file.open().map(|_| ()).unwrap_err();
            assert_eq!(found, damage.error, "{model}: {}", damage.what);
            println!("{model}: {:<40} {found}", damage.what);
        }
    }
}

#[test]
fn what_follows_an_image_is_refused_in_a_file() {
    let good = image(&shipped("tunes-v4"), Weights::Int8);
    let mut longer = good.bytes().to_vec();
    longer.extend([0; 16]);
    let expected = good.bytes().len() as u32;
    let error = ImageError::TrailingBytes { expected, given: expected + 16 };
    assert_eq!(ImageFile::new(&longer).open().unwrap_err(), error);
}

#[test]
fn every_flipped_bit_of_the_front_is_noticed() {
    let good = image(&shipped("tunes-v4"), Weights::Int8);
    let header = good.open().expect("it opens").header().section_count();
    let front =
        rwkv_core::image::HEADER_BYTES + usize::from(header) * rwkv_core::image::SECTION_BYTES;
    let mut file = good.clone();
    for bit in 0..8 * front {
        file.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        assert!(file.open().is_err(), "bit {bit}");
        file.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(file.open().is_ok());
}
