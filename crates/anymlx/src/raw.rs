//! Memory from outside, and memory for foreign code.

use std::{ffi::c_void, fmt};

use anymlx_hal::{BackendKind, Context, ForeignMemory, Owner, Storage};

use crate::{MlxDevice, MlxError, Result};

/// Memory under a buffer, for passing to and from foreign code.
///
/// Made from memory that someone else owns by [`RawBuffer::from_host`] (on other backends by their
/// native objects), or lent out by [`crate::MlxBuffer::raw`].
#[derive(Clone)]
pub struct RawBuffer {
    pub(crate) storage: Storage,
}

impl fmt::Debug for RawBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawBuffer({} bytes at {:#x})", self.byte_len(), self.address())
    }
}

impl RawBuffer {
    /// Wraps host memory for a device that shares memory with the host.
    ///
    /// `owner` is kept until the last handle and submission that use the memory are gone; without
    /// one the caller keeps the memory alive for that long.
    ///
    /// # Errors
    /// `InvalidArgument` for a null pointer, 0 bytes, or a device without unified memory.
    ///
    /// # Safety
    /// * `start .. start + byte_len` is valid for reads and writes as long as said above.
    /// * Nobody else accesses these bytes in conflict with the commands and guards that use them.
    pub unsafe fn from_host(
        device: &MlxDevice,
        start: *mut c_void,
        byte_len: usize,
        owner: Option<Box<dyn Owner>>,
    ) -> Result<Self> {
        if start.is_null() || byte_len == 0 {
            return Err(MlxError::invalid("from_host", format_args!("{byte_len} bytes at {start:p}")));
        }
        if !device.info().unified {
            let message = "the device does not share memory with the host; allocate and copy_from_slice";
            return Err(MlxError::invalid("from_host", message));
        }
        let memory = ForeignMemory { address: start.addr() as u64, byte_len: byte_len as u64, read_only: false, owner };
        start.expose_provenance();
        // SAFETY: the caller's promise, passed on.
        let storage = unsafe { device.context().import(memory) }?;
        Ok(Self { storage })
    }

    /// Wraps memory of a GPU that was allocated by other means: a CUDA device pointer.
    ///
    /// The pointer must be usable in the device's context. Memory of the CUDA runtime and of most
    /// libraries belongs to the primary context: open the device with [`crate::CudaContext::Primary`]
    /// for it. `owner` is kept until the last handle and submission that use the memory are gone;
    /// without one the caller keeps the memory alive for that long.
    ///
    /// # Errors
    /// `InvalidArgument` for a device of another backend, 0 bytes, an address that is not the GPU's,
    /// a range that leaves its allocation, or memory of a context that the device cannot reach.
    ///
    /// # Safety
    /// * `pointer .. pointer + byte_len` stays allocated as long as said above.
    /// * Nobody else accesses these bytes in conflict with the commands that use them; work on other
    ///   streams is not ordered with the device's.
    pub unsafe fn from_cuda_pointer(
        device: &MlxDevice,
        pointer: u64,
        byte_len: usize,
        owner: Option<Box<dyn Owner>>,
    ) -> Result<Self> {
        if device.info().backend != BackendKind::Cuda {
            let message = format_args!("the device is {}, needed a CUDA device", device.name());
            return Err(MlxError::invalid("from_cuda_pointer", message));
        }
        let memory = ForeignMemory { address: pointer, byte_len: byte_len as u64, read_only: false, owner };
        // SAFETY: the caller's promise, passed on.
        let storage = unsafe { device.context().import(memory) }?;
        Ok(Self { storage })
    }

    /// Bytes.
    pub fn byte_len(&self) -> u64 {
        self.storage.byte_len()
    }

    /// Address in the device's address space: a CUDA device pointer, a Metal GPU address, a host address.
    pub fn address(&self) -> u64 {
        self.storage.address()
    }

    /// The device that can use the memory.
    pub(crate) fn context(&self) -> Context {
        self.storage.context()
    }
}
