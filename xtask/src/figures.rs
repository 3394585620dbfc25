//! `cargo xtask figures`: the README's table of models on boards, measured.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::Value;

use crate::{
    demo::{image, rwkv},
    document::{self, grouped},
    job, root, setup,
    synthetic::Synthetic,
};

/// Measure models on every emulated board and write the table in the README
#[derive(Debug, Parser)]
pub(crate) struct Figures {
    /// Only these boards; the rows of the others stay as they are
    #[arg(long = "board", value_name = "BOARD")]
    boards: Vec<String>,
    /// Tokens that the model writes behind its prompt
    #[arg(short = 'n', default_value_t = 128)]
    tokens: u32,
}

/// An emulated board, as the tool knows it.
#[derive(Debug, Clone)]
struct Board {
    name: String,
    core: String,
    /// Bytes that its agent leaves to an image.
    room: u64,
}

/// Every board that the tool can start.
fn boards() -> anyhow::Result<Vec<Board>> {
    let image = image("tunes-v4", "int8", &["--weights", "int8"])?;
    let mut fit = rwkv()?;
    fit.arg("fit").arg(image).args(["--json", "--live", "1"]);
    let rows: Vec<Value> = serde_json::from_str(&job::output(&mut fit)?)?;
    let board = |row: &Value| {
        Some(Board {
            name: row.get("board")?.as_str()?.to_owned(),
            core: row.get("core")?.as_str()?.to_owned(),
            room: row.get("agent_room")?.as_u64()?,
        })
    };
    Ok(rows.iter().filter_map(board).collect())
}

/// A model of the table.
#[derive(Debug, Clone, Copy)]
enum Model {
    /// A folder of models/.
    Shipped(&'static str),
    /// A random one of two layers of width 24, where none of these fits.
    Random(Synthetic, &'static [&'static str]),
}

/// The models of the table.
const MODELS: [Model; 6] = [
    Model::Shipped("tunes-16k"),
    Model::Shipped("tunes-v4"),
    Model::Shipped("tunes-m4"),
    Model::Shipped("prose-m4"),
    Model::Random(Synthetic { version: "4", tiny: true }, &["tunes-16k", "tunes-v4"]),
    Model::Random(Synthetic { version: "7", tiny: true }, &["tunes-m4"]),
];

const WEIGHTS: [&str; 2] = ["int8", "int4"];

const HEAD: &str = "\
| board | core | model | weights | image (flash) | firmware (flash) | state | scratch | buffers | stack | statics | RAM | bytes read per token | instructions per token |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

impl Model {
    fn name(self) -> String {
        match self {
            Self::Shipped(name) => name.to_owned(),
            Self::Random(model, _) => format!("random {}", model.name()),
        }
    }

    /// Its image, as a core likes it.
    fn image(self, weights: &str, core: &str) -> anyhow::Result<PathBuf> {
        let narrow: &[&str] = match (core, weights) {
            ("m4" | "m7" | "m33", _) => &[],
            (_, "int4") => &["--packing", "lanes"],
            _ => &["--input-bits", "8"],
        };
        let options = [&["--weights", weights], narrow].concat();
        let suffix = if narrow.is_empty() { "" } else { "-8" };
        let name = format!("{weights}{suffix}");
        match self {
            Self::Shipped(model) => image(model, &name, &options),
            Self::Random(model, _) => model.image(&name, &options),
        }
    }

    /// The prompt: the model's own, or a line break.
    fn prompt(self) -> Vec<String> {
        match self {
            Self::Shipped(model) => {
                let prompt = root().join("models").join(model).join("prompt.txt");
                vec!["--prompt-file".to_owned(), prompt.display().to_string()]
            }
            Self::Random(..) => Vec::new(),
        }
    }
}

impl Figures {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        setup::rp2040js()?;
        let all = boards()?;
        let names: Vec<&str> = all.iter().map(|board| board.name.as_str()).collect();
        for asked in &self.boards {
            let list = names.join(", ");
            ensure!(
                names.contains(&asked.as_str()),
                "there is no board {asked}; there are: {list}"
            );
        }
        for board in &all {
            if self.boards.is_empty() || self.boards.contains(&board.name) {
                let rows = self.rows(board)?;
                print!("{rows}");
                replace_rows(&names, &board.name, &rows)?;
            }
        }
        Ok(())
    }

    /// The rows of a board.
    fn rows(&self, board: &Board) -> anyhow::Result<String> {
        let Board { name: place, core, .. } = board;
        let (mut rows, mut fitted) = (String::new(), Vec::new());
        for model in MODELS {
            if let Model::Random(_, others) = model
                && others.iter().any(|name| fitted.iter().any(|fitted| fitted == name))
            {
                continue;
            }
            // What does not fit is said once for formats that fail in the same way.
            let mut refused: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            for weights in WEIGHTS {
                let image = model.image(weights, core)?;
                match self.measure(board, model, &image)? {
                    Measured::Row(cells) => {
                        let name = model.name();
                        rows.push_str(&format!(
                            "| {place} | {core} | {name} | {weights} | {cells} |\n"
                        ));
                        fitted.push(name);
                    }
                    Measured::Refused(why) => refused.entry(why).or_default().push(weights),
                }
            }
            for (why, weights) in refused {
                rows.push_str(&format!(
                    "| {place} | {core} | {} | {} | {why} | | | | | | | | | |\n",
                    model.name(),
                    weights.join(", ")
                ));
            }
        }
        Ok(rows)
    }

    /// The cells of a model that runs on a board, or why it does not.
    fn measure(
        &self,
        board: &Board,
        model: Model,
        image: &std::path::Path,
    ) -> anyhow::Result<Measured> {
        let size = fs::metadata(image)?.len();
        if size > board.room {
            let (size, room) = (grouped(size), grouped(board.room));
            let why = format!("does not fit: {size} bytes, there is room for {room}");
            return Ok(Measured::Refused(why));
        }
        let mut validate = rwkv()?;
        validate.arg("validate").arg(image).args(model.prompt());
        let device = match board.name.as_str() {
            "rp2040" => "rp2040js".to_owned(),
            name => format!("qemu:{name}"),
        };
        validate.args(["--device", &device, "-n", &self.tokens.to_string(), "--json"]);
        let verdict = match job::output(&mut validate) {
            Ok(verdict) => verdict,
            // The agent says so before it computes anything.
            Err(error) if error.to_string().contains("state and scratch") => {
                let why = "does not fit: state and scratch are larger than the agent's arena";
                return Ok(Measured::Refused(why.to_owned()));
            }
            Err(error) => return Err(error),
        };
        let verdict: Value = serde_json::from_str(&verdict)?;
        let number = |path: &str| -> anyhow::Result<u64> {
            let number = verdict.pointer(path).and_then(Value::as_f64);
            number.map(|n| n as u64).with_context(|| format!("no {path} in the verdict"))
        };
        let field = |path: &str| number(path).map(grouped);
        // The stream's buffers, and the one that undoes a token, among them.
        let ram = ["state", "scratch", "buffers", "stack", "statics"];
        let ram = ram.map(|part| number(&format!("/memory/{part}")));
        let ram = ram.into_iter().sum::<anyhow::Result<u64>>()?;
        let cells = [
            grouped(size),
            field("/memory/flash")?,
            field("/memory/state")?,
            field("/memory/scratch")?,
            field("/memory/buffers")?,
            field("/memory/stack")?,
            field("/memory/statics")?,
            grouped(ram),
            // Those of a medium are counted; those of weights in place are what the image says.
            field("/bytes_read_per_token/median")
                .or_else(|_| self.bytes(board, model, image).map(grouped))?,
            field("/instructions_per_token/median").or_else(|_| {
                let cycles = field("/simulated_cycles_per_token/median")?;
                anyhow::Ok(format!("{cycles} simulated cycles"))
            })?,
        ];
        Ok(Measured::Row(cells.join(" | ")))
    }

    /// Bytes that a token reads, by `rwkv fit`.
    fn bytes(&self, board: &Board, model: Model, image: &std::path::Path) -> anyhow::Result<u64> {
        let mut fit = rwkv()?;
        fit.arg("fit").arg(image).args(["--board", &board.name, "--json"]).args(model.prompt());
        // It ends with 1 where the board's part is smaller than the emulated one.
        let output = fit.output().context("cannot start rwkv")?;
        let fit: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!("rwkv fit: {}", String::from_utf8_lossy(&output.stderr).trim())
        })?;
        fit.pointer("/token/bytes").and_then(Value::as_u64).context("no bytes in rwkv fit")
    }
}

/// Puts the rows of a board into the README, in place of those that it had.
fn replace_rows(boards: &[&str], board: &str, rows: &str) -> anyhow::Result<()> {
    document::revise("README.md", "figures", |table| {
        let of = |name: &str| -> String {
            let first = format!("| {name} |");
            let lines = table.split_inclusive('\n');
            lines.filter(|line| line.starts_with(&first)).collect()
        };
        let rows =
            boards.iter().map(|name| if *name == board { rows.to_owned() } else { of(name) });
        HEAD.to_owned() + &rows.collect::<String>()
    })
}

/// What became of a model on a board.
enum Measured {
    /// The cells of its row.
    Row(String),
    /// Why it does not run there.
    Refused(String),
}
