//! One model in every container: one image. The table of the book's chapter on checkpoints names
//! these tests.

use rwkv_core::math;
use rwkv_host::{checkpoint::Checkpoint, convert::Weights};
use rwkv_tests::{
    image,
    random::{self, Container, Precision, VERSIONS},
    shared,
};

/// The same weights in two containers give the same image.
fn same(version: &str, container: Container) {
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        // rwkv.cpp has no bfloat16.
        if (container, precision) == (Container::RwkvCpp, Precision::Bf16) {
            continue;
        }
        let found = random::checkpoint_in(version, container, precision);
        let expected = random::rounded(version, container, precision);
        let [found, expected] = [found, expected].map(|file| image(file.path(), Weights::F32));
        assert!(found.bytes() == expected.bytes(), "{version}, {container:?}, {precision:?}");
    }
}

#[test]
fn torch() {
    VERSIONS.iter().for_each(|version| same(version, Container::Torch));
}

#[test]
fn safetensors_official() {
    VERSIONS.iter().for_each(|version| same(version, Container::Safetensors));
}

#[test]
fn safetensors_hugging_face() {
    ["4", "5.0", "5.1", "5.2", "6"]
        .iter()
        .for_each(|version| same(version, Container::HuggingFace));
}

#[test]
fn safetensors_flash_linear_attention() {
    same("7", Container::FlashLinearAttention);
    same("7", Container::FlashLinearAttentionJoined);
}

#[test]
fn safetensors_sharded() {
    for version in VERSIONS {
        let (folder, file) =
            (random::sharded(version), random::checkpoint(version, Container::Safetensors));
        let [found, expected] = [folder.path(), file.path()].map(|path| image(path, Weights::F32));
        assert!(found.bytes() == expected.bytes(), "{version}");
    }
}

#[test]
fn rwkv_cpp() {
    ["4", "5.0", "5.1", "5.2", "6", "7"]
        .iter()
        .for_each(|version| same(version, Container::RwkvCpp));
}

#[test]
fn gguf() {
    ["6", "7"].iter().for_each(|version| same(version, Container::Gguf));
}

/// The files above are what llama.cpp's converter writes.
#[test]
fn gguf_files_are_those_of_the_converter() {
    for version in ["6", "7"] {
        let (found, expected) = random::gguf_listing(version);
        let [found, expected] = [found, expected].map(|text| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        });
        assert_eq!(found, expected, "{version}");
    }
}

/// The converter of rwkv.cpp maps decays with the functions of a C library; an image, with its own.
/// The latter are within 2 ulp of the true values. An error of the inner function of
/// `exp(-exp(w))` counts `exp(w)` times.
#[test]
fn decays_of_rwkv_cpp_are_close() {
    let ulps = |a: f32, b: f32| (a.to_bits() as i32).abs_diff(b.to_bits() as i32);
    for version in ["4", "5.0", "5.1", "5.2"] {
        let file = random::checkpoint(version, Container::Safetensors);
        let checkpoint = Checkpoint::open(file.path()).expect("it opens");
        let decay = checkpoint.read("blocks.1.att.time_decay").expect("it reads");
        let mut worst = 0;
        for w in decay.data {
            let inner = f64::from(w).exp();
            let (found, exact, bound) = match version {
                "4" => (-math::exp(w), -inner, 2.0),
                _ => (math::exp(-math::exp(w)), (-inner).exp(), 2.0 + 2.0 * inner),
            };
            let distance = ulps(found, exact as f32);
            worst = worst.max(distance);
            assert!(f64::from(distance) <= bound, "{version}: {w}: {distance}");
        }
        println!("{version}: {worst} ulp");
    }
}

#[test]
fn shared_models_of_the_same_weights_give_the_same_image() {
    let (Some(pth), Some(bin)) =
        (shared("tiny-rwkv-7v0-834K.pth"), shared("tiny-rwkv-7v0-834K-FP32.bin"))
    else {
        return;
    };
    for weights in [Weights::F32, Weights::Int8] {
        assert!(image(&pth, weights).bytes() == image(&bin, weights).bytes());
    }
}
