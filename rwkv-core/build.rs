//! Chooses the kernels of a target, and names instructions that a target is sure to have and that
//! stable Rust keeps to itself.

use std::env;

/// The instruction set whose kernels a target gets; others get the scalar ones.
fn isa(target: &str) -> &'static str {
    match target.split('-').next().unwrap_or_default() {
        "thumbv6m" | "thumbv8m.base" => "armv6m",
        "thumbv7m" => "armv7m",
        // The DSP extension is optional there, and `--cfg rwkv_no_dsp` says that it is missing.
        "thumbv8m.main" if env::var_os("CARGO_CFG_RWKV_NO_DSP").is_some() => "armv7m",
        "thumbv7em" | "thumbv8m.main" => "armv7em",
        // With multiplication and 32 registers.
        arch if arch.starts_with("riscv32im") || arch.starts_with("riscv32g") => "rv32",
        _ => "",
    }
}

fn main() {
    let target = |key: &str| env::var(key).unwrap_or_default();
    let (arch, triple) = (target("CARGO_CFG_TARGET_ARCH"), target("TARGET"));

    println!("cargo::rustc-check-cfg=cfg(rwkv_isa, values(any()))");
    println!("cargo::rustc-cfg=rwkv_isa=\"{}\"", isa(&triple));

    // Armv8-M: the assembler has to be told of the DSP extension.
    println!("cargo::rustc-check-cfg=cfg(rwkv_armv8m)");
    if triple.starts_with("thumbv8m.main") {
        println!("cargo::rustc-cfg=rwkv_armv8m");
    }

    // Vfp: floating-point instructions of Arm, with `vmla.f32` and 32 single registers.
    println!("cargo::rustc-check-cfg=cfg(rwkv_vfp)");
    let modern = triple.starts_with("thumb") || triple.starts_with("armv7");
    let vfp = modern && target("CARGO_CFG_TARGET_ABI") == "eabihf";
    if vfp {
        println!("cargo::rustc-cfg=rwkv_vfp");
    }

    // The extension F of RISC-V; G includes it. Extensions with long names follow an underscore.
    println!("cargo::rustc-check-cfg=cfg(rwkv_riscv_f)");
    let letters = triple.split(['-', '_']).next().unwrap_or_default();
    let riscv_f =
        arch.starts_with("riscv") && letters.trim_start_matches(&arch).contains(['f', 'g']);
    if riscv_f {
        println!("cargo::rustc-cfg=rwkv_riscv_f");
    }

    // Floats are computed by a library, in integers.
    println!("cargo::rustc-check-cfg=cfg(rwkv_soft_float)");
    if ["arm", "riscv32"].contains(&arch.as_str()) && !vfp && !riscv_f {
        println!("cargo::rustc-cfg=rwkv_soft_float");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
