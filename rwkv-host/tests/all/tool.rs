//! The tool as a program, and a folder of files for it.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

/// The tool, to be run in a folder.
pub(crate) fn command(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rwkv"));
    command.args(args).current_dir(dir);
    command
}

/// Runs the tool in a folder: standard output, or what it complained of.
pub(crate) fn rwkv(dir: &Path, args: &[&str]) -> Result<String, String> {
    let output = command(args, dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A folder with a checkpoint `c`, its image `x`, a prompt `p` and a saved state `s`.
pub(crate) fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tunes-v4");
    fs::copy(model.join("tunes-v4.safetensors"), dir.path().join("c")).unwrap();
    fs::write(dir.path().join("p"), "X:1\n").unwrap();
    fs::write(dir.path().join("r"), "").unwrap();
    rwkv(dir.path(), &["convert", "c", "-o", "x", "--weights", "int8"]).unwrap();
    rwkv(dir.path(), &["prefill", "x", "--prompt-file", "p", "-o", "s"]).unwrap();
    dir
}
