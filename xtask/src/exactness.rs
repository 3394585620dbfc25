//! `cargo xtask exactness`: the same bits on every core.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::json;

use crate::{
    cores::{Core, Run},
    job, setup,
    synthetic::{LANES, PAIRS, Synthetic, VERSIONS, WEIGHTS},
};

/// Run random models on every core and compare the bits of state and logits
#[derive(Debug, Parser)]
pub(crate) struct Exactness {
    /// Tokens per model
    #[arg(long, default_value_t = 2000)]
    tokens: u32,
    /// Only these cores, with commas between them
    #[arg(long, value_delimiter = ',')]
    cores: Vec<String>,
    /// Only these weights, with commas between them
    #[arg(long, value_delimiter = ',', value_parser = WEIGHTS.map(|(weights, _)| weights))]
    weights: Vec<String>,
    /// Fail where a core cannot be run, instead of leaving it out
    #[arg(long)]
    require: bool,
    /// Write the digests to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A model in a format.
struct Subject {
    name: String,
    image: PathBuf,
    tiny: bool,
    /// The one whose digests must be the same: one model packed in two ways.
    same_as: Option<usize>,
}

/// Digests after growing numbers of tokens.
type Stream = Vec<String>;

impl Exactness {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        let subjects = self.subjects()?;
        let (mut cores, mut skipped) = (Vec::new(), Vec::new());
        for core in Core::select(&self.cores)? {
            match core.missing() {
                Some(reason) => skipped.push((core, reason)),
                None => cores.push((core, core.build()?)),
            }
        }
        let streams = self.streams(&cores, &subjects)?;
        let verdict = verdict(&cores, &subjects, &streams);
        print!("{}", table(&cores, &subjects, &streams));
        for (core, reason) in &skipped {
            println!("skipped: {}, since {reason}", core.name);
        }
        let runs = streams.len();
        match &verdict {
            Ok(()) => println!("equal: {runs} runs of {} tokens", self.tokens),
            Err(error) => println!("DIFFERENT: {error}"),
        }
        if let Some(path) = &self.json {
            let digests: BTreeMap<_, BTreeMap<_, _>> = cores
                .iter()
                .enumerate()
                .map(|(c, (core, _))| {
                    let row = subjects.iter().enumerate().filter_map(|(m, subject)| {
                        Some((subject.name.clone(), streams.get(&(c, m))?.last()?.clone()))
                    });
                    (core.name, row.collect())
                })
                .collect();
            let skipped: BTreeMap<_, _> =
                skipped.iter().map(|(core, reason)| (core.name, reason)).collect();
            let report = json!({
                "tokens": self.tokens,
                "equal": verdict.is_ok(),
                "digests": digests,
                "skipped": skipped,
            });
            fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        verdict?;
        ensure!(!self.require || skipped.is_empty(), "cores were skipped");
        Ok(())
    }

    /// Every run that fits, several at once. A `microbit` has RAM for the tiny models only, and its
    /// flash does not hold all of them.
    fn streams(
        &self,
        cores: &[(Core, PathBuf)],
        subjects: &[Subject],
    ) -> anyhow::Result<BTreeMap<(usize, usize), Stream>> {
        let fits = |core: &Core, subject: &Subject| {
            let bytes = fs::metadata(&subject.image).map_or(0, |file| file.len());
            (core.name != "m0" || subject.tiny) && bytes <= core.room() as u64
        };
        let jobs: Vec<(usize, usize)> = (0..subjects.len())
            .flat_map(|m| (0..cores.len()).map(move |c| (c, m)))
            .filter(|(c, m)| fits(&cores[*c].0, &subjects[*m]))
            .collect();
        let tokens = self.tokens.to_string();
        let streams = job::parallel(&jobs, |(c, m)| {
            let ((core, program), subject) = (&cores[*c], &subjects[*m]);
            let args = ["exactness", &tokens];
            let run = Run { program, args: &args, window: Some(&subject.image), count: false };
            let output = core.probe(&run);
            let output = output.with_context(|| format!("{} on {}", subject.name, core.name))?;
            Ok(digests(&output))
        })?;
        Ok(jobs.into_iter().zip(streams).collect())
    }

    /// The models to run: those that share their digests stand side by side.
    fn subjects(&self) -> anyhow::Result<Vec<Subject>> {
        let wanted = |name: &str| self.weights.is_empty() || self.weights.iter().any(|w| w == name);
        let mut subjects: Vec<Subject> = Vec::new();
        for tiny in [true, false] {
            for version in VERSIONS {
                let model = Synthetic { version, tiny };
                for (weights, options) in WEIGHTS.into_iter().filter(|(name, _)| wanted(name)) {
                    let pairs = format!("{} {PAIRS}", model.name());
                    subjects.push(Subject {
                        name: format!("{} {weights}", model.name()),
                        image: model.image(weights, options)?,
                        tiny,
                        same_as: match weights {
                            LANES => subjects.iter().position(|subject| subject.name == pairs),
                            _ => None,
                        },
                    });
                }
            }
        }
        Ok(subjects)
    }
}

/// The digests among the lines that the probe printed.
fn digests(output: &str) -> Stream {
    let lines = output.lines().filter_map(|line| line.strip_prefix("digest "));
    lines.map(str::to_owned).collect()
}

/// Compares every run of a model with the first.
fn verdict(
    cores: &[(Core, PathBuf)],
    subjects: &[Subject],
    streams: &BTreeMap<(usize, usize), Stream>,
) -> anyhow::Result<()> {
    for (m, subject) in subjects.iter().enumerate().filter(|(_, subject)| subject.tiny) {
        for (c, (core, _)) in cores.iter().enumerate() {
            ensure!(
                streams.contains_key(&(c, m)),
                "{} has no room for {}",
                core.name,
                subject.name
            );
        }
    }
    let first = |model: usize| streams.iter().find(|((_, m), _)| *m == model);
    for ((c, m), stream) in streams {
        let Some(((other, _), expected)) = first(subjects[*m].same_as.unwrap_or(*m)) else {
            continue;
        };
        let differs = stream.iter().zip(expected).find(|(found, expected)| found != expected);
        let tokens = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        ensure!(
            !stream.is_empty() && stream.len() == expected.len(),
            "{} printed {} digests on {}, not {}",
            cores[*c].0.name,
            stream.len(),
            subjects[*m].name,
            expected.len()
        );
        if let Some((found, _)) = differs {
            anyhow::bail!(
                "{} on {} and {}, within the first {} tokens",
                subjects[*m].name,
                cores[*c].0.name,
                cores[*other].0.name,
                tokens(found)
            );
        }
    }
    Ok(())
}

/// A row per model, a column per core: the first half of every digest.
fn table(
    cores: &[(Core, PathBuf)],
    subjects: &[Subject],
    streams: &BTreeMap<(usize, usize), Stream>,
) -> String {
    let mut text = String::from("| model |");
    cores.iter().for_each(|(core, _)| text.push_str(&format!(" {} |", core.name)));
    text.push_str(&format!("\n|---|{}\n", "---|".repeat(cores.len())));
    for (m, subject) in subjects.iter().enumerate() {
        text.push_str(&format!("| {} |", subject.name));
        for c in 0..cores.len() {
            let last = streams.get(&(c, m)).and_then(|stream| stream.last());
            let digest = last.and_then(|line| line.split(' ').nth(1));
            text.push_str(&format!(" {} |", digest.and_then(|d| d.get(..8)).unwrap_or("")));
        }
        text.push('\n');
    }
    text
}
