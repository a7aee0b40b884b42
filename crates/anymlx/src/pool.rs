//! Reuse of buffers.

use anymlx_hal::{BlockPool, Lease, PoolStats};

use crate::{DType, MlxBuffer, MlxDevice, MlxError, RawBuffer, Result, device::check_shape};

/// Hands out buffers and takes them back, by size class with at most 12.5 % waste.
///
/// Memory handed out again is never visible to a command in flight or to a live handle. Its contents
/// are whatever the last user left. A pool belongs to the device of its first allocation.
#[derive(Debug, Default)]
pub struct MlxBufferPool {
    blocks: BlockPool,
}

impl MlxBufferPool {
    /// An empty pool without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool that holds at most `bytes`, handed out and waiting together. Waiting buffers
    /// make room in the order in which they were released.
    pub fn with_limit(bytes: u64) -> Self {
        Self { blocks: BlockPool::with_limit(bytes) }
    }

    /// A buffer of `byte_len` logical bytes.
    ///
    /// # Errors
    /// As [`MlxDevice::alloc_buffer`]; `InvalidArgument` for another device than the pool's;
    /// `BufferAllocationError` past the pool's limit.
    pub fn alloc(&mut self, device: &MlxDevice, byte_len: usize, dtype: DType, shape: Vec<usize>) -> Result<MlxBuffer> {
        self.lease(device, byte_len, dtype, shape, Lease::UntilReleased)
    }

    /// As [`Self::alloc`], with a say in how the buffer comes back.
    pub(crate) fn lease(
        &mut self,
        device: &MlxDevice,
        byte_len: usize,
        dtype: DType,
        shape: Vec<usize>,
        lease: Lease,
    ) -> Result<MlxBuffer> {
        check_shape("pool alloc", byte_len, dtype, &shape)?;
        let storage = self.blocks.allocate(device.context(), byte_len as u64, lease)?;
        Ok(MlxBuffer::new(RawBuffer { storage }, dtype, shape, 0, byte_len as u64))
    }

    /// Several buffers, or none.
    ///
    /// # Errors
    /// As [`Self::alloc`]; what was allocated before the error is released.
    pub fn alloc_batch(
        &mut self,
        device: &MlxDevice,
        requests: &[(usize, DType, Vec<usize>)],
    ) -> Result<Vec<MlxBuffer>> {
        let mut buffers = Vec::with_capacity(requests.len());
        for (byte_len, dtype, shape) in requests {
            match self.alloc(device, *byte_len, *dtype, shape.clone()) {
                Ok(buffer) => buffers.push(buffer),
                Err(error) => {
                    buffers.into_iter().try_for_each(|buffer| self.release(buffer))?;
                    return Err(error);
                }
            }
        }
        Ok(buffers)
    }

    /// Takes a buffer back. `buffer` must be the only handle: no clone, view, recorded command or
    /// graph may use its memory. Commands in flight may: the memory waits for them.
    ///
    /// # Errors
    /// `InvalidArgument` when the buffer is not from this pool or other handles are alive; it then
    /// stays in use.
    pub fn release(&mut self, buffer: MlxBuffer) -> Result<()> {
        let storage = buffer.storage().clone();
        drop(buffer);
        Ok(self.blocks.release(storage)?)
    }

    /// Takes back every buffer handed out.
    ///
    /// # Errors
    /// `InvalidArgument` when a handle to any of them is alive; nothing is taken back then.
    pub fn reset(&mut self) -> Result<()> {
        Ok(self.blocks.reset()?)
    }

    /// Frees every waiting buffer, and forgets those in use: they are freed with their last handle.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    /// Frees every waiting buffer.
    pub fn trim(&mut self) {
        self.blocks.trim();
    }

    /// Buffers that wait for reuse.
    pub fn free_count(&self) -> usize {
        self.blocks.stats().free_blocks
    }

    /// Their bytes.
    pub fn free_bytes(&self) -> u64 {
        self.blocks.stats().free_bytes
    }

    /// Buffers handed out.
    pub fn in_use_count(&self) -> usize {
        self.blocks.stats().in_use_blocks
    }

    /// Counters.
    pub fn stats(&self) -> PoolStats {
        self.blocks.stats()
    }

    /// Keeps a buffer that someone else allocated resident on its device until its last handle is
    /// gone. The pool does not own it and never hands it out. Registering it again, or any view of
    /// it, changes nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for a buffer of another device; `ResidencySetError`.
    pub fn register_existing(&mut self, device: &MlxDevice, buffer: &MlxBuffer) -> Result<()> {
        if !buffer.is_on(device) {
            return Err(MlxError::invalid("register_existing", "the buffer belongs to another device"));
        }
        Ok(buffer.storage().make_resident()?)
    }
}
