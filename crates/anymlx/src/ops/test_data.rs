//! What tests of operations share beside the devices.

use crate::{CommandEncoder, DType, MlxBuffer, MlxDevice, Result};

/// Records `commands`, runs them and waits.
#[track_caller]
pub(crate) fn run(device: &MlxDevice, commands: impl FnOnce(&mut CommandEncoder) -> Result<()>) {
    try_run(device, commands).unwrap();
}

/// As [`run`], with what went wrong.
pub(crate) fn try_run(device: &MlxDevice, commands: impl FnOnce(&mut CommandEncoder) -> Result<()>) -> Result<()> {
    let mut encoder = device.command_encoder()?;
    commands(&mut encoder)?;
    encoder.commit_and_wait()
}

/// The message with which recording fails.
#[track_caller]
pub(crate) fn refusal(commands: impl FnOnce(&mut CommandEncoder) -> Result<()>) -> String {
    let device = MlxDevice::cpu().unwrap();
    commands(&mut device.command_encoder().unwrap()).unwrap_err().to_string()
}

/// Zeros on the device that [`refusal`] uses.
pub(crate) fn zeros<const N: usize>(dtype: DType, shape: [usize; N]) -> MlxBuffer {
    MlxDevice::cpu().unwrap().zeros(dtype, shape).unwrap()
}

/// A buffer of `f32`.
pub(crate) fn floats<const N: usize>(device: &MlxDevice, values: &[f32], shape: [usize; N]) -> MlxBuffer {
    device.buffer_from_slice(values, DType::F32, shape).unwrap()
}
