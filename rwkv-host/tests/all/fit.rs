//! `rwkv fit` as a program.

use std::collections::BTreeSet;

use crate::tool::{command, folder, rwkv};
use serde_json::Value;

/// The exit code and what was printed.
fn fit(dir: &std::path::Path, args: &[&str]) -> (Option<i32>, String) {
    let output = command(&[&["fit", "x"], args].concat(), dir).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_exit_code_says_whether_it_fits() {
    let dir = folder();
    let (code, text) = fit(dir.path(), &["--board", "netduinoplus2"]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["image in place", "tokens per second at most", "netduinoplus2: fits"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, text) = fit(dir.path(), &["--board", "microbit"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("bytes of flash short") && text.contains("bytes of RAM"), "{text}");
    assert!(text.contains("No format and no medium makes it fit"), "{text}");

    // 497,824 bytes of image and 84,652 of firmware.
    let (code, text) = fit(dir.path(), &["--flash", "400K", "--ram", "32K"]);
    assert_eq!(code, Some(1), "{text}");
    for part in ["What fits:", "int4 ", "SPI NOR", "SD card"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let streamed = ["--flash", "128k", "--ram", "32K", "--external", "1M", "--mbps", "6"];
    let (code, text) = fit(dir.path(), &[&streamed[..], &["--mips", "80"]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("what binds is reading"), "{text}");
}

#[test]
fn a_table_has_every_board() {
    let dir = folder();
    let (code, text) = fit(dir.path(), &["--live", "0.25"]);
    assert_eq!(code, Some(0), "{text}");
    for board in rwkv_host::fit::BOARDS {
        let line = text.lines().find(|line| line.starts_with(board.name)).unwrap();
        assert_eq!(line.contains("built, not run"), !board.is_emulated(), "{line}");
    }
    let (_, json) = fit(dir.path(), &["--live", "0.25", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(rows.len(), rwkv_host::fit::BOARDS.len());
    for row in &rows {
        let ram = &row["ram"];
        let sum: u64 = ["state", "scratch", "buffers", "stack", "program"]
            .iter()
            .map(|part| ram[part].as_u64().unwrap())
            .sum();
        assert_eq!(ram["needed"], sum);
        assert!(row["source"].as_str().is_some_and(|source| !source.is_empty()));
    }
}

/// What `rwkv info` counts is what `rwkv fit` counts.
#[test]
fn bytes_are_those_of_info() {
    let dir = folder();
    let info: Value =
        serde_json::from_str(&rwkv(dir.path(), &["info", "x", "--json"]).unwrap()).unwrap();
    let board = ["--board", "mps2-an386", "--json", "--live"];
    for (live, field) in [("0", "fixed_bytes_per_token"), ("1", "max_bytes_per_token")] {
        let (_, json) = fit(dir.path(), &[&board[..], &[live]].concat());
        let one: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(one["token"]["bytes"], info[field], "{live}");
        assert_eq!(one["image_bytes"], info["image_bytes"]);
        assert!(one["alternatives"].as_array().is_some_and(|others| !others.is_empty()));
    }
}

/// What is written lies in the image where the tables say.
#[test]
fn a_placement_is_written_with_its_tables() {
    let dir = folder();
    let place = ["place", "x", "--flash", "100K", "--ram", "8K", "--live", "0.2", "-o", "out"];
    let text = rwkv(dir.path(), &place).unwrap();
    assert!(text.contains("bytes in flash") && text.contains("from the medium"), "{text}");
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let image = read("x");
    let table = String::from_utf8(read("out/placement.rs")).unwrap();
    let header = String::from_utf8(read("out/placement.h")).unwrap();
    let (mut memory, mut seen) = ("", [0; 2]);
    for line in table.lines() {
        if line.contains("const FLASH: [PlacedRange") {
            memory = "flash";
        } else if line.contains("const RAM: [PlacedRange") {
            memory = "ram";
        }
        let Some(range) = line.trim().strip_prefix("PlacedRange { first: ") else { continue };
        let numbers = range.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        let numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
        let [first, words, at] = numbers[..] else { panic!("{line}") };
        let content = read(&format!("out/{memory}.bin"));
        assert_eq!(content[4 * at..4 * (at + words)], image[4 * first..4 * (first + words)]);
        assert!(header.contains(&format!("{{{first}u, {words}u, {at}u}}")), "{header}");
        seen[usize::from(memory == "ram")] += 4 * words;
    }
    let identity = u32::from_le_bytes(image[12..16].try_into().unwrap());
    assert!(table.contains(&format!("pub const IDENTITY: u32 = {identity:#010x};")), "{table}");
    assert!(header.contains(&format!("#define PLACED_IDENTITY {identity:#010x}u\n")), "{header}");
    let flash = 100 * 1024;
    assert!(
        (flash - 4096..=flash).contains(&seen[0]) && (4096..=8192).contains(&seen[1]),
        "{seen:?}"
    );
    let error = rwkv(dir.path(), &["place", "x"]).unwrap_err();
    assert!(error.contains("give --flash or --ram"), "{error}");
}

/// An image that lies where an output would is not written over, and nothing of an earlier
/// placement is left.
#[test]
fn a_placement_spares_its_image_and_leaves_nothing_old() {
    let dir = folder();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let image = std::fs::read(dir.path().join("x")).unwrap();
    std::fs::write(out.join("flash.bin"), &image).unwrap();
    let place = ["--flash", "100K", "--live", "0.2", "-o", "out"];
    let error = rwkv(dir.path(), &[&["place", "out/flash.bin"], &place[..]].concat()).unwrap_err();
    assert!(error.contains("would take the place of the image"), "{error}");
    assert_eq!(std::fs::read(out.join("flash.bin")).unwrap(), image);

    std::fs::write(out.join("ram.bin"), "old").unwrap();
    rwkv(dir.path(), &[&["place", "x"], &place[..]].concat()).unwrap();
    assert!(!out.join("ram.bin").exists());
    assert!(out.join("flash.bin").exists() && out.join("placement.h").exists());
}

#[test]
fn firmware_of_a_simulated_device_is_refused() {
    let dir = folder();
    let error = rwkv(dir.path(), &["bench", "x", "--firmware", "f.elf"]).unwrap_err();
    assert!(error.contains("which sim is not"), "{error}");
}

/// The fields of an object, those of objects in it with a dot.
fn fields(json: &Value, before: &str, into: &mut BTreeSet<String>) {
    for (name, value) in json.as_object().unwrap() {
        let name = format!("{before}{name}");
        let inner = value.as_array().map_or(Some(value), |list| list.first());
        match inner.filter(|inner| inner.is_object() && before.is_empty() && name != "info") {
            Some(inner) => fields(inner, &format!("{name}."), into),
            None => _ = into.insert(name),
        }
    }
}

/// The fields in the first column of a table of the book.
fn documented(command: &str) -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/fit.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- fields of {command} -->")).unwrap();
    let lines = rest.trim_start().lines().skip(2).map_while(|line| line.strip_prefix("| "));
    let first = lines.flat_map(|line| line.split(" | ").next());
    first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn the_book_names_the_fields_that_are_printed() {
    let dir = folder();
    let printed = |runs: &[&[&str]]| {
        let mut all = BTreeSet::new();
        for args in runs {
            let output = command(args, dir.path()).output().unwrap();
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            let one = json.as_array().map_or(&json, |list| &list[0]);
            fields(one, "", &mut all);
        }
        // A memory that is not there is null.
        all.retain(|name| name != "medium" && name != "flash");
        all
    };
    let streamed = ["fit", "x", "--live", "0.5", "--board", "lm3s6965evb", "--json"];
    let table = ["fit", "x", "--live", "0.5", "--json"];
    assert_eq!(printed(&[&streamed, &table]), documented("fit"));
    let place = ["place", "x", "--flash", "64K", "--live", "0.5", "--json"];
    assert_eq!(printed(&[&place]), documented("place"));
    assert_eq!(printed(&[&["bench", "x", "-n", "2", "--json"]]), documented("bench"));
}

#[test]
fn errors_name_the_next_step() {
    let dir = folder();
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--board", "toaster"], &["there is no board `toaster`", "microbit", "rp2040"]),
        (&["--flash", "12Q", "--ram", "1K"], &["256K"]),
        (&["--flash", "1M"], &["--ram"]),
        (&["--board", "microbit", "--flash", "1M", "--ram", "1K"], &["cannot be used with"]),
        (&["--live", "2"], &["from 0 to 1"]),
        (&["--live", "0.5", "--prompt", "a"], &["leave one of them out"]),
        (&["--core", "m0"], &["--flash"]),
        (&["--tokenizer", "t.json"], &["give --prompt"]),
        (&["--tokenizer", "t.json", "--live", "0.5"], &["give --prompt"]),
        (&["--buffers", "1"], &["give --board"]),
        (&["--board", "rp2040", "--buffers", "1"], &["in place", "leave it out"]),
        (&["--board", "ast1030-evb", "--buffers", "2"], &["itself moves the bytes", "--buffers 1"]),
    ];
    for (args, told) in cases {
        let error = rwkv(dir.path(), &[&["fit", "x"], args].concat()).unwrap_err();
        assert!(told.iter().all(|part| error.contains(part)), "{args:?}: {error}");
    }
}
