//! Finds the firmware of a board, or builds it from the project's tree.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::DeviceError;

/// Of the outer build, if there is one: they would divert or change the build of the firmware.
const DIVERTING: [&str; 6] = [
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "RUSTFLAGS",
];

/// The ELF file of a board's firmware: the one given, or the one built from the tree.
pub(super) fn find(
    board: &str,
    target: &'static str,
    given: Option<&Path>,
) -> Result<PathBuf, DeviceError> {
    match given {
        Some(elf) if elf.is_file() => Ok(elf.to_owned()),
        Some(elf) => Err(DeviceError::NoFirmware(elf.to_owned())),
        None => {
            let sources = format!("rwkv-embedded/boards/{board}");
            let found = in_tree(&sources, "Cargo.toml");
            build(target, &found.ok_or_else(|| DeviceError::NoSources(sources.into()))?)
        }
    }
}

/// A folder of the project with this file, searched from the current directory upwards and in the
/// tree that this tool was built from.
pub(super) fn in_tree(folder: &str, file: &str) -> Option<PathBuf> {
    let current = env::current_dir().unwrap_or_default();
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let mut roots = current.ancestors().chain(built_from);
    let found = roots.find(|root| root.join(folder).join(file).is_file());
    found.map(|root| root.join(folder))
}

fn build(target: &'static str, dir: &Path) -> Result<PathBuf, DeviceError> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(dir).args(["build", "--release"]);
    cargo.arg("--message-format=json-render-diagnostics");
    DIVERTING.iter().for_each(|name| {
        cargo.env_remove(name);
    });
    let failed = |message: String| DeviceError::Build { dir: dir.to_owned(), message };
    let output = cargo.output().map_err(DeviceError::io("run cargo to build the firmware"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(if errors.contains("target may not be installed") {
            DeviceError::NoTarget { target }
        } else {
            failed(errors.into_owned())
        });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages).ok_or_else(|| failed("cargo named no executable".into()))
}

/// The executable among cargo's messages, one JSON object per line.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_given_by_hand_must_be_there() {
        let found = find("mps2-an386", "thumbv7em-none-eabihf", Some(Path::new("no/such.elf")));
        assert!(matches!(found, Err(DeviceError::NoFirmware(_))));
    }

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let messages = r#"
            {"reason":"compiler-artifact","executable":null}
            not json
            {"reason":"compiler-artifact","executable":"/tree/agent"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/tree/agent".into()));
        assert_eq!(executable(""), None);
    }
}
