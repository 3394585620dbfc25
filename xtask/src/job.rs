//! Running other programs, with errors that name the command.

use std::{
    ffi::OsStr,
    path::Path,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, bail};

/// A cargo command in a folder of the repository, free of the environment of the cargo that runs
/// this program.
pub(crate) fn cargo(dir: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root().join(dir));
    unaware(&mut command);
    command
}

/// Takes the environment of the cargo that runs this program from a command that runs another.
pub(crate) fn unaware(command: &mut Command) {
    for name in [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "CARGO_MANIFEST_DIR",
    ] {
        command.env_remove(name);
    }
}

/// Whether the host is built with every feature, as the tests build it.
static ALL_FEATURES: AtomicBool = AtomicBool::new(false);

/// From now on, the host is built with every feature.
pub(crate) fn all_features() {
    ALL_FEATURES.store(true, Ordering::Relaxed);
}

/// The features that the host is built with. All of them take a minute more.
pub(crate) fn features() -> &'static [&'static str] {
    if ALL_FEATURES.load(Ordering::Relaxed) {
        &["--features", "rwkv-host/neox,rwkv-host/cuda-emulation,rwkv-tests/cuda"]
    } else {
        &[]
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
        bail!("{} ended with {}\n{}", shown(command), output.status, text.concat());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Does one thing for every item, several at once; the results are in the order of the items.
pub(crate) fn parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let results: Vec<Mutex<Option<anyhow::Result<R>>>> =
        items.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(item), Some(slot)) = (items.get(index), results.get(index)) else {
                        break;
                    };
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(work(item));
                }
            });
        }
    });
    let results = results.into_iter();
    let done = results.filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    done.collect()
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
