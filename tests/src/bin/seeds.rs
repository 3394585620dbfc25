//! Writes the files that fuzzing starts from, a folder per target, into the folder that is named.

use std::{env, fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1) else {
        eprintln!("error: name the folder that the seeds go to");
        return ExitCode::FAILURE;
    };
    for (target, seeds) in rwkv_tests::seeds::all() {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder).expect("a folder");
        for (index, bytes) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{index}")), bytes).expect("written");
        }
    }
    ExitCode::SUCCESS
}
