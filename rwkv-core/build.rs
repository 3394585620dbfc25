//! Names instructions that a target is sure to have and that stable Rust keeps to itself.

use std::env;

fn main() {
    let target = |key: &str| env::var(key).unwrap_or_default();
    let arch = target("CARGO_CFG_TARGET_ARCH");

    // Vfp: floating-point instructions of Arm, with `vmla.f32` and 32 single registers.
    println!("cargo::rustc-check-cfg=cfg(vfp)");
    if arch == "arm" && target("CARGO_CFG_TARGET_ABI") == "eabihf" {
        println!("cargo::rustc-cfg=vfp");
    }

    // The extension F of RISC-V; G includes it. Extensions with long names follow an underscore.
    println!("cargo::rustc-check-cfg=cfg(riscv_f)");
    if arch.starts_with("riscv") {
        let triple = target("TARGET");
        let isa = triple.split(['-', '_']).next().unwrap_or_default();
        if isa.trim_start_matches(&arch).contains(['f', 'g']) {
            println!("cargo::rustc-cfg=riscv_f");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}
