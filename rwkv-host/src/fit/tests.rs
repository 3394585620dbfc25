use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::{
    checkpoint::Checkpoint,
    convert::{Options, Packing, Weights, convert},
    device::QemuBoard,
    file::ImageFile,
};

const CORES: [Core; 7] =
    [Core::M0, Core::M3, Core::M4, Core::M7, Core::M33, Core::Rv32imac, Core::Rv32imafc];

/// How far a predicted token may be from a measured one.
const MARGIN: f64 = 0.05;

/// The figures of `cargo xtask bench`.
fn bench() -> BTreeMap<String, BTreeMap<String, f64>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/bench.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn within(what: &str, ours: f64, theirs: f64, margin: f64) {
    let off = ours / theirs - 1.0;
    assert!(off.abs() <= margin, "{what}: {ours} in the table, {theirs} measured, {off:+.3}");
}

/// A change of a kernel changes the table as well.
#[test]
fn products_columns_and_inputs_are_those_of_the_bench() {
    let bench = bench();
    for core in CORES {
        let figures = &bench[core.bench()];
        for (name, line) in core.costs().measured(core.has_wide_multiply()) {
            for len in [64, 256] {
                let size = match name.split(' ').next() {
                    Some("rows") => format!("{len}x{len}"),
                    Some("column") => format!("{len}x1"),
                    _ => format!("1x{len}"),
                };
                let Some(measured) = figures.get(&format!("{name} {size}")) else {
                    assert!(core == Core::M0 && len == 256, "{core:?} has no {name} {size}");
                    continue;
                };
                let what = format!("{core:?} {name} {size}");
                within(&what, line.of(len), measured * len as f64, 0.02);
            }
        }
    }
}

/// Tokens of the shipped models, which the bench has counted on every core but the Cortex-M0.
#[test]
fn predicted_tokens_are_near_those_of_the_bench() {
    let bench = bench();
    let mut compared = 0;
    for model in ["tunes-v4", "tunes-v7"] {
        let path = format!("../models/{model}/{model}.safetensors");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let checkpoint = Checkpoint::open(&path).unwrap();
        for (name, weights) in [("int8", Weights::Int8), ("int4", Weights::Int4)] {
            for wide in [true, false] {
                let lanes = !wide && weights == Weights::Int4;
                let options = Options {
                    packing: if lanes { Packing::Lanes } else { Packing::Pairs },
                    input_bits: (!wide).then_some(8),
                    ..Options::new(weights)
                };
                let file = ImageFile::new(&convert(&checkpoint, &options, |_, _| {}).unwrap());
                let image = file.open().unwrap();
                let live = live_share(&image, &[10], 32).unwrap();
                for core in CORES.into_iter().filter(|core| core.has_wide_multiply() == wide) {
                    // The boards with a Cortex-M0 have no room for the shipped models.
                    let measured = bench[core.bench()].get(&format!("tokens {model} {name}"));
                    assert_eq!(measured.is_some(), core != Core::M0, "{model} {name} {core:?}");
                    let Some(measured) = measured else { continue };
                    compared += 1;
                    let trace = Trace::new(&Layout::of(&image), &core.costs(), live);
                    let what = format!("{model} {name} {core:?}");
                    println!("{what}: {:.0} predicted, {measured:.0} measured", trace.instructions);
                    within(&what, trace.instructions, *measured, MARGIN);
                }
            }
        }
    }
    // Every other core, two models, two formats.
    assert_eq!(compared, 4 * (CORES.len() - 1));
}

#[test]
fn every_emulated_board_has_a_row() {
    for board in QemuBoard::ALL {
        let row = Board::find(board.name()).expect("a row in fit/boards.rs");
        assert!(row.is_emulated());
        assert_eq!(row.agent_room(), Some(board.image_room() as u64));
    }
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rwkv-embedded/boards");
    for board in BOARDS {
        assert!(boards.join(board.name).is_dir(), "there is no folder of {}", board.name);
        assert_eq!(Board::find(board.name).unwrap().part, board.part);
        assert!(!board.source.is_empty());
    }
}
