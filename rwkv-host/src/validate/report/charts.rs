//! Pictures of a validation, as SVG.

use std::fmt;

use super::escape::Text;
use crate::{
    cli::Grouped,
    validate::{Compared, Verdict},
};

/// Of every picture, in units of its own; on a page they are as wide as there is room.
const WIDTH: f64 = 720.0;

/// Tokens of a prompt: which agree, which differs, which were not reached. `longest` tokens are as
/// wide as the picture.
pub(super) struct Strip<'a> {
    pub verdict: &'a Verdict,
    pub longest: usize,
}

impl Strip<'_> {
    const WIDTH: f64 = 320.0;
    const HEIGHT: f64 = 18.0;
    /// So that one of thousands is seen.
    const LEAST: f64 = 4.0;
}

impl fmt::Display for Strip<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, longest } = self;
        let (width, height) = (Self::WIDTH, Self::HEIGHT);
        let at = |tokens: usize| tokens as f64 / (*longest).max(1) as f64 * width;
        let differs = verdict.first_difference.as_ref().map(|at| at.index);
        let equal = differs.unwrap_or(verdict.tokens);
        let label = match differs {
            Some(index) => format!("equal up to token {index}, which differs"),
            None => format!("all {} tokens are equal", verdict.tokens),
        };
        write!(
            f,
            "<svg class=\"strip\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{label}\"><title>{label}</title>"
        )?;
        let mut part = |class: &str, from: f64, to: f64| {
            let (width, height) = ((to - from).max(0.0), height - 4.0);
            write!(
                f,
                "<rect class=\"{class}\" x=\"{from:.2}\" y=\"2\" width=\"{width:.2}\" \
                 height=\"{height}\" rx=\"2\"/>"
            )
        };
        part("unreached", 0.0, at(verdict.asked))?;
        part("equal", 0.0, at(equal))?;
        if let Some(index) = differs {
            let from = at(index).min(Self::WIDTH - Self::LEAST);
            part("differs", from, at(index + 1).max(from + Self::LEAST))?;
        }
        if verdict.prompt_tokens < verdict.asked {
            let x = at(verdict.prompt_tokens);
            write!(f, "<path class=\"seam\" d=\"M{x:.2} 0V{height}\"/>")?;
        }
        write!(f, "</svg>")
    }
}

/// What tokens took, one after the other.
pub(super) struct Chart<'a> {
    pub title: &'a str,
    pub unit: Unit,
    pub note: &'a str,
    pub values: Vec<f64>,
    /// Tokens at which a prompt begins.
    pub begins: &'a [usize],
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Count(&'static str),
}

impl Unit {
    /// A factor and a name, so that numbers up to `top` read well.
    fn scale(self, top: f64) -> (f64, &'static str) {
        match self {
            Self::Count(name) => (1.0, name),
            Self::Seconds if top < 1e-3 => (1e6, "µs"),
            Self::Seconds if top < 1.0 => (1e3, "ms"),
            Self::Seconds => (1.0, "s"),
        }
    }

    /// A value in words.
    fn shown(self, value: f64) -> String {
        let (factor, name) = self.scale(value);
        let value = value * factor;
        match self {
            Self::Count(_) => format!("{} {name}", Grouped(value.round() as u64)),
            Self::Seconds => {
                let digits = if value < 10.0 { 2 } else { 0 };
                format!("{value:.digits$} {name}")
            }
        }
    }
}

impl Chart<'_> {
    const LEFT: f64 = 76.0;
    const RIGHT: f64 = 8.0;
    const TOP: f64 = 22.0;
    const BOTTOM: f64 = 22.0;
    const HEIGHT: f64 = 180.0;
    /// More tokens than these share a column, which shows the least, the mean and the most.
    const COLUMNS: usize = 360;
    /// More beginnings than these would be a grey area.
    const SEAMS: usize = 48;
    const TICKS: f64 = 4.0;
    /// So many times what is usual is cut off.
    const FAR: f64 = 3.0;

    /// The value that a share of all does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((share * last as f64).round() as usize).copied().unwrap_or_default()
    }

    /// What the picture shows at most: a few tokens that took far more than all others would leave
    /// these a flat line.
    fn top(&self) -> f64 {
        let (most, usual) = (self.quantile(1.0), self.quantile(0.98));
        if most > Self::FAR * usual { Self::FAR / 2.0 * usual } else { most }
    }

    /// The least, the mean and the most of each column.
    fn columns(&self) -> Vec<[f64; 3]> {
        let count = self.values.len().min(Self::COLUMNS);
        let of = |column: usize| {
            let range = |n: usize| n * self.values.len() / count;
            let values = &self.values[range(column)..range(column + 1)];
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            [least, values.iter().sum::<f64>() / values.len() as f64, most]
        };
        (0..count).map(of).collect()
    }
}

/// 1, 2 or 5 times a power of ten: so far apart are `ticks` marks up to `top`.
fn step(top: f64, ticks: f64) -> f64 {
    let rough = (top / ticks).max(f64::MIN_POSITIVE);
    let power = 10_f64.powi(rough.log10().floor() as i32);
    let nice = [1.0, 2.0, 5.0].into_iter().find(|nice| nice * power >= rough);
    nice.unwrap_or(10.0) * power
}

/// A number without digits that say nothing.
fn number(value: f64, step: f64) -> String {
    if step >= 1.0 {
        return Grouped(value.round() as u64).to_string();
    }
    let digits = (-step.log10()).ceil().clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        let (factor, unit) = self.unit.scale(self.top());
        let top = Some(self.top() * factor).filter(|top| *top > 0.0).unwrap_or(1.0);
        let step = step(top, Self::TICKS);
        let height = (top / step).ceil() * step;
        let (right, bottom) = (WIDTH - Self::RIGHT, Self::HEIGHT - Self::BOTTOM);
        let x = |share: f64| Self::LEFT + share * (right - Self::LEFT);
        let y = |value: f64| bottom - value.min(height) / height * (bottom - Self::TOP);

        let Self { title, note, values, begins, .. } = self;
        let usual = self.unit.shown(self.quantile(0.5));
        let most = self.unit.shown(self.quantile(1.0));
        writeln!(
            f,
            "<figure class=\"chart\"><figcaption><b>{}</b> <span>{usual} (median), {most} at most. {}</span>\
             </figcaption>",
            Text(title),
            Text(note)
        )?;
        write!(
            f,
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
            Self::HEIGHT,
            Text(title)
        )?;
        let ticks = (0..).map(|tick| f64::from(tick) * step).take_while(|at| *at <= height * 1.001);
        for tick in ticks {
            let (at, label) = (y(tick), number(tick, step));
            write!(
                f,
                "<path class=\"grid\" d=\"M{} {at:.1}H{right}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                Self::LEFT,
                Self::LEFT - 8.0,
                at + 4.0
            )?;
        }
        if begins.len() <= Self::SEAMS {
            for begin in begins.iter().filter(|begin| **begin > 0) {
                let at = x(*begin as f64 / values.len() as f64);
                write!(f, "<path class=\"seam\" d=\"M{at:.1} {}V{bottom}\"/>", Self::TOP)?;
            }
        }
        let middle = |column: usize| x((column as f64 + 0.5) / columns.len() as f64);
        if columns.len() < values.len() {
            write!(f, "<path class=\"band\" d=\"")?;
            let upper = columns.iter().enumerate().map(|(at, [.., most])| (at, most));
            let lower = columns.iter().enumerate().rev().map(|(at, [least, ..])| (at, least));
            for (index, (column, value)) in upper.chain(lower).enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                write!(f, "{command}{:.1} {:.1}", middle(column), y(value * factor))?;
            }
            write!(f, "Z\"/>")?;
        }
        write!(f, "<path class=\"line\" d=\"")?;
        for (column, [_, mean, _]) in columns.iter().enumerate() {
            let command = if column == 0 { 'M' } else { 'L' };
            write!(f, "{command}{:.1} {:.1}", middle(column), y(mean * factor))?;
        }
        let last = Grouped(values.len() as u64);
        writeln!(
            f,
            "\"/><text class=\"tick\" x=\"{}\" y=\"{}\">{unit}</text>\
             <text class=\"tick\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">{last} tokens</text></svg>\
             </figure>",
            Self::LEFT,
            Self::TOP - 10.0,
            Self::HEIGHT - 6.0,
        )
    }
}

/// Digests in the order in which they are computed.
pub(super) struct Cells<'a> {
    pub title: &'a str,
    pub digests: &'a [Compared],
}

impl fmt::Display for Cells<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEIGHT: f64 = 34.0;
        /// Of a letter, about.
        const LETTER: f64 = 7.0;
        let Self { title, digests } = self;
        write!(
            f,
            "<figure><figcaption><b>{}</b></figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-label=\"{}\">",
            Text(title),
            Text(title)
        )?;
        let width = WIDTH / digests.len().max(1) as f64;
        for (index, Compared { name, agrees }) in digests.iter().enumerate() {
            let (class, said) = match agrees {
                Some(true) => ("equal", "equal"),
                Some(false) => ("differs", "differs"),
                None => ("unreached", "not computed"),
            };
            let x = index as f64 * width;
            write!(
                f,
                "<g><title>{}: {said}</title><rect class=\"{class}\" x=\"{:.2}\" y=\"1\" \
                 width=\"{:.2}\" height=\"{}\" rx=\"3\"/>",
                Text(name),
                x + 1.0,
                (width - 2.0).max(0.5),
                HEIGHT - 2.0
            )?;
            // Its name, its number, or nothing, as there is room.
            let number = index.to_string();
            let label = [name, &number].into_iter().find(|s| s.len() as f64 * LETTER < width);
            if let Some(label) = label {
                write!(
                    f,
                    "<text class=\"on {class}\" x=\"{:.2}\" y=\"21\" text-anchor=\"middle\">{}</text>",
                    x + width / 2.0,
                    Text(label)
                )?;
            }
            write!(f, "</g>")?;
        }
        writeln!(f, "</svg></figure>")
    }
}

/// How far apart the values of an operation are.
pub(super) struct Differences<'a> {
    pub host: &'a [f32],
    pub device: &'a [f32],
}

impl Differences<'_> {
    const COLUMNS: usize = 360;

    fn all(&self) -> Vec<f32> {
        let apart = |(host, device): (&f32, &f32)| {
            let apart = (host - device).abs();
            // No number is as far as can be; a zero of the other sign is no distance, and differs.
            if apart.is_nan() { f32::INFINITY } else { apart }
        };
        self.host.iter().zip(self.device).map(apart).collect()
    }
}

impl fmt::Display for Differences<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEIGHT: f64 = 96.0;
        const FOOT: f64 = 18.0;
        let all = self.all();
        let largest = all.iter().copied().fold(0.0, f32::max);
        let differing =
            self.host.iter().zip(self.device).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let title = format!(
            "Values: {differing} of {} differ, by {largest:e} at most",
            Grouped(self.host.len() as u64)
        );
        write!(
            f,
            "<figure><figcaption><b>{title}</b></figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        )?;
        let (floor, count) = (HEIGHT - FOOT, all.len().clamp(1, Self::COLUMNS));
        write!(f, "<path class=\"grid\" d=\"M0 {floor}H{WIDTH}\"/>")?;
        let width = WIDTH / count as f64;
        for column in 0..count {
            let range = |n: usize| n * all.len() / count;
            let values = &all[range(column)..range(column + 1)];
            let most = values.iter().copied().fold(0.0, f32::max);
            if most == 0.0 {
                continue;
            }
            let share = if most.is_finite() { f64::from(most / largest) } else { 1.0 };
            let height = (share * (floor - 6.0)).max(2.0);
            write!(
                f,
                "<rect class=\"differs\" x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{height:.2}\"/>",
                column as f64 * width,
                floor - height,
                (width - 0.4).max(2.0)
            )?;
        }
        let last = all.len().saturating_sub(1);
        writeln!(
            f,
            "<text class=\"tick\" x=\"0\" y=\"{}\">value 0</text>\
             <text class=\"tick\" x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">{last}</text></svg></figure>",
            HEIGHT - 4.0,
            HEIGHT - 4.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!([0.7, 3.0, 41.0, 1.1e6].map(|top| step(top, 4.0)), [0.2, 1.0, 20.0, 5e5]);
        assert_eq!(number(1_500_000.0, 5e5), "1,500,000");
        assert_eq!(number(0.4, 0.2), "0.4");
        assert_eq!(number(0.05, 0.05), "0.05");
    }

    #[test]
    fn what_is_far_from_all_others_is_cut_off() {
        let mut values = vec![2.0; 999];
        let chart = |values: &[f64]| Chart {
            title: "",
            unit: Unit::Seconds,
            note: "",
            values: values.to_vec(),
            begins: &[],
        };
        assert_eq!(chart(&values).top(), 2.0);
        values.push(50.0);
        assert_eq!(chart(&values).top(), 3.0);
        assert!(chart(&values).to_string().contains("2.00 s (median), 50 s at most"));
        // A zero or two is a picture as well.
        assert!(!chart(&[0.0, 0.0]).to_string().contains("NaN"));
    }

    #[test]
    fn many_tokens_share_columns_and_few_have_their_own() {
        let chart = |count: usize| Chart {
            title: "",
            unit: Unit::Seconds,
            note: "",
            values: (0..count).map(|value| value as f64).collect(),
            begins: &[],
        };
        assert_eq!(chart(3).columns(), [[0.0; 3], [1.0; 3], [2.0; 3]]);
        let columns = chart(100_000).columns();
        assert_eq!((columns.len(), columns[0][0]), (360, 0.0));
        assert_eq!(columns[359][2], 99_999.0);
        assert!(columns.iter().all(|[least, mean, most]| least < mean && mean < most));
    }
}
