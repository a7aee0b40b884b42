//! Memory for intermediate results that operations share.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use anymlx_hal::StorageMode;

use crate::{DType, MlxBuffer, MlxDevice, Result};

/// One buffer for each purpose, as large as was ever asked for, kept as long as the device.
///
/// Commands that use the same purpose run one after the other, so a user must write what it reads in the
/// same encoder. That costs nothing where each command fills the device anyway, and keeps a model's largest
/// intermediate result from being allocated once for each layer.
#[derive(Debug, Default)]
pub(crate) struct SharedScratch {
    buffers: Mutex<HashMap<&'static str, MlxBuffer>>,
}

impl SharedScratch {
    /// `byte_len` bytes of private storage. Handles given out before stay valid when the buffer grows.
    ///
    /// # Errors
    /// As [`MlxDevice::alloc_buffer`].
    pub(crate) fn take(&self, device: &MlxDevice, purpose: &'static str, byte_len: usize) -> Result<MlxBuffer> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = buffers.get(purpose)
            && buffer.data_byte_len() >= byte_len
        {
            return buffer.try_slice_view(0, byte_len);
        }
        // The old buffer goes first where no command uses it any more.
        buffers.remove(purpose);
        let buffer = device.alloc_buffer_with(byte_len, DType::U8, vec![byte_len], StorageMode::Private)?;
        buffers.insert(purpose, buffer.clone());
        Ok(buffer)
    }
}
