//! Puts the memory map of the target's board where the linker looks for it.

use std::{env, fs, path::PathBuf};

fn main() {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let board = match target.as_str() {
        "thumbv6m-none-eabi" => "microbit",
        "thumbv7m-none-eabi" | "thumbv7em-none-eabihf" => "mps2",
        "thumbv8m.main-none-eabihf" => "mps2-an505",
        "riscv32imac-unknown-none-elf" | "riscv32imafc-unknown-none-elf" => "virt",
        _ => return,
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let map = format!("memory/{board}.x");
    fs::copy(&map, out.join("memory.x")).expect("the map is there and OUT_DIR is writable");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rerun-if-changed={map}");
    #[cfg(feature = "cmsis-nn")]
    cmsis_nn();
}

/// Compiles the products of the C library that lies where `CMSIS_NN` says, for the processor
/// `CMSIS_NN_CPU`.
#[cfg(feature = "cmsis-nn")]
fn cmsis_nn() {
    let library = PathBuf::from(env::var_os("CMSIS_NN").expect("CMSIS_NN is the library's path"));
    let cpu = env::var("CMSIS_NN_CPU").expect("CMSIS_NN_CPU is a processor that gcc knows");
    let mut build = cc::Build::new();
    build.file("cmsis_nn.c").include(library.join("Include"));
    for name in ["s8", "s4", "s16"] {
        let source = library.join("Source");
        build.file(source.join(format!("FullyConnectedFunctions/arm_fully_connected_{name}.c")));
        build.file(source.join(format!("NNSupportFunctions/arm_nn_vec_mat_mult_t_{name}.c")));
    }
    let hard = env::var("TARGET").is_ok_and(|target| target.ends_with("hf"));
    let floats = if hard { "-mfloat-abi=hard" } else { "-mfloat-abi=soft" };
    // The flags that this would add name an architecture, without the processor's extensions.
    build.compiler("arm-none-eabi-gcc").no_default_flags(true);
    build.flags(["-O3", "-mthumb", "-ffunction-sections", &format!("-mcpu={cpu}"), floats]);
    build.compile("cmsis_nn");
    for name in ["CMSIS_NN", "CMSIS_NN_CPU"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=cmsis_nn.c");
}
