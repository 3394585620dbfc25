//! The device that a command talks to.

use std::{fmt::Display, io::Write, path::PathBuf, time::Duration};

use anyhow::{bail, ensure};
use clap::Args;
use rwkv_core::Image;
use rwkv_embedded::agent::protocol::{ImageInfo, SamplerSettings};
use serde::Serialize;

use super::{Prompt, Sampling, TokenizerFile, read_image, show};
use crate::{
    device::{Device, DeviceError, DeviceName, DeviceSpec, Fault, Flip, Options},
    file::Input,
};

/// Options of every command with a device.
#[derive(Debug, Clone, Args)]
pub struct OnDevice {
    /// The device: sim, rp2040js, an emulated board such as qemu:mps2-an386, or `serial:PORT[@BAUD]`
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceName,
    /// Firmware of an emulated board; without it, the project's is built
    #[arg(long, value_name = "ELF")]
    pub firmware: Option<PathBuf>,
    /// Seconds that the device may be silent
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

impl OnDevice {
    /// Starts it with an image in its flash, or finds it on a serial port with the image there
    /// already. A simulated device may flip a bit of the image, or compute one wrong.
    ///
    /// # Errors
    /// See [`Device::named`]; also firmware for a device that takes none.
    pub fn open(
        &self,
        image: &Image<'_>,
        flip: Option<Flip>,
        fault: Option<Fault>,
    ) -> anyhow::Result<Device> {
        self.check_firmware()?;
        let (timeout, firmware) = (self.timeout(), self.firmware.clone());
        Ok(Device::named(&self.device, image, &Options { timeout, firmware, flip, fault })?)
    }

    fn check_firmware(&self) -> anyhow::Result<()> {
        ensure!(
            self.firmware.is_none()
                || !matches!(
                    self.device,
                    DeviceName::Started(DeviceSpec::Sim) | DeviceName::Serial(_)
                ),
            "--firmware is for an emulated board, which {} is not; give --device, or leave it out",
            self.device
        );
        Ok(())
    }

    /// Finds it on a serial port, with an image in its flash that is not at hand.
    ///
    /// # Errors
    /// See [`Device::attached`]; also a device that is on no port, and what a board on the desk
    /// cannot do.
    pub fn attach(
        &self,
        image: &ImageInfo,
        flip: Option<Flip>,
        fault: Option<Fault>,
    ) -> anyhow::Result<Device> {
        self.check_firmware()?;
        let DeviceName::Serial(port) = &self.device else {
            bail!("{} starts with an image in its flash: give the image, too", self.device)
        };
        ensure!(flip.is_none() && fault.is_none(), DeviceError::FlipUnsupported);
        Ok(Device::attached(port, image, self.timeout())?)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.max(1))
    }

    /// The file that it reads beside the image.
    pub fn input(&self) -> Option<Input<'_>> {
        self.firmware.as_deref().map(|path| ("firmware", path))
    }
}

/// Options of a command that measures tokens on a device.
#[derive(Debug, Clone, Args)]
pub struct Measured {
    /// The image
    pub image: PathBuf,
    /// The device
    #[command(flatten)]
    pub at: OnDevice,
    /// The prompt
    #[command(flatten)]
    pub prompt: Prompt,
    /// The tokenizer
    #[command(flatten)]
    pub tokenizer: TokenizerFile,
    /// Tokens that follow the prompt
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 64)]
    pub tokens: u32,
    /// How they are chosen
    #[command(flatten)]
    pub sampling: Sampling,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Measured {
    /// Starts the device and has it measured, with the prompt and how tokens are chosen.
    ///
    /// # Errors
    /// Those of the files and of the device, and those of `measure`.
    pub fn on_device<T>(
        &self,
        measure: impl FnOnce(&mut Device, &Image<'_>, SamplerSettings, &[u32]) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let file = read_image(&self.image)?;
        let image = file.open_named(&self.image)?;
        let tokenizer = self.tokenizer.open(&image)?;
        let prompt = self.prompt.tokens(&image, &tokenizer)?;
        let sampler = self.sampling.settings(&image, &tokenizer)?;
        let mut device = self.at.open(&image, None, None)?;
        let figures = measure(&mut device, &image, sampler, &prompt)?;
        // The figures stand, however the device ends.
        let _ = device.halt();
        Ok(figures)
    }

    /// Prints what was measured.
    ///
    /// # Errors
    /// Those of the output.
    pub fn show(&self, figures: &(impl Display + Serialize)) -> anyhow::Result<()> {
        if self.json {
            let json = serde_json::to_string_pretty(figures)?;
            show(|out| writeln!(out, "{json}"))
        } else {
            show(|out| write!(out, "{figures}"))
        }
    }

    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = Input<'_>> {
        let files = self.prompt.input().into_iter().chain(self.tokenizer.input());
        files.chain(self.at.input()).chain([("image", self.image.as_path())])
    }
}
