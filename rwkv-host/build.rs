//! Compiles the CUDA kernels for the CPU, if they are to be emulated.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "cuda-emulation")]
    emulation();
}

/// The kernels as a library for each kind of device that they tell apart.
#[cfg(feature = "cuda-emulation")]
fn emulation() {
    const KERNELS: &str = "src/prefill/cuda/kernels";
    println!("cargo:rerun-if-changed={KERNELS}");
    for capability in ["750", "800"] {
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .opt_level(2)
            // The bits are those of the device: no fused operations, nothing reordered.
            .flags(["-ffp-contract=off", "-fno-fast-math"])
            .flags(["-Wno-unknown-pragmas", "-Wno-unused-function"])
            .define("__CUDA_ARCH__", capability)
            .define("RWKV_EMULATE", format!("rwkv_emulate_{capability}").as_str())
            .include(KERNELS)
            .file(format!("{KERNELS}/emulate.cpp"))
            .compile(&format!("rwkv_emulate_{capability}"));
    }
}
