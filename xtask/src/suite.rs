//! `cargo xtask suite`: the property cases of the kernels, on every core.

use anyhow::{Context, ensure};
use clap::Parser;

use crate::{
    cores::{CORES, Core, Run},
    job, setup,
};

/// Compare the kernels of every core with the scalar reference, bit for bit
#[derive(Debug, Parser)]
pub(crate) struct Suite {
    /// Cases per operation
    #[arg(long, default_value_t = 200)]
    cases: u32,
    /// Only these cores, with commas between them
    #[arg(long, value_delimiter = ',')]
    cores: Vec<String>,
    /// Fail where a core cannot be run, instead of leaving it out
    #[arg(long)]
    require: bool,
}

impl Suite {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        setup::rust()?;
        let mut cores = Vec::new();
        let mut skipped = 0;
        for core in Core::select(&self.cores)? {
            match core.missing() {
                Some(reason) => {
                    println!("skipped: {}, since {reason}", core.name);
                    skipped += 1;
                }
                None => cores.push((core, core.build()?)),
            }
        }
        let cases = self.cases.to_string();
        let outputs = job::parallel(&cores, |(core, program)| {
            let args = ["suite", &cases];
            let run = Run { program, args: &args, window: None, count: false };
            core.probe(&run).with_context(|| core.name.to_owned())
        })?;
        let mut expected = None;
        for ((core, _), output) in cores.iter().zip(&outputs) {
            println!("{}: {}", core.name, output.trim_end().replace('\n', "; "));
            // The scalar functions have no second implementation to be compared with on a core.
            let functions = output.lines().find(|line| line.starts_with("functions "));
            let expected = expected.get_or_insert(functions);
            ensure!(
                functions.is_some() && functions == *expected,
                "the functions of {} differ",
                core.name
            );
        }
        ensure!(!self.require || skipped == 0, "{skipped} of {} cores were skipped", CORES.len());
        Ok(())
    }
}
