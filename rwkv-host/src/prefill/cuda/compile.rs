//! The kernels as the driver takes them: compiled for the device at hand where NVRTC is there, and
//! else the PTX that is part of this program, which the driver compiles.

#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_char},
    fs,
    path::{Path, PathBuf},
};

use crc::{CRC_64_XZ, Crc};
use cudarc::nvrtc::{
    result::{self, NvrtcError},
    sys,
};

use crate::file;

/// The source, in the order in which `kernels.cu` includes it.
const SOURCES: [(&str, &str); 8] = [
    ("base.cuh", include_str!("kernels/base.cuh")),
    ("math.cuh", include_str!("kernels/math.cuh")),
    ("vectors.cuh", include_str!("kernels/vectors.cuh")),
    ("quantise.cuh", include_str!("kernels/quantise.cuh")),
    ("floats.cuh", include_str!("kernels/floats.cuh")),
    ("integers.cuh", include_str!("kernels/integers.cuh")),
    ("digest.cuh", include_str!("kernels/digest.cuh")),
    ("recurrences.cuh", include_str!("kernels/recurrences.cuh")),
];

/// For compute capability 7.5 and all later ones: `cargo xtask cuda` makes it.
const PTX: &str = include_str!("kernels.ptx");

/// No fused multiply-add, as the book's chapter *Arithmetic* asks; the others are the defaults.
const OPTIONS: [&str; 5] =
    ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

/// An older NVRTC lacks what is asked of it.
const OLDEST: [i32; 2] = [11, 4];

/// What a driver loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// A cubin, or PTX that ends in a zero.
    pub(super) bytes: Vec<u8>,
    /// Where it comes from, for people.
    pub(super) origin: String,
}

/// The PTX that is part of this program.
pub(super) fn embedded(reason: &str) -> Module {
    let origin = format!("kernels built in as PTX, compiled by the driver ({reason})");
    Module { bytes: [PTX.as_bytes(), &[0]].concat(), origin }
}

/// The kernels for a compute capability such as 90: from the cache, compiled, or built in.
pub(super) fn module(capability: i32) -> Module {
    module_in(cache().as_deref(), capability)
}

fn module_in(cache: Option<&Path>, capability: i32) -> Module {
    // SAFETY: loading NVIDIA's library runs nothing but its initialisers.
    if !unsafe { sys::is_culib_present() } {
        return embedded("NVRTC is not installed");
    }
    let Ok(version) = version() else { return embedded("NVRTC does not tell its version") };
    if version < OLDEST {
        return embedded("NVRTC is older than 11.4");
    }
    let path = cache.map(|dir| dir.join(file_name(capability, version)));
    if let Some(path) = &path
        && let Ok(bytes) = fs::read(path)
    {
        let origin = format!("kernels for this device, from {}", path.display());
        return Module { bytes, origin };
    }
    match compile(capability) {
        Ok(bytes) => {
            // Without a cache they are compiled anew each time.
            if let Some(path) = path {
                let _ = keep(&path, &bytes);
            }
            let [major, minor] = version;
            let origin = format!("kernels for this device, compiled by NVRTC {major}.{minor}");
            Module { bytes, origin }
        }
        Err(reason) => embedded(&format!("NVRTC: {reason}")),
    }
}

/// The file of compiled kernels: whatever makes a difference is in its name.
fn file_name(capability: i32, [major, minor]: [i32; 2]) -> String {
    let crc = Crc::<u64>::new(&CRC_64_XZ);
    let mut digest = crc.digest();
    digest.update(source().as_bytes());
    OPTIONS.iter().for_each(|option| digest.update(option.as_bytes()));
    format!("kernels-{:016x}-sm{capability}-nvrtc{major}.{minor}.cubin", digest.finalize())
}

/// The folder for compiled kernels, if this user has one.
fn cache() -> Option<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    Some(base.join("rwkv"))
}

fn keep(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    file::write_whole(path, bytes)
}

fn version() -> Result<[i32; 2], NvrtcError> {
    let [mut major, mut minor] = [0; 2];
    // SAFETY: both are written by the call.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result()?;
    Ok([major, minor])
}

/// One text, whose diagnostics name the files.
fn source() -> String {
    let part = |(name, text): &(&str, &str)| format!("#line 1 \"{name}\"\n{text}\n");
    SOURCES.iter().map(part).collect()
}

fn compile(capability: i32) -> Result<Vec<u8>, String> {
    let source = CString::new(source()).map_err(|error| error.to_string())?;
    let said = |error: NvrtcError| error.to_string();
    let program = Program(result::create_program(&source, Some(c"kernels.cu")).map_err(said)?);
    let architecture = format!("--gpu-architecture=sm_{capability}");
    let options: Vec<&str> = OPTIONS.into_iter().chain([architecture.as_str()]).collect();
    // SAFETY: the program was just created, and the source outlives it.
    unsafe { result::compile_program(program.0, &options) }
        .map_err(|error| format!("{error}: {}", program.log()))?;
    program.cubin().map_err(said)
}

/// A program of NVRTC's.
struct Program(sys::nvrtcProgram);

impl Program {
    /// What the compiler said, its first lines.
    fn log(&self) -> String {
        // SAFETY: the program is there as long as this value.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        let text = String::from_utf8_lossy(&bytes);
        text.lines().take(3).collect::<Vec<_>>().join("; ")
    }

    fn cubin(&self) -> Result<Vec<u8>, NvrtcError> {
        let mut len = 0;
        // SAFETY: the program is there as long as this value, and the length is written.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut len) }.result()?;
        let mut bytes = vec![0u8; len];
        // SAFETY: the buffer is as long as was asked for.
        unsafe { sys::nvrtcGetCUBIN(self.0, bytes.as_mut_ptr().cast::<c_char>()) }.result()?;
        Ok(bytes)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: nothing uses it afterwards.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_those_that_are_included() {
        let unit = include_str!("kernels/kernels.cu");
        let included: Vec<&str> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'))
            .collect();
        assert_eq!(included, SOURCES.map(|(name, _)| name));
        assert!(SOURCES.iter().all(|(_, text)| !text.contains("#include")));
    }

    #[test]
    fn another_compiler_or_device_has_a_file_of_its_own() {
        let names = [file_name(75, [13, 0]), file_name(90, [13, 0]), file_name(90, [12, 8])];
        assert!(names[0] != names[1] && names[1] != names[2], "{names:?}");
    }

    #[test]
    fn the_built_in_kernels_run_on_the_oldest_device() {
        let module = embedded("a test");
        let text = std::str::from_utf8(&module.bytes).unwrap();
        assert!(text.ends_with('\0') && text.contains(".target sm_75"));
        for kernel in ["layer_norm", "rows_int8_tensor_15", "columns_int4_dot4_8", "wkv7_64"] {
            assert!(text.contains(&format!(".entry {kernel}(")), "{kernel}");
        }
    }

    /// With NVRTC, each kind of device gets a cubin, and the second time from the cache; a device
    /// that NVRTC does not know gets what is built in. NVRTC needs no device for that.
    #[test]
    fn kernels_are_compiled_once_for_a_device() {
        let dir = tempfile::tempdir().unwrap();
        // SAFETY: as in `module`.
        if !unsafe { sys::is_culib_present() } {
            println!("skipped in part: NVRTC is not installed, `cargo xtask cuda` fetches it");
            assert_eq!(module_in(Some(dir.path()), 90), embedded("NVRTC is not installed"));
            return;
        }
        for capability in [75, 90] {
            let first = module_in(Some(dir.path()), capability);
            assert!(first.origin.contains("compiled by NVRTC"), "{}", first.origin);
            assert!(first.bytes.starts_with(b"\x7fELF"));
            let second = module_in(Some(dir.path()), capability);
            assert!(second.origin.contains("from "), "{}", second.origin);
            assert!(first.bytes == second.bytes);
        }
        let unknown = module_in(Some(dir.path()), 1);
        assert!(unknown.origin.contains("built in") && unknown.origin.contains("NVRTC: "));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // Where nothing can be kept, they are compiled all the same.
        let nowhere = dir.path().join("kernels").join("\0");
        assert!(module_in(Some(&nowhere), 75).bytes.starts_with(b"\x7fELF"));
    }
}
