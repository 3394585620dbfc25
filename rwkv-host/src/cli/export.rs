//! `rwkv export`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    export::{Export, Start},
    file,
};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The image
    image: PathBuf,
    /// The checkpoint to write
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,
}

pub(super) fn command(args: &ExportArgs) -> anyhow::Result<()> {
    file::check_output(&args.output, [("image", args.image.as_path())])?;
    let file = super::read_image(&args.image)?;
    let image = file.open_named(&args.image)?;
    let export = Export::new(&image)?;
    let bar = super::progress(export.len() as u64, "exporting");
    export.write(&args.output, || bar.inc(1))?;
    bar.finish_and_clear();
    eprintln!("{}: {} tensors in f32", args.output.display(), export.len());
    if export.start() == Start::LeftOut {
        eprintln!(
            "the state that the image begins at is left out: no checkpoint holds more than the recurrent rows of versions 5 to 7"
        );
    }
    let eps = image.header().dims.group_norm_eps;
    if image.header().version.has_heads() && eps != 64e-5 {
        eprintln!(
            "the group norm's epsilon is {eps} and not the official 64e-5: tell it to whatever reads the file (rwkv convert: --group-norm-eps {eps})"
        );
    }
    Ok(())
}
