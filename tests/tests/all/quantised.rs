//! How close integer images are to their checkpoints, on text that nothing was chosen by.

use std::{fs, path::Path};

use rwkv_core::tokenizer::Tokenizer;
use rwkv_host::{
    convert::{Options, Weights},
    eval::{self, evaluate},
    quantize::Recipe,
};
use rwkv_tests::{image_with, shared, shipped};

fn tokens(text: &str) -> Vec<u32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/text").join(text);
    Tokenizer::Bytes.encode(&fs::read(path).expect("the text")).collect()
}

/// Bits per byte of a text.
fn score(checkpoint: &Path, options: &Options<'_>, text: &[u32]) -> f64 {
    let file = image_with(checkpoint, options);
    let (image, parts) = (file.open().expect("it opens"), eval::Options::default());
    evaluate(&image, None, text, &parts, |_, _| {}).expect("it reads").score.bits_per_byte
}

/// The table of the book's chapter *Quantisation*: `cargo test -p rwkv-tests --test all quantised:: -- --nocapture`.
#[test]
fn integers_cost_little() {
    let tunes = ["tunes-valid.abc", "tunes-heldout.abc"].map(tokens);
    let prose = ["constitution.txt", "declaration.txt"].map(tokens);
    let shipped = ["tunes-v4", "tunes-m4"].map(|name| (name, Some(shipped(name)), &tunes));
    let others = ["tiny-rwkv-4v0-660K", "tiny-rwkv-7v0-834K"];
    let others = others.map(|name| (name, shared(&format!("{name}.pth")), &prose));
    println!("| model | int8 | int4 | int4, calibrated |\n|---|---|---|---|");
    for (name, checkpoint, [calibration, held_out]) in shipped.into_iter().chain(others) {
        let Some(checkpoint) = checkpoint else { continue };
        let int4 = Options::new(Weights::Int4);
        let calibrated = Options { calibration: Some(calibration), ..int4 };
        let float = score(&checkpoint, &Options::new(Weights::F32), held_out);
        let [int8, plain, calibrated] = [Options::new(Weights::Int8), int4, calibrated]
            .map(|options| (score(&checkpoint, &options, held_out) / float - 1.0) * 100.0);
        println!("| {name} | {int8:+.3} % | {plain:+.3} % | {calibrated:+.3} % |");
        assert!(int8 <= 0.05, "{name}, int8: {int8}");
        assert!(calibrated <= 0.3, "{name}, int4: {calibrated}");
        assert!(calibrated < plain, "{name}: {calibrated} {plain}");
        let trained_for_int4 = name == "tunes-m4";
        assert!(plain <= 0.3 || !trained_for_int4, "{name}, int4 without a text: {plain}");
    }
}

/// The same checkpoint, text and options give the same image, whatever the number of threads.
#[test]
fn threads_change_no_integer() {
    let text = tokens("tunes-valid.abc");
    let options = Options { calibration: Some(&text[..2048]), ..Options::new(Weights::Int4) };
    let [one, three] = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| image_with(&shipped("tunes-v4"), &options))
    });
    assert!(one.bytes() == three.bytes());
}

#[test]
fn a_recipe_says_it_tensor_by_tensor() {
    let recipe = "[[rule]]\ntensor = 'blocks.*.att.output.weight'\nweights = 'int8'\ninput_bits = 8\n\
                  [[rule]]\ntensor = 'head.weight'\nweights = 'f16'\n";
    let recipe = Recipe::parse(recipe).expect("it parses");
    let options = Options { recipe: Some(&recipe), ..Options::new(Weights::Int4) };
    let file = image_with(&shipped("tunes-v4"), &options);
    let mut found = Vec::new();
    let image = file.open().expect("it opens");
    let walk = image.walk(|_, record| {
        found.push((format!("{:?}", record.record.id), record.record.format, record.record.bits));
        Ok(())
    });
    walk.expect("it walks");
    use rwkv_core::image::Format;
    assert!(found.contains(&("AttOutput".into(), Format::Int8, 8)));
    assert!(found.contains(&("Head".into(), Format::F16, 0)));
    assert!(found.iter().any(|(id, format, _)| id == "AttKey" && *format == Format::Int4));
}
