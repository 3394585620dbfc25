//! A validation as a page of HTML: one file, nothing from elsewhere.

mod charts;
mod escape;

use std::fmt::{self, Display};

use chrono::{DateTime, Utc};
use rwkv_core::Image;
use rwkv_embedded::agent::protocol::Tick;

use self::{
    charts::{Cells, Chart, Differences, Strip, Unit},
    escape::{Text, start_of},
};
use super::{Course, Finding, Named, Validation};
use crate::{cli::Grouped, tokenizer::Tokenizer};

const STYLE: &str = include_str!("style.css");
/// Characters that are shown of a prompt, and of what follows it.
const SHOWN: usize = 160;

/// A validation, and what else there is to say.
pub struct Report<'a> {
    /// What was found.
    pub found: &'a Validation,
    /// The image, where it is at hand.
    pub image: Option<&'a Image<'a>>,
    /// Shows tokens as text.
    pub tokenizer: Option<&'a Tokenizer<'a>>,
    /// When it was.
    pub date: DateTime<Utc>,
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = if self.found.is_equal() { "is-equal" } else { "is-different" };
        let (board, verdict) = (Text(&self.found.facts.info.board), self.verdict());
        writeln!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{board}: {verdict}</title>\n<style>\n{STYLE}</style>\n</head>\n\
             <body class=\"{class}\">"
        )?;
        self.banner(f)?;
        self.tiles(f)?;
        if let Some((named, finding)) = self.finding() {
            wrong(f, named, finding)?;
        }
        self.prompts(f)?;
        self.costs(f)?;
        self.compared(f)?;
        writeln!(
            f,
            "<footer>Written by <code>rwkv validate --report</code>, version {}.</footer>\n</body>\n\
             </html>",
            env!("CARGO_PKG_VERSION")
        )
    }
}

impl Report<'_> {
    /// The verdict in a few words.
    fn verdict(&self) -> &'static str {
        match self.finding() {
            // What this host does not compute either is not held against the device.
            Some((_, Finding::Record { .. })) if self.found.golden => "The trace is in doubt",
            Some((_, Finding::Record { .. })) => "The host is in doubt",
            _ if self.found.is_equal() => "Every bit is equal",
            _ => "The device differs",
        }
    }

    /// The verdict.
    fn banner(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Validation { golden, tokens, .. } = self.found;
        let sign = match self.found.is_equal() {
            true => "M10 16.5l4.5 4.5L22.5 12",
            false => "M11 11l10 10M21 11l-10 10",
        };
        let title = self.verdict();
        let measure = if *golden { "the golden trace" } else { "the host" };
        writeln!(
            f,
            "<header>\n<p class=\"kind\">Validation of an RWKV device</p>\n\
             <h1 id=\"verdict\"><svg viewBox=\"0 0 32 32\" aria-hidden=\"true\"><circle cx=\"16\" cy=\"16\" \
             r=\"15\"/><path d=\"{sign}\"/></svg>{title}</h1>"
        )?;
        let tokens = Grouped(*tokens as u64);
        let Some(Named { name, verdict, .. }) = self.found.first() else {
            return writeln!(
                f,
                "<p class=\"said\">After each of {tokens} tokens the whole state of the network and all logits \
                 had the digest of {measure}. There is no tolerance: equal means the same bits.</p>\n</header>"
            );
        };
        let (differing, count) = (self.found.differing, self.found.prompts.len());
        write!(f, "<p class=\"said\">")?;
        if count > 1 {
            write!(f, "{differing} of {count} prompts differ from {measure}. ")?;
        }
        if let Some(difference) = &verdict.first_difference {
            write!(f, "<b><bdi>{}</bdi></b>: {}.", Text(start_of(name, SHOWN)), Text(difference))?;
        }
        writeln!(f, "</p>\n</header>")
    }

    /// The figures that people look for first.
    fn tiles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found;
        let info = &found.facts.info;
        let [tokens, differing, prompts] =
            [found.tokens, found.differing, found.prompts.len()].map(|n| Grouped(n as u64));
        let bits = found.first().map_or(0, |named| named.verdict.differing_bits);
        let tiles = match found.is_equal() {
            true => [("0".to_owned(), "differing bits"), (prompts.to_string(), "prompts")],
            false => [
                (format!("{bits} of 64"), "bits of the first digest that differs"),
                (format!("{differing} of {prompts}"), "prompts that differ"),
            ],
        };
        let tiles = tiles.into_iter().chain([
            (tokens.to_string(), "tokens compared"),
            (info.board.to_string(), info.core.as_str()),
        ]);
        writeln!(f, "<div class=\"tiles\">")?;
        for (figure, what) in tiles {
            writeln!(
                f,
                "<div class=\"tile\"><b>{}</b><span>{}</span></div>",
                Text(figure),
                Text(what)
            )?;
        }
        writeln!(f, "</div>")
    }

    fn finding(&self) -> Option<(&Named, &Finding)> {
        self.found.prompts.iter().find_map(|named| Some((named, named.verdict.finding.as_ref()?)))
    }

    /// What was compared, and when.
    fn compared(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = self.found.facts.rows();
        if let Some(image) = self.image {
            let dims = &image.header().dims;
            rows.push((
                "model",
                format!(
                    "{} layers of {}, ffn {}, vocabulary {}",
                    dims.layers,
                    dims.dim,
                    dims.ffn,
                    Grouped(dims.vocab.into())
                ),
            ));
        }
        let protocol = self.found.facts.info.protocol;
        rows.push(("firmware", format!("agent of protocol {protocol}")));
        rows.push(("held to", self.found.measure().to_owned()));
        rows.extend(self.found.cost_rows());
        rows.push(("time", format!("{:.2} s in all", self.found.seconds)));
        rows.push(("date", self.date.format("%Y-%m-%d %H:%M UTC").to_string()));
        writeln!(f, "<section>\n<h2>What was compared</h2>")?;
        definitions(f, &rows)?;
        writeln!(f, "</section>")
    }

    /// Pictures of what tokens took.
    fn costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let courses = || self.found.prompts.iter().map(|named| &named.verdict.course);
        let all = Course::joined(courses());
        if all.ticks.is_empty() {
            return Ok(());
        }
        let begins: Vec<usize> = courses()
            .scan(0, |at, course| Some(std::mem::replace(at, *at + course.ticks.len())))
            .collect();
        let (title, unit, each, note) = match self.found.facts.info.tick {
            Tick::Nanoseconds(each) => {
                ("Device: time per token", Unit::Seconds, f64::from(each) * 1e-9, "")
            }
            Tick::Instructions(each) => (
                "Device: instructions per token",
                Unit::Count("instructions"),
                f64::from(each),
                "An emulator counts instructions, not cycles.",
            ),
            Tick::SimulatedCycles(each) => (
                "Device: simulated cycles per token",
                Unit::Count("cycles"),
                f64::from(each),
                "As the simulator counts them: the chip's flash has wait states.",
            ),
        };
        let mut charts = vec![Chart {
            title,
            unit,
            note,
            values: all.ticks.iter().map(|ticks| f64::from(*ticks) * each).collect(),
            begins: &begins,
        }];
        if all.read.iter().any(|bytes| *bytes > 0) {
            charts.push(Chart {
                title: "Device: bytes read per token",
                unit: Unit::Count("bytes"),
                note: "Of a medium that its core cannot address.",
                values: all.read.iter().copied().map(f64::from).collect(),
                begins: &begins,
            });
        }
        if !self.found.golden {
            charts.push(Chart {
                title: "Host: time per token",
                unit: Unit::Seconds,
                note: "A prompt is read in pieces; the tokens of a piece have equal shares.",
                values: all.host.iter().copied().map(f64::from).collect(),
                begins: &begins,
            });
        }
        writeln!(f, "<section class=\"long\">\n<h2>What tokens took</h2>")?;
        charts.iter().try_for_each(|chart| chart.fmt(f))?;
        writeln!(f, "</section>")
    }

    /// Each prompt, and which of its tokens agree.
    fn prompts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prompts = &self.found.prompts;
        let longest = prompts.iter().map(|named| named.verdict.asked).max().unwrap_or_default();
        writeln!(
            f,
            "<section class=\"long\">\n<h2>Agreement over tokens</h2>\n<ul class=\"legend\">\
             <li><i class=\"equal\"></i>equal</li><li><i class=\"differs\"></i>differs</li>\
             <li><i class=\"unreached\"></i>not reached</li>\
             <li>a gap ends the prompt</li></ul>\n<div class=\"scroll\"><table>\n\
             <thead><tr><th>prompt</th><th class=\"number\">read</th>\
             <th class=\"number\">generated</th><th>tokens</th><th>verdict</th></tr></thead>\n<tbody>"
        )?;
        for Named { name, prompt, verdict } in prompts {
            write!(f, "<tr><td><b><bdi>{}</bdi></b>", Text(start_of(name, SHOWN)))?;
            if let Some(tokenizer) = self.tokenizer {
                let text = |tokens: &[u32]| shown(tokenizer, tokens);
                write!(
                    f,
                    "<div class=\"text mono\"><bdi>{}</bdi><em><bdi>{}</bdi></em></div>",
                    Text(text(prompt)),
                    Text(text(&verdict.generated))
                )?;
            }
            let strip = Strip { verdict, longest };
            let (class, said) = match &verdict.first_difference {
                None => ("equal", "equal".to_owned()),
                Some(at) => ("differs", format!("differs at {}", Grouped(at.index as u64))),
            };
            writeln!(
                f,
                "</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
                 <td class=\"strips\">{strip}</td><td class=\"verdict {class}\">{said}</td></tr>",
                Grouped(verdict.prompt_tokens as u64),
                Grouped(verdict.generated.len() as u64),
            )?;
        }
        writeln!(f, "</tbody></table></div>\n</section>")
    }
}

/// What is wrong, and how it was found.
fn wrong(f: &mut fmt::Formatter<'_>, named: &Named, finding: &Finding) -> fmt::Result {
    writeln!(f, "<section class=\"finding\">\n<h2>What is wrong</h2>")?;
    let mut rows = vec![("prompt", start_of(&named.name, SHOWN))];
    rows.extend(finding.rows());
    definitions(f, &rows)?;
    if let Finding::Operation(wrong) = finding {
        let sections = Cells { title: "Digest of each section", digests: &wrong.sections };
        let title = format!("Digest of each operation of {}", wrong.section_name);
        let operations = Cells { title: &title, digests: &wrong.section_operations };
        let values = Differences { host: &wrong.host, device: &wrong.device };
        writeln!(
            f,
            "<p class=\"how\">The device computed the token again, from the host's state before it. Whatever the \
             first operation that differs has read was right.</p>"
        )?;
        write!(f, "{sections}{operations}")?;
        if !wrong.device.is_empty() {
            values.fmt(f)?;
        }
    }
    writeln!(f, "</section>")
}

fn definitions(f: &mut fmt::Formatter<'_>, rows: &[(&str, String)]) -> fmt::Result {
    writeln!(f, "<dl>")?;
    for (name, text) in rows {
        writeln!(f, "<dt>{}</dt><dd><bdi>{}</bdi></dd>", Text(name), Text(text))?;
    }
    writeln!(f, "</dl>")
}

/// The start of a text, in one line.
fn shown(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> String {
    // A token has a byte at least, and a character four at most.
    let most = tokens.iter().take(4 * SHOWN + 4);
    let bytes: Vec<u8> = most.flat_map(|token| tokenizer.decode(*token)).copied().collect();
    start_of(&String::from_utf8_lossy(&bytes).replace('\n', "\u{21b5} "), SHOWN)
}
