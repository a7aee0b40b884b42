//! What systems without Metal say of it.

use anymlx_hal::DeviceInfo;

use crate::{MlxDevice, MlxError, Result};

/// No device.
pub(crate) fn default_device() -> Result<MlxDevice> {
    Err(MlxError::DeviceNotFound("metal: this system has no Metal; use cpu".into()))
}

/// No devices.
pub(crate) fn list() -> Vec<DeviceInfo> {
    Vec::new()
}
