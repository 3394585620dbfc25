//! The device that a command talks to.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Args;
use rwkv_core::Image;

use crate::{
    device::{Device, DeviceSpec, Flip, Options},
    file::Input,
};

/// Options of every command with a device.
#[derive(Debug, Clone, Args)]
pub struct OnDevice {
    /// The device: sim, rp2040js, or an emulated board such as qemu:mps2-an386
    #[arg(long, value_name = "DEVICE", default_value = "sim")]
    pub device: DeviceSpec,
    /// Firmware of an emulated board; without it, the project's is built
    #[arg(long, value_name = "ELF")]
    pub firmware: Option<PathBuf>,
    /// Seconds that the device may be silent
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

impl OnDevice {
    /// Starts it with an image in its flash, of which a simulated device may flip a bit.
    ///
    /// # Errors
    /// See [`Device::open`]; also firmware for the simulated device, which has none.
    pub fn open(&self, image: &Image<'_>, flip: Option<Flip>) -> anyhow::Result<Device> {
        ensure!(
            self.firmware.is_none() || self.device != DeviceSpec::Sim,
            "--firmware is for an emulated board, and sim has none; give --device, or leave it out"
        );
        let timeout = Duration::from_secs(self.timeout.max(1));
        let options = Options { timeout, firmware: self.firmware.clone(), flip };
        Ok(Device::open(self.device, image, &options)?)
    }

    /// The file that it reads beside the image.
    pub fn input(&self) -> Option<Input<'_>> {
        self.firmware.as_deref().map(|path| ("firmware", path))
    }
}
