//! Tables of figures, and the pages of the book that hold them between marks.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, ensure};

use crate::{
    bench::{CHECKED, CORES, Figures, PRODUCTS, TOKENS, quoted},
    root,
};

/// Where the tables of `cargo xtask bench` stand.
const PAGE: &str = "docs/src/performance.md";

/// A table with a header of `first` and the cores.
fn table(first: &str, rows: impl Iterator<Item = (String, Vec<Option<String>>)>) -> String {
    let mut text = format!("| {first} | {} |\n|{}\n", CORES.join(" | "), "---|".repeat(8));
    for (name, cells) in rows {
        let cells: Vec<String> = cells.into_iter().map(Option::unwrap_or_default).collect();
        text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    }
    text
}

/// Instructions per multiply-accumulate.
pub(crate) fn kernels(figures: &Figures) -> String {
    let rows = PRODUCTS.into_iter().filter_map(|weights| {
        let cell = |core| {
            let quote = quoted(figures, core, weights)?;
            let mark = if quote.size == 256 { "" } else { "*" };
            Some(format!("{:.2}{mark}", quote.value))
        };
        let cells = CORES.map(cell).to_vec();
        let name = weights.replace("cmsis-nn-", "CMSIS-NN ");
        cells.iter().any(Option::is_some).then_some((name, cells))
    });
    table("product", rows)
}

/// Instructions per live column element, and per element of an input that is quantised.
pub(crate) fn vectors(figures: &Figures) -> String {
    let columns = ["f32", "f16", "int8", "int4"].map(|weights| {
        (format!("live column, {weights}"), format!("column {weights} 0 256x1"), None)
    });
    let inputs = ["int8", "int4", "int4-lanes"].map(|weights| {
        let name = |bits| format!("arrange {weights} {bits} 1x256");
        (format!("input, {weights}"), name(15), Some(name(8)))
    });
    let rows = columns.into_iter().chain(inputs).map(|(title, wide, narrow)| {
        let cell = |core: &str| {
            let figures = figures.get(core)?;
            let wide_multiply = crate::cores::Core::find(core).ok()?.has_wide_multiply();
            let name = narrow.as_ref().filter(|_| !wide_multiply).unwrap_or(&wide);
            figures.get(name).map(|value| format!("{value:.2}"))
        };
        (title, CORES.map(cell).to_vec())
    });
    table("per element", rows)
}

/// Instructions per call of the scalar functions, by library, and of the operations per element.
pub(crate) fn functions(figures: &Figures) -> String {
    let names = figures.values().flat_map(|figures| figures.keys());
    let mut names: Vec<&str> = names
        .map(String::as_str)
        .filter(|name| name.starts_with("function ") || name.starts_with("operation "))
        .collect();
    names.sort_unstable();
    names.dedup();
    let rows = names.into_iter().map(|name| {
        let cell = |core: &str| Some(format!("{:.1}", figures.get(core)?.get(name)?));
        let title = name.split_once(' ').map_or(name, |(_, rest)| rest);
        (title.to_owned(), CORES.map(cell).to_vec())
    });
    table("function", rows)
}

/// A table of the models whose tokens were counted; `cell` makes one of a core's figures.
fn models(
    figures: &Figures,
    cell: impl Fn(&BTreeMap<String, f64>, &str) -> Option<String>,
) -> String {
    let names = figures.values().flat_map(|figures| figures.keys());
    let mut names: Vec<&str> = names.filter_map(|name| name.strip_prefix(TOKENS)).collect();
    names.sort_unstable();
    names.dedup();
    let rows = names.into_iter().map(|name| {
        let cells = CORES.map(|core| cell(figures.get(core)?, name));
        (name.to_owned(), cells.to_vec())
    });
    table("model", rows.filter(|(_, cells)| cells.iter().any(Option::is_some)))
}

/// Instructions per token.
pub(crate) fn tokens(figures: &Figures) -> String {
    models(figures, |figures, name| {
        Some(grouped(figures.get(&format!("{TOKENS}{name}"))?.round() as u64))
    })
}

/// What comparing every block with its checksum adds to a token.
pub(crate) fn checksums(figures: &Figures) -> String {
    models(figures, |figures, name| {
        let [plain, checked] = [TOKENS, CHECKED].map(|kind| figures.get(&format!("{kind}{name}")));
        Some(format!("{:.1} %", (checked? / plain? - 1.0) * 100.0))
    })
}

/// Writes the tables into the book.
pub(crate) fn write(figures: &Figures) -> anyhow::Result<()> {
    for (mark, table) in tables(figures) {
        replace(PAGE, mark, &table)?;
    }
    Ok(())
}

/// Compares the tables in the book with the figures.
pub(crate) fn check(figures: &Figures) -> anyhow::Result<()> {
    let page = fs::read_to_string(root().join(PAGE)).context(PAGE)?;
    for (mark, table) in tables(figures) {
        ensure!(
            page.contains(&table),
            "the table {mark} of {PAGE} is not that of the blessed figures"
        );
    }
    Ok(())
}

fn tables(figures: &Figures) -> [(&'static str, String); 5] {
    [
        ("kernels", kernels(figures)),
        ("vectors", vectors(figures)),
        ("functions", functions(figures)),
        ("tokens", tokens(figures)),
        ("checksums", checksums(figures)),
    ]
}

/// Replaces what stands between `<!-- mark -->` and `<!-- /mark -->` in a file of the project.
pub(crate) fn replace(file: &str, mark: &str, text: &str) -> anyhow::Result<()> {
    revise(file, mark, |_| text.to_owned())
}

/// Replaces it by what `change` makes of it.
pub(crate) fn revise(
    file: &str,
    mark: &str,
    change: impl FnOnce(&str) -> String,
) -> anyhow::Result<()> {
    let (start, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let path = root().join(file);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
    let missing = || format!("{file} has no mark {mark}");
    let (before, rest) = page.split_once(&start).with_context(missing)?;
    let (text, after) = rest.split_once(&end).with_context(missing)?;
    fs::write(&path, format!("{before}{start}{}{end}{after}", change(text)))?;
    Ok(())
}

/// A number with its thousands set apart.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}
