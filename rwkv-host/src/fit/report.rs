//! What `rwkv fit` prints.

use std::{
    fmt::{self, Display},
    io::{self, Write},
};

use super::{Alternative, Board, Fit, Limit, Need};
use crate::cli::Grouped;

/// A number of tokens per second, with as many digits as it has meaning.
pub(super) struct Rate(pub(super) Option<f64>);

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self.0 {
            None => "unknown".to_owned(),
            Some(rate) if rate < 9.95 => format!("{rate:.2}"),
            Some(rate) if rate < 99.5 => format!("{rate:.1}"),
            Some(rate) => Grouped(rate.round() as u64).to_string(),
        })
    }
}

impl Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reading => "reading",
            Self::Instructions => "instructions",
        })
    }
}

fn verdict(fit: &Fit) -> String {
    if fit.fits {
        return "fits".to_owned();
    }
    let short = |(name, bytes)| format!("{} bytes of {name} short", Grouped(bytes));
    fit.missing().into_iter().map(short).collect::<Vec<_>>().join(", ")
}

/// One part in full.
pub(super) fn one(out: &mut impl Write, fit: &Fit, others: &[Alternative]) -> io::Result<()> {
    writeln!(out, "{} ({}), image {}", fit.part, fit.core.name(), fit.image_in)?;
    writeln!(out)?;
    writeln!(out, "{:<12} {:>13} {:>13}", "", "needed", "there")?;
    let mut need = |name: &str, need: Option<Need>, what: String| match need {
        Some(Need { needed, there }) => {
            let (needed, there) = (Grouped(needed), Grouped(there));
            writeln!(out, "{name:<12} {needed:>13} {there:>13}  {what}")
        }
        None => Ok(()),
    };
    let image = if fit.medium.is_none() {
        format!("image {}, ", Grouped(fit.image_bytes))
    } else {
        String::new()
    };
    need("flash", fit.flash, format!("{image}firmware {}", Grouped(fit.firmware_bytes)))?;
    need(fit.image_in, fit.medium, format!("image {}", Grouped(fit.image_bytes)))?;
    let ram = &fit.ram;
    let parts = [
        ("state", ram.state),
        ("scratch", ram.scratch),
        ("buffers", ram.buffers),
        ("stack and statics", ram.stack),
        ("program", ram.program),
    ];
    let parts = parts.into_iter().filter(|(_, bytes)| *bytes > 0);
    let parts: Vec<String> =
        parts.map(|(name, bytes)| format!("{name} {}", Grouped(bytes))).collect();
    need("RAM", Some(ram.total), parts.join(", "))?;
    if ram.undo > 0 {
        let undo = Grouped(ram.undo);
        writeln!(
            out,
            "{:<12} {undo:>13} {:>13} optional: a copy of the state, to undo a token whose read failed",
            "", ""
        )?;
    }
    writeln!(out)?;
    token(out, fit)?;
    writeln!(out)?;
    alternatives(out, fit, others)?;
    if !ram.total.is_met() {
        let saved = ram.buffers - ram.least_buffers;
        if saved > 0 {
            let less = if ram.total.needed - saved > ram.total.there {
                ", which is not enough"
            } else {
                ""
            };
            writeln!(
                out,
                "Buffers of {} bytes would save {}{less}: long rows then come in pieces, which the \
                 figures above do not know.",
                Grouped(ram.least_buffers),
                Grouped(saved)
            )?;
        }
        writeln!(
            out,
            "A state in 16 bits would save {} bytes of RAM. It is not available: the state is f32 in \
             every image.",
            Grouped(ram.half_state)
        )?;
    }
    writeln!(out, "{}: {}", fit.part, verdict(fit))
}

fn token(out: &mut impl Write, fit: &Fit) -> io::Result<()> {
    let token = &fit.token;
    let row = |out: &mut dyn Write, number: &dyn Display, what: &str| {
        writeln!(out, "{number:>13}  {what}")
    };
    let live = format!(
        "bytes read per token: {} and {:.0} % of {} columns",
        Grouped(token.fixed_bytes),
        100.0 * token.live,
        Grouped(token.columns)
    );
    row(out, &Grouped(token.bytes), &live)?;
    if token.reads > 0 {
        row(out, &Grouped(token.reads), "reads per token")?;
    }
    row(out, &Grouped(token.instructions.round() as u64), "instructions per token")?;
    if token.moving > 0.0 {
        row(out, &Grouped(token.moving.round() as u64), "of them move bytes of the medium")?;
    }
    row(out, &Rate(fit.limits.reading), "tokens per second, if reading were all")?;
    row(out, &Rate(fit.limits.instructions), "tokens per second, if computing were all")?;
    let binds = match fit.limits.binds {
        Some(limit) => format!("tokens per second at most; what binds is {limit}"),
        None => "tokens per second at most".to_owned(),
    };
    row(out, &Rate(fit.limits.tokens_per_second), &binds)
}

/// Those that fit where the image does not, or that are faster where it does.
fn alternatives(out: &mut impl Write, fit: &Fit, others: &[Alternative]) -> io::Result<()> {
    let rate = |fit: &Fit| fit.limits.tokens_per_second.unwrap_or_default();
    let helps =
        |other: &&Alternative| other.fit.fits && (!fit.fits || rate(&other.fit) > 1.05 * rate(fit));
    let others: Vec<&Alternative> = others.iter().filter(helps).collect();
    if others.is_empty() {
        if !fit.fits {
            writeln!(
                out,
                "No format and no medium makes it fit: train a model with fewer or narrower layers, \
                 or choose a larger part."
            )?;
        }
        return Ok(());
    }
    writeln!(out, "{}", if fit.fits { "Faster:" } else { "What fits:" })?;
    writeln!(
        out,
        "{:<8} {:<10} {:>7} {:>13} {:>13} {:>10}",
        "weights", "image", "buffers", "image bytes", "RAM", "tokens/s"
    )?;
    for Alternative { weights, buffers, fit } in others {
        let buffers = if fit.ram.buffers > 0 { buffers.to_string() } else { String::new() };
        writeln!(
            out,
            "{:<8} {:<10} {buffers:>7} {:>13} {:>13} {:>10}",
            weights.unwrap_or("as it is"),
            fit.image_in,
            Grouped(fit.image_bytes),
            Grouped(fit.ram.total.needed),
            Rate(fit.limits.tokens_per_second)
        )?;
    }
    writeln!(out, "Other weights come with: rwkv convert --weights FORMAT")?;
    writeln!(out)
}

/// A line per board.
pub(super) fn table(out: &mut impl Write, fits: &[(Board, Fit)]) -> io::Result<()> {
    writeln!(
        out,
        "{:<14} {:<11} {:<8} {:>7} {:>7} {:>11} {:>13} {:>9} {:<12}  verdict",
        "board",
        "core",
        "image",
        "flash",
        "RAM",
        "bytes/token",
        "instr./token",
        "tokens/s",
        "binds"
    )?;
    let share = |need: Option<Need>| {
        need.map_or(String::new(), |Need { needed, there }| {
            format!("{:.0} %", (100.0 * needed as f64 / there.max(1) as f64).ceil())
        })
    };
    for (board, fit) in fits {
        let mark = if board.is_emulated() { "" } else { " (built, not run)" };
        let binds = fit.limits.binds.map_or(String::new(), |limit| limit.to_string());
        writeln!(
            out,
            "{:<14} {:<11} {:<8} {:>7} {:>7} {:>11} {:>13} {:>9} {binds:<12}  {}{mark}",
            board.name,
            fit.core.name(),
            fit.image_in,
            share(fit.flash.or(fit.medium)),
            share(Some(fit.ram.total)),
            Grouped(fit.token.bytes),
            Grouped(fit.token.instructions.round() as u64),
            Rate(fit.limits.tokens_per_second),
            verdict(fit),
        )?;
    }
    Ok(())
}
