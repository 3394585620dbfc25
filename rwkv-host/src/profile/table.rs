//! A profile as a table: all layers together, one line per part of an operation.

use std::fmt;

use super::{Piece, Profile, part_name};
use crate::cli::Grouped;

/// What a line stands for.
type Key<'a> = (&'static str, Option<&'a str>, rwkv_core::exec::Part);

fn key(piece: &Piece) -> Key<'_> {
    (piece.operation, piece.record.as_deref(), piece.part)
}

impl Profile {
    /// Pieces of the same kind added up over all layers, the parts of an operation together.
    fn lines(&self) -> Vec<Piece> {
        let mut lines: Vec<Piece> = Vec::new();
        for piece in &self.pieces {
            if let Some(line) = lines.iter_mut().find(|line| key(line) == key(piece)) {
                line.times += piece.times;
                line.cost += piece.cost;
                continue;
            }
            let same = |line: &Piece| key(line).0 == key(piece).0 && key(line).1 == key(piece).1;
            let at = lines.iter().rposition(same).map_or(lines.len(), |at| at + 1);
            lines.insert(at, piece.clone());
        }
        lines
    }

    fn share(&self, cost: f64) -> f64 {
        100.0 * cost / self.per_token
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "device        {} ({})", self.info.board, self.info.core)?;
        writeln!(f, "tokens        {}", self.tokens)?;
        writeln!(f)?;
        let unit = self.unit;
        writeln!(
            f,
            "{:<30} {:<11} {:>7} {unit:>16} {:>7} {:>12}",
            "operation", "part", "times", "share", "per channel"
        )?;
        let mut before = String::new();
        for line in self.lines() {
            let record = line.record.as_deref().unwrap_or_default();
            let name = format!("{} {record}", line.operation);
            let shown = if name == before { "" } else { name.trim_end() };
            writeln!(
                f,
                "{shown:<30} {:<11} {:>7.1} {:>16} {:>6.1} % {:>12.1}",
                part_name(line.part),
                line.times,
                Grouped(line.cost.round() as u64),
                self.share(line.cost),
                line.cost / self.channels.max(1) as f64,
            )?;
            before = name;
        }
        writeln!(f)?;
        let mut sum = |name: &str, cost: f64, per: f64, what: &str| {
            let total = Grouped(cost.round() as u64);
            writeln!(f, "{name:<13} {total:>11} {:>6.1} %  {per:.2} {what}", self.share(cost))
        };
        let channels = self.channels.max(1) as f64;
        let wide = "per channel and layer";
        sum("products", self.products, self.products / channels, wide)?;
        sum("recurrence", self.recurrence, self.recurrence_per_element(), "per state element")?;
        sum("all else", self.rest(), self.rest_per_channel(), wide)?;
        sum("a token", self.per_token, self.per_token / channels, wide)
    }
}
