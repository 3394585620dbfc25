//! The tool `rwkv`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match rwkv_host::cli::run(rwkv_host::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
