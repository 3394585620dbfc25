//! `cargo xtask size`: what rwkv-core takes of a board's flash.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context;
use object::{Object, ObjectSection, SectionFlags, SectionKind, elf::SHF_ALLOC};

use crate::{
    cores::{CORES, Machine, PROBE},
    document::{grouped, replace},
    job, root, setup,
};

/// Cargo's profiles, by the level of optimisation.
pub(crate) const PROFILES: [(&str, &str); 2] = [("3", "release"), ("\"s\"", "small")];

/// Links the least firmware for every target and puts the table into the README.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::rust()?;
    let boards = CORES.iter().filter(|core| matches!(core.machine, Machine::Board { .. }));
    let mut seen = BTreeSet::new();
    let targets: Vec<&str> =
        boards.map(|core| core.target).filter(|target| seen.insert(*target)).collect();
    let mut table = String::from("| target |");
    PROFILES.iter().for_each(|(level, _)| table.push_str(&format!(" `opt-level = {level}` |")));
    table.push_str("\n|---|---|---|\n");
    for target in targets {
        table.push_str(&format!("| `{target}` |"));
        for (_, profile) in PROFILES {
            table.push_str(&format!(" {} |", grouped(flash(target, profile)?)));
        }
        table.push('\n');
    }
    replace("README.md", "size", &table)?;
    print!("{table}");
    Ok(())
}

/// Bytes of flash that the firmware fills.
fn flash(target: &str, profile: &str) -> anyhow::Result<u64> {
    let mut build = job::cargo(PROBE);
    build.args(["build", "--quiet", "--profile", profile, "--target", target]);
    build.args(["--no-default-features", "--features", "size", "--bin", "size"]);
    job::run(&mut build)?;
    let path = root().join(PROBE).join("target").join(target).join(profile).join("size");
    loaded(&path)
}

/// Bytes of flash that a program fills.
pub(crate) fn loaded(path: &Path) -> anyhow::Result<u64> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let elf = object::File::parse(&*bytes)?;
    let is_loaded = |flags| matches!(flags, SectionFlags::Elf { sh_flags } if sh_flags & u64::from(SHF_ALLOC) != 0);
    let sections = elf.sections().filter(|section| {
        is_loaded(section.flags()) && section.kind() != SectionKind::UninitializedData
    });
    Ok(sections.map(|section| section.size()).sum())
}
