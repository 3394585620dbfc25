//! A profile as a picture: a token on top, below it its sections, their operations and the parts
//! of these, each as wide as what it costs.

use std::fmt::Write;

use rwkv_core::exec::Part;

use super::{Piece, Profile, part_name};
use crate::cli::Grouped;

const WIDTH: f64 = 1600.0;
const ROW: f64 = 20.0;
/// Of a letter, about: what does not fit a box is left out.
const LETTER: f64 = 6.7;
/// A token, a section, an operation, a part.
const DEPTHS: usize = 4;
const PAPER: &str = "#d8dde3";

/// The profile as SVG, with the figures as tool tips.
pub fn picture(profile: &Profile) -> String {
    let board = format!("a token on {} ({})", profile.info.board, profile.info.core);
    let path = |p: &Piece| [board.clone(), p.section.clone(), operation(p), part_name(p.part)];
    let mut boxes = String::new();
    for depth in 0..DEPTHS {
        let mut left = 0.0;
        for run in profile.pieces.chunk_by(|a, b| path(a)[..=depth] == path(b)[..=depth]) {
            let cost: f64 = run.iter().map(|piece| piece.cost).sum();
            let fill = if depth < 2 { PAPER } else { colour(run[0].part) };
            add_box(&mut boxes, profile, (left, cost), &path(&run[0])[..=depth], fill);
            left += cost;
        }
    }
    let height = ROW * DEPTHS as f64;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"monospace\" font-size=\"11\">\n{boxes}</svg>\n"
    )
}

fn add_box(
    out: &mut String,
    profile: &Profile,
    (left, cost): (f64, f64),
    path: &[String],
    fill: &str,
) {
    let all: f64 = profile.pieces.iter().map(|piece| piece.cost).sum();
    let (x, width) = (left / all * WIDTH, cost / all * WIDTH);
    let y = ROW * path.len().saturating_sub(1) as f64;
    let name = path.last().map_or("", String::as_str);
    let share = 100.0 * cost / all;
    let tip =
        format!("{}: {} {} ({share:.1} %)", path.join(", "), Grouped(cost as u64), profile.unit);
    let letters = (width / LETTER) as usize;
    let label = if letters < 3 { "" } else { name.get(..letters.min(name.len())).unwrap_or(name) };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<g><title>{tip}</title><rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{ROW}\" \
         fill=\"{fill}\" stroke=\"white\" stroke-width=\"0.5\"/>\
         <text x=\"{:.2}\" y=\"{}\">{label}</text></g>",
        x + 3.0,
        y + 14.0,
    );
}

fn operation(piece: &Piece) -> String {
    match &piece.record {
        Some(record) => format!("{} {record}", piece.operation),
        None => piece.operation.to_owned(),
    }
}

/// Products, recurrences, and all else.
const fn colour(part: Part) -> &'static str {
    match part {
        Part::Rows | Part::Columns => "#8fb8de",
        Part::Recurrence => "#e8a87c",
        _ => "#b7d3a8",
    }
}
