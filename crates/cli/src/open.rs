//! From shared options to a device and a model.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anymlx::{CpuDeviceOptions, DeviceSelector, MlxDevice, env};
use anymlx_lm::Model;

use crate::{
    arguments::Shared,
    failure::{Failure, Outcome},
    models,
};

/// Opens the device that the options name.
pub fn device(shared: &Shared) -> Outcome<MlxDevice> {
    let named = match &shared.device {
        Some(name) => Some(name.clone()),
        None => env::device()?,
    };
    let selector: Option<DeviceSelector> = named.as_deref().map(str::parse).transpose()?;
    let Some(threads) = shared.threads else {
        return Ok(match selector {
            Some(selector) => MlxDevice::open(selector)?,
            None => MlxDevice::new()?,
        });
    };
    match selector {
        None | Some(DeviceSelector::Cpu) => Ok(MlxDevice::cpu_with(&CpuDeviceOptions {
            threads: Some(threads),
            level: env::cpu_level()?,
            lock_memory: env::lock_memory()?,
            keep_files_mapped: !env::huge_pages()?,
            ..CpuDeviceOptions::default()
        })?),
        Some(_) => Err(Failure::message("--threads is for the cpu device only")),
    }
}

/// Where the model's file is, fetched if need be.
pub fn model_path(shared: &Shared) -> Outcome<PathBuf> {
    Ok(models::resolve(shared.model.as_deref())?)
}

/// Loads the model.
pub fn model(shared: &Shared, device: &MlxDevice) -> Outcome<Model> {
    Ok(Model::open(model_path(shared)?, device)?)
}

/// The text of an argument; `-` or nothing is standard input.
pub fn text(argument: Option<&str>) -> Outcome<String> {
    match argument {
        Some(text) if text != "-" => Ok(text.to_owned()),
        _ => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::message(format!("read standard input: {error}")))?;
            Ok(text)
        }
    }
}

/// A whole text file.
pub fn text_file(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| Failure::message(format!("read `{}`: {error}", path.display())))
}
