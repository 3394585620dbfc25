//! The program that is copied to a machine with a GPU.

use std::process::Command;

/// Without a driver or a device it says so, in a sentence, and that nothing was compared.
#[test]
fn without_a_gpu_it_says_what_is_missing() {
    let program = env!("CARGO_BIN_EXE_cuda-check");
    // No device may be used, if there is one.
    let output = Command::new(program).env("CUDA_VISIBLE_DEVICES", "").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error: ") && said.contains("CUDA driver"), "{said}");
}
