//! The project's jobs.

mod bench;
mod c;
mod cores;
mod cuda;
mod demo;
mod document;
mod embassy;
mod exactness;
mod examples;
mod figures;
mod formats;
mod fuzz;
mod job;
mod llama;
mod panics;
mod probe;
mod profile;
mod roofline;
mod setup;
mod size;
mod suite;
mod synthetic;
mod test;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// The project's jobs; each sets up what it needs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Job {
    /// Let the emulated Cortex-M4 write a tune, and prove every bit of it
    Demo(demo::Demo),
    /// Check that no kernel reaches a panic or an allocator
    Panics,
    /// Run a mode of the probe on a core
    Probe(probe::Probe),
    /// Run random models on every core and compare the bits of state and logits
    Exactness(exactness::Exactness),
    /// Count the instructions of the kernels and of tokens on every emulated board
    Bench(bench::Bench),
    /// Build the C interface, and prove that firmware in C computes the host's bits
    C(c::C),
    /// Compile the CUDA kernels for every architecture, and list what each of them takes
    Cuda(cuda::Cuda),
    /// Build the program that compares the bits of a GPU with the CPU's and times both, and run it
    CudaCheck,
    /// Generate tokens in an embassy executor beside a task that blinks, and prove their bits
    Embassy,
    /// Build the example firmware, and prove that it writes the host's text
    Examples(examples::Examples),
    /// Measure what rwkv-core takes of a board's flash and write the table in the README
    Size,
    /// Compare the kernels of every core with the scalar reference, bit for bit
    Suite(suite::Suite),
    /// Give every reader hostile files, changed by what they reach
    Fuzz(fuzz::Fuzz),
    /// Run everything that CI runs
    Test,
    /// Check formatting and lints of all workspaces
    Lint,
    /// Measure models on every emulated board and write the table in the README
    Figures(figures::Figures),
    /// Measure the host beside llama.cpp, on the same random model
    Llama(llama::Llama),
    /// Say what an emulated board spends a token of a shipped model on
    Profile(profile::Profile),
}

fn main() -> ExitCode {
    let result = match Job::parse() {
        Job::Demo(demo) => demo.run(),
        Job::Panics => panics::run(),
        Job::Probe(probe) => probe.run(),
        Job::Exactness(exactness) => exactness.run(),
        Job::Bench(bench) => bench.run(),
        Job::C(c) => c.run(),
        Job::Cuda(cuda) => cuda.run(),
        Job::CudaCheck => cuda::check(),
        Job::Embassy => embassy::run(),
        Job::Examples(examples) => examples.run(),
        Job::Size => size::run(),
        Job::Suite(suite) => suite.run(),
        Job::Fuzz(fuzz) => fuzz.run(),
        Job::Test => test::run(),
        Job::Lint => test::lint_only(),
        Job::Figures(figures) => figures.run(),
        Job::Llama(llama) => llama.run(),
        Job::Profile(profile) => profile.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}
