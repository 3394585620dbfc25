//! `cargo xtask panics`: no kernel reaches a panic or an allocator, on any target.
//!
//! The compiler's assembly is read as text: a function is a label and what stands behind it, and
//! what it reaches are the symbols that it names. Whatever is generic is compiled into the crate, so
//! that a kernel which names a Rust symbol outside of it names the machinery of a panic, or worse.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, ensure};
use rustc_demangle::demangle;

use crate::{cores::CORES, job, root, setup};

/// What kernels are called from outside: the functions of the trait, and the loops behind the
/// functions that the trait provides itself.
const ROOTS: [&str; 2] = [" as rwkv_core::kernel::Kernel>::", "rwkv_core::kernel::floats::"];

/// Symbols that functions name, by function; both as they stand in the assembly.
type Calls<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Checks every target.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::rust()?;
    let targets: BTreeSet<&str> = CORES.iter().map(|core| core.target).collect();
    let mut found = 0;
    for target in targets {
        let assembly = assembly(target)?;
        let calls = calls(&assembly);
        let roots: Vec<&str> = calls.keys().copied().filter(|name| is_root(name)).collect();
        ensure!(!roots.is_empty(), "no kernel is found in the assembly for {target}");
        // The rest of the crate does reach panics: if none is seen, then the text is misread.
        let panics = calls.values().flatten().any(|name| name.contains("panicking"));
        ensure!(panics, "no panic at all is found in the assembly for {target}");
        println!("{target}: {} functions of kernels", roots.len());
        for name in roots {
            for forbidden in outside(&calls, name) {
                println!("  {:#} reaches {:#}", demangle(name), demangle(forbidden));
                found += 1;
            }
        }
    }
    ensure!(found == 0, "{found} ways from a kernel to a panic or an allocator");
    Ok(())
}

/// The assembly of rwkv-core, with a copy of every function, inlined or not.
fn assembly(target: &str) -> anyhow::Result<String> {
    let dir = root().join("target/assembly");
    let stem = format!("rwkv_core-{target}.s");
    let file = dir.join(&stem);
    let mut build = job::cargo(".");
    build.env("CARGO_TARGET_DIR", &dir);
    build.args(["rustc", "--quiet", "--release", "--package", "rwkv-core", "--lib"]);
    build.args(["--target", target, "--", "-C", "codegen-units=1", "-C", "link-dead-code=yes"]);
    build.args(["-C", "debuginfo=0"]).arg(format!("--emit=asm={}", file.display()));
    job::run(&mut build)?;
    let read = |file: &PathBuf| fs::read_to_string(file);
    read(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// Whether a part of a line is a symbol of Rust: mangled, or of its allocator.
fn is_rust(word: &str) -> bool {
    ["_ZN", "_R", "__rust_", "__rg_", "__rdl_"].iter().any(|start| word.starts_with(start))
}

fn is_root(symbol: &str) -> bool {
    let name = format!("{:#}", demangle(symbol));
    // A closure alone does not know what the function that holds it has checked.
    let is_called = !name.contains("{{closure}}") && !name.contains(" as core::");
    is_called && ROOTS.iter().any(|root| name.contains(root))
}

fn calls(assembly: &str) -> Calls<'_> {
    let mut calls = Calls::new();
    let mut current = None;
    for line in assembly.lines() {
        let label = line.strip_suffix(':').filter(|label| !label.contains([' ', '\t']));
        if let Some(label) = label.filter(|label| is_rust(label)) {
            calls.entry(label).or_default();
            current = Some(label);
        } else if line.trim_start().starts_with(".size") || line.contains("end_function") {
            current = None;
        } else if let Some(named) = current.and_then(|name| calls.get_mut(name)) {
            let other = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '$' | '.');
            named.extend(line.split(other).filter(|word| is_rust(word)));
        }
    }
    calls
}

/// Every Rust symbol outside the crate that a function reaches.
fn outside<'a>(calls: &Calls<'a>, root: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut left) = (BTreeSet::from([root]), vec![root]);
    let mut outside = BTreeSet::new();
    while let Some(name) = left.pop() {
        match calls.get(name) {
            Some(named) => left.extend(named.iter().filter(|name| seen.insert(name))),
            None => _ = outside.insert(name),
        }
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSEMBLY: &str = "
_ZN4core3fooE:
\tbl\tmemcpy
\tbl\t_ZN4core3barE
\t.size\t_ZN4core3fooE, 8
_ZN4core3barE:
\tldr\tr0, .LCPI
.LBB1_1:
\tb.w\t_ZN4core9panicking5panicE
\t.size\t_ZN4core3barE, 8
_ZN4core3bazE:
\tcallq\t*_ZN4core3barE@GOTPCREL(%rip)
";

    #[test]
    fn a_panic_is_found_through_other_functions() {
        let calls = calls(ASSEMBLY);
        assert_eq!(calls.len(), 3);
        for root in ["_ZN4core3fooE", "_ZN4core3bazE"] {
            assert_eq!(outside(&calls, root), BTreeSet::from(["_ZN4core9panicking5panicE"]));
        }
    }
}
