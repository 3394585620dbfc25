//! `cargo xtask c`: the C interface, its header, its archives, and firmware in C that links one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use clap::Parser;
use object::{Object, ObjectSymbol};
use rustc_demangle::demangle;
use rwkv_core::{
    Digest, Generator, Image, Model, StateView,
    sampler::{Allowed, Banned, Mask, Sampler, SamplerConfig},
    stream::InPlace,
    tokenizer::StopStream,
};

use crate::{
    demo::{MODELS, image, rwkv, tool},
    document::{grouped, replace},
    job, root,
    setup::{self, ARM_GCC, CMAKE, MAKE, NEWLIB, QEMU_ARM},
    size::{PROFILES, loaded},
};

/// The package of the archive.
pub(crate) const CAPI: &str = "rwkv-embedded/capi";
/// The firmware in C.
const EXAMPLE: &str = "rwkv-embedded/examples/c";
const HEADER: &str = "include/rwkv.h";
/// The chapter with the table of errors.
const PAGE: &str = "docs/src/c.md";
/// The source of which it shows parts.
const BOOK: &str = "tests/book.c";
const SHOWN: [&str; 5] = ["mask", "stop", "snapshots", "ahead", "placed"];
/// The firmware's core.
const BOARD: &str = "thumbv7em-none-eabihf";
/// Cores that the archive is built for besides.
const OTHERS: [&str; 4] = [
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv8m.main-none-eabihf",
    "riscv32imac-unknown-none-elf",
];
const HOST: &str = "x86_64-unknown-linux-gnu";
/// Where the header's functions are.
const MODULES: [&str; 11] = [
    "error",
    "image",
    "medium",
    "model",
    "open",
    "output",
    "sampler",
    "snapshots",
    "state",
    "stop",
    "text",
];

/// What the firmware writes: as in its `main.c`, and in the `main.rs` of the example `alloc`.
const PROMPT: &str = "X:1\nT:";
const COUNT: usize = 200;
const SAMPLER: SamplerConfig =
    SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 3, ..SamplerConfig::GREEDY };

/// Build the C interface, and prove that firmware in C computes the host's bits
#[derive(Debug, Parser)]
pub(crate) struct C {
    /// Fail where the header that is there is not the one that the sources give
    #[arg(long)]
    check: bool,
}

impl C {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        header(self.check)?;
        for target in OTHERS {
            let bytes = fs::metadata(archive(target, "release")?)?.len();
            println!("{target}: librwkv.a of {} bytes", grouped(bytes));
        }
        let images = MODELS.map(|model| image(model, "int8", &["--weights", "int8"]));
        let images = images.into_iter().collect::<anyhow::Result<Vec<PathBuf>>>()?;
        functions(&images)?;
        ensure!(ARM_GCC.is_there() && NEWLIB.is_there(), "the firmware needs a compiler for C");
        ensure!(MAKE.is_there() && CMAKE.is_there(), "the firmware needs both to be built");
        ensure!(QEMU_ARM.is_there(), "the firmware needs an emulator");
        let profiles = if self.check { &PROFILES[..1] } else { &PROFILES };
        let mut sizes =
            String::from("| `opt-level` | the example | every function |\n|---|---|---|\n");
        for (level, profile) in profiles {
            let archive = archive(BOARD, profile)?;
            let all = panics(&archive)?;
            let each = images.iter().map(|image| firmware(&archive, image));
            let largest = each.collect::<anyhow::Result<Vec<u64>>>()?.into_iter().max();
            let [example, all] = [largest.unwrap_or_default(), all].map(grouped);
            sizes.push_str(&format!("| `{level}` | {example} | {all} |\n"));
        }
        if let Some(image) = images.first() {
            cmake(image)?;
        }
        print!("{sizes}");
        if self.check { Ok(()) } else { replace(PAGE, "sizes", &sizes) }
    }
}

/// Writes the header, or compares it with the one that is there.
fn header(check: bool) -> anyhow::Result<()> {
    let dir = root().join(CAPI);
    let config = cbindgen::Config::from_file(dir.join("cbindgen.toml"))
        .map_err(|error| anyhow::anyhow!("{CAPI}/cbindgen.toml: {error}"))?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for module in MODULES {
        builder = builder.with_src(dir.join(format!("src/{module}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().context("cbindgen cannot read the sources")?.write(&mut text);
    let text = String::from_utf8(text)?;
    let mut parts = vec![("errors", errors(&text))];
    for mark in SHOWN {
        parts.push((mark, shown(mark)?));
    }
    let path = dir.join(HEADER);
    if check {
        let page = parts.iter().map(|(_, part)| (root().join(PAGE), part));
        for (path, part) in page.chain([(path, &text)]) {
            let there = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let shown = path.display();
            ensure!(there.contains(part.as_str()), "{shown} is out of date: run cargo xtask c");
        }
        return Ok(());
    }
    let new = path.with_extension("h.new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, &path))?;
    parts.iter().try_for_each(|(mark, part)| replace(PAGE, mark, part))
}

/// What the chapter shows of a source that is compiled and run, between marks in both.
fn shown(mark: &str) -> anyhow::Result<String> {
    let source = fs::read_to_string(root().join(CAPI).join(BOOK)).context(BOOK)?;
    let (start, end) = (format!("/* {mark} */\n"), format!("/* /{mark} */"));
    let part = source.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    let (part, _) = part.with_context(|| format!("{BOOK} has no mark {mark}"))?;
    Ok(format!("```c\n{part}```\n"))
}

/// The table of the errors in the header: what stands above each is what it means.
fn errors(header: &str) -> String {
    let mut table = String::from("| number | error | means |\n|---|---|---|\n");
    let mut meaning = String::new();
    for line in header.lines().map(str::trim) {
        if let Some((name, number)) = error(line) {
            let short = name.trim_start_matches("RWKV_ERROR_");
            table.push_str(&format!("| {number} | `{short}` |{meaning} |\n"));
        } else if let Some(text) = line.strip_prefix('*').filter(|text| *text != "/") {
            meaning.push_str(text.trim_end());
            continue;
        }
        if !line.starts_with('*') {
            meaning.clear();
        }
    }
    table
}

/// Name and number, on a line that defines an error.
fn error(line: &str) -> Option<(&str, &str)> {
    let named = line.strip_suffix(',')?.split_once(" = ")?;
    named.0.starts_with("RWKV_ERROR_").then_some(named)
}

/// The archive for a target.
fn archive(target: &str, profile: &str) -> anyhow::Result<PathBuf> {
    let mut build = job::cargo(CAPI);
    build.args(["build", "--quiet", "--profile", profile, "--target", target]);
    job::run(&mut build)?;
    Ok(root().join(CAPI).join("target").join(target).join(profile).join("librwkv.a"))
}

/// Links every function of the header, and looks for ways to a panic in what that needs. One is
/// known, in every `async fn`, for callers that poll one which has ended: no data leads there.
/// Returns the bytes of flash of all of them.
fn panics(archive: &Path) -> anyhow::Result<u64> {
    const KNOWN: [&str; 2] = ["panic_const_async_fn_resumed", "core::panicking::panic_fmt"];
    let header = fs::read_to_string(root().join(CAPI).join(HEADER))?;
    let functions: BTreeSet<&str> = header
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("rwkv_"))
        .collect();
    ensure!(functions.len() > 20, "the functions of {CAPI}/{HEADER} are not found");
    let elf = root().join(CAPI).join("target/c/all.elf");
    let mut link = Command::new("arm-none-eabi-gcc");
    link.args(["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]);
    link.args(["-nostdlib", "-Wl,--gc-sections,-z,noexecstack,-e,rwkv_step"]);
    link.args(functions.iter().map(|name| format!("-Wl,-u,{name}")));
    job::run(link.arg(archive).arg("-o").arg(&elf))?;
    let bytes = fs::read(&elf).with_context(|| elf.display().to_string())?;
    let file = object::File::parse(&*bytes)?;
    let names: Vec<String> = file
        .symbols()
        .filter_map(|symbol| Some(format!("{:#}", demangle(symbol.name().ok()?))))
        .collect();
    let missing = functions.iter().find(|name| !names.iter().any(|other| other == *name));
    ensure!(missing.is_none(), "{} is not in the archive", missing.unwrap_or(&""));
    let is_heap = |name: &str| name.starts_with("__rust_alloc");
    let is_panic = |name: &str| {
        let ways = ["panicking::", "unwrap_failed", "expect_failed", "_fail", "panic_"];
        name.starts_with("core::") && ways.iter().any(|way| name.contains(way))
    };
    let found = names.iter().find(|name| {
        is_heap(name) || (is_panic(name) && !KNOWN.iter().any(|known| name.contains(known)))
    });
    ensure!(found.is_none(), "{CAPI} links {}", found.map_or("", |name| name));
    // If none is seen at all, then the names are misread.
    ensure!(names.iter().any(|name| is_panic(name)), "no panic at all is found in {CAPI}");
    println!("{} functions, and no way from them to a panic or an allocator", functions.len());
    loaded(&elf)
}

/// Calls every function on this machine.
fn functions(images: &[PathBuf]) -> anyhow::Result<()> {
    let archive = archive(HOST, "release")?;
    let dir = root().join(CAPI).join("target/c");
    fs::create_dir_all(&dir)?;
    let names = dir.join("names.h");
    let header = fs::read_to_string(root().join(CAPI).join(HEADER))?;
    let names_of = header.lines().filter_map(|line| {
        let (name, number) = error(line.trim())?;
        Some(format!("{{{number}, \"{name}\"}},\n"))
    });
    fs::write(&names, names_of.collect::<String>())?;
    for image in images {
        let name = image.file_stem().unwrap_or_default().to_string_lossy();
        // What the tool writes of the image.
        let of_image = dir.join(format!("api-{name}"));
        let mut place = rwkv()?;
        place.arg("place").arg(image).args(["--flash", "64K", "--ram", "16K", "-o"]).arg(&of_image);
        job::output(&mut place)?;
        let sizes = job::output(rwkv()?.args(["info", "--c"]).arg(image))?;
        fs::write(of_image.join("image.h"), sizes)?;
        let program = of_image.join("api");
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic"]);
        gcc.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        for include in [&root().join(CAPI).join("include"), &dir, &of_image] {
            gcc.arg("-I").arg(include);
        }
        gcc.arg(root().join(CAPI).join("tests/api.c"))
            .arg(&archive)
            .arg("-lm")
            .arg("-o")
            .arg(&program);
        job::run(&mut gcc)?;
        let mut api = Command::new(&program);
        api.arg(image).arg(of_image.join("flash.bin")).args(generated(image)?);
        print!("{name} on this machine: {}", job::output(&mut api)?);
    }
    Ok(())
}

/// Builds the firmware for an image and compares it with the host. Returns its bytes of flash.
fn firmware(archive: &Path, image: &Path) -> anyhow::Result<u64> {
    let name = image.file_stem().unwrap_or_default().to_string_lossy();
    let dir = root().join(CAPI).join("target/c").join(&*name);
    let mut make = Command::new("make");
    make.current_dir(root().join(EXAMPLE)).arg("--silent");
    make.arg(format!("LIBRWKV={}", archive.display())).arg(format!("OUT={}", dir.display()));
    make.arg(format!("RWKV={}", tool().display()));
    make.arg(format!("IMAGE={}", image.display()));
    job::run(&mut make)?;
    let elf = dir.join("firmware.elf");
    compare(&elf, image, &format!("{name} in C"))?;
    loaded(&elf)
}

/// The same firmware by CMake, which builds the archive, too.
fn cmake(image: &Path) -> anyhow::Result<()> {
    let dir = root().join(CAPI).join("target/c/cmake");
    let toolchain = root().join(EXAMPLE).join("toolchain.cmake");
    let mut configure = Command::new(CMAKE.program);
    configure.arg("-S").arg(root().join(EXAMPLE)).arg("-B").arg(&dir);
    configure.arg("--log-level=WARNING");
    configure.arg(format!("-DCMAKE_TOOLCHAIN_FILE={}", toolchain.display()));
    configure.arg(format!("-DIMAGE={}", image.display()));
    configure.arg(format!("-DRWKV_TOOL={}", tool().display()));
    let mut build = Command::new(CMAKE.program);
    build.arg("--build").arg(&dir);
    for mut command in [configure, build] {
        job::unaware(command.current_dir(root()));
        job::output(&mut command)?;
    }
    compare(&dir.join("firmware"), image, "the firmware that CMake builds")
}

/// Runs a firmware, and compares what it says with the host.
fn compare(elf: &Path, image: &Path, name: &str) -> anyhow::Result<()> {
    let (said, expected) = (said(elf, image, &[])?, host(image, Last::Token)?);
    ensure!(said == expected, "{name} says\n{said}\nand the host\n{expected}");
    println!("{name} on mps2-an386 and on the host: {}", said.lines().last().unwrap_or(""));
    Ok(())
}

/// What firmware for `mps2-an386` says on its UART, with an image where the agent has it.
pub(crate) fn said(elf: &Path, image: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut qemu = Command::new(QEMU_ARM.program);
    qemu.args(["-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "stdio"]);
    qemu.args(arguments);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(elf);
    qemu.arg("-device");
    qemu.arg(format!("loader,file={},addr=0x80000,force-raw=on", image.display()));
    job::output(&mut qemu)
}

/// What the last line of a firmware is the digest of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// State and logits after the last token.
    Token,
    /// The state alone.
    State,
}

/// What `tests/api.c` is to generate: a text with its mask; a stop text, and what stands before it
/// without the mask.
fn generated(image: &Path) -> anyhow::Result<[String; 3]> {
    let banned = Banned::new(&[b'A' as u32, b'e' as u32, b'|' as u32])?;
    let printable = [1 << b'\n', u32::MAX, u32::MAX, u32::MAX >> 1];
    let masked = text(image, (banned, (Allowed(&printable), NoDigits)), &[])?;
    let free = text(image, (), &[])?;
    let stop = free.get(COUNT / 2..COUNT / 2 + 3).context("the model wrote no ASCII")?;
    let before = text(image, (), &[stop.as_bytes()])?;
    Ok([masked, stop.to_owned(), before])
}

/// The function of the mask in `tests/api.c`.
struct NoDigits;

impl Mask for NoDigits {
    fn allows(&self, token: u32) -> bool {
        !(u32::from(b'0')..=u32::from(b'9')).contains(&token)
    }
}

/// How [`PROMPT`] goes on within a mask, up to a stop text.
fn text(image: &Path, mask: impl Mask, stops: &[&[u8]]) -> anyhow::Result<String> {
    let words = words(image)?;
    let image = Image::open(bytemuck::cast_slice(&words))?;
    let header = *image.header();
    let (mut memory, mut ready) = (vec![0.0; header.state_words()], false);
    let mut scratch = vec![0.0; header.scratch_words as usize];
    let state = StateView::over(&header, &mut memory, &mut ready)?;
    let model = Model::new(header, InPlace::new(image.words()), &mut scratch)?;
    let tokenizer = image.tokenizer().context("the image has no tokenizer")?;
    let generator = Generator::new(model, state, tokenizer, Sampler::new(SAMPLER)?);
    let mut generator = generator.with_mask(mask);
    let (mut stop, mut text) = (StopStream::new(stops)?, Vec::new());
    generator.reset()?;
    generator.read(PROMPT.as_bytes())?;
    generator.generate(COUNT, &mut stop, |bytes| text.extend_from_slice(bytes))?;
    stop.finish(|bytes| text.extend_from_slice(bytes));
    Ok(String::from_utf8(text)?)
}

/// The words of an image.
fn words(image: &Path) -> anyhow::Result<Vec<u32>> {
    let bytes = fs::read(image).with_context(|| image.display().to_string())?;
    Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// What a firmware is to say that continues [`PROMPT`] with an image.
pub(crate) fn host(image: &Path, last: Last) -> anyhow::Result<String> {
    let words = words(image)?;
    let image = Image::open(bytemuck::cast_slice(&words))?;
    let header = *image.header();
    let mut ready = false;
    let mut words = vec![0.0; header.state_words()];
    let mut scratch = vec![0.0; header.scratch_words as usize];
    let mut state = StateView::over(&header, &mut words, &mut ready)?;
    let mut model = Model::new(header, InPlace::new(image.words()), &mut scratch)?;
    let mut sampler = Sampler::new(SAMPLER)?;
    let (mut logits, mut said) = (Digest::default(), PROMPT.to_owned());
    let tokens = PROMPT.bytes().map(u32::from);
    model.reset(state.reborrow())?;
    sampler.begin();
    model.prefill(state.reborrow(), tokens, (&mut sampler, &mut logits))?;
    for _ in 0..COUNT {
        let token = sampler.finish()?;
        said.push(char::from(u8::try_from(token)?));
        logits = Digest::default();
        sampler.begin();
        model.step(state.reborrow(), token, (&mut sampler, &mut logits))?;
    }
    if last == Last::State {
        logits = Digest::default();
    }
    let Digest(low, high) = Digest::token(&header, &state, logits)?;
    Ok(format!("{said}\ndigest {low:08x}{high:08x}\n"))
}
