//! Every public type of the device crates can be logged: it has `defmt::Format`, derived, by
//! `brief!`, or by hand.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::root;

/// Crates whose types firmware logs.
const CRATES: [&str; 2] = ["rwkv-core/src", "rwkv-embedded/src"];

/// Fails with the first types that have none.
pub(crate) fn run() -> anyhow::Result<()> {
    let (mut types, mut missing) = (0, Vec::new());
    for file in CRATES.iter().map(|dir| files(&root().join(dir))).collect::<Result<Vec<_>, _>>()? {
        for path in file {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let lines: Vec<&str> = text.lines().collect();
            for (at, name) in
                lines.iter().enumerate().filter_map(|(at, line)| Some((at, name(line)?)))
            {
                types += 1;
                if !derived(&lines, at) && !by_hand(&text, name) {
                    missing.push(format!("{}:{}: {name}", path.display(), at + 1));
                }
            }
        }
    }
    ensure!(types > 100, "the public types are not found: {types}");
    ensure!(missing.is_empty(), "no defmt::Format, derived or by brief!:\n{}", missing.join("\n"));
    println!("{types} public types, each with defmt::Format");
    Ok(())
}

/// The sources in a folder and those below.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The name of the public type that a line begins.
fn name(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let kinds = ["struct ", "enum ", "union "];
    let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').next()
}

/// Whether an attribute right above the line derives it.
fn derived(lines: &[&str], at: usize) -> bool {
    let above = lines.iter().take(at).rev().map(|line| line.trim_start());
    let mut attributes = above.take_while(|line| line.starts_with("#[") || line.starts_with("///"));
    attributes.any(|line| line.contains("defmt::Format"))
}

/// Whether the file implements it for the name.
fn by_hand(text: &str, name: &str) -> bool {
    let is_name = |part: &str| {
        part.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
    };
    let briefs = text.split("brief!(").skip(1).filter_map(|rest| rest.split_once('|'));
    let impls = text.split("defmt::Format for ").skip(1).filter_map(|rest| rest.split_once('{'));
    briefs.chain(impls).any(|(part, _)| is_name(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_without_is_found() {
        let text = "#[derive(Debug)]\npub struct Bare;\n/// Doc.\n#[cfg_attr(feature = \"defmt\", derive(defmt::Format))]\npub enum Has {}\nbrief!([] Long<'_>, |x| \"\");\n    pub struct Long<'a>(&'a ());\npub(super) struct Not;\n";
        let lines: Vec<&str> = text.lines().collect();
        let names: Vec<_> = lines.iter().filter_map(|line| name(line)).collect();
        assert_eq!(names, ["Bare", "Has", "Long"]);
        assert!(!derived(&lines, 1) && derived(&lines, 4) && !derived(&lines, 6));
        assert!(!by_hand(text, "Bare") && by_hand(text, "Long") && !by_hand(text, "Lo"));
    }
}
