//! Memory of a GPU.

use std::{
    ptr::NonNull,
    sync::{Arc, atomic::Ordering},
};

use super::{context::Shared, driver::driver};
use crate::{
    Result,
    backend::{Buffer as BufferTrait, ForeignMemory},
};

/// Kernels copy so many bytes at once, and use none that lie past the end of a buffer.
const COPY_BYTES: u64 = 16;

#[derive(Debug)]
enum Memory {
    Own(u64),
    Foreign(ForeignMemory),
}

/// Memory of a GPU.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    byte_len: u64,
    read_only: bool,
    pub(super) shared: Arc<Shared>,
}

impl Buffer {
    /// Zero-filled memory of the device.
    pub(super) fn allocate(shared: &Arc<Shared>, byte_len: u64) -> Result<Self> {
        shared.check_alive()?;
        let refused = |reason| shared.out_of_memory(byte_len, reason);
        let size = byte_len.checked_next_multiple_of(COPY_BYTES).and_then(|size| usize::try_from(size).ok());
        let Some(size) = size else { return Err(refused("larger than the address space".into())) };
        let current = shared.enter()?;
        let sum = |in_use: u64| in_use.checked_add(byte_len).filter(|total| *total <= shared.memory_limit);
        if shared.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_err() {
            return Err(refused("over the device's limit".into()));
        }
        let mut address = 0;
        // SAFETY: stores the address of the new memory.
        if let Err(error) = unsafe { driver!(cuMemAlloc_v2(&mut address, size)) } {
            shared.in_use.fetch_sub(byte_len, Ordering::Relaxed);
            if !error.is_out_of_memory() {
                return Err(shared.fail(error));
            }
            let free = shared.memory().map_or_else(|error| error.to_string(), |(free, _)| format!("{free} bytes free"));
            return Err(refused(format!("the driver refused, with {free}")));
        }
        // Dropped on the errors below, which frees it.
        let buffer = Self { memory: Memory::Own(address), byte_len, read_only: false, shared: Arc::clone(shared) };
        // SAFETY: the memory has this many bytes; later work on the stream sees them zero.
        let zeroed = unsafe { driver!(cuMemsetD8Async(address, 0, size, shared.stream())) };
        let zeroed = zeroed.and_then(|()| shared.note_filled());
        drop(current);
        zeroed.map_err(|error| shared.fail(error))?;
        Ok(buffer)
    }

    pub(super) fn foreign(shared: &Arc<Shared>, memory: ForeignMemory) -> Self {
        let (byte_len, read_only) = (memory.byte_len, memory.read_only);
        Self { memory: Memory::Foreign(memory), byte_len, read_only, shared: Arc::clone(shared) }
    }

    /// The same memory, which nothing may write from now on.
    pub(super) fn into_read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Memory::Own(address) = self.memory else { return };
        self.shared.in_use.fetch_sub(self.byte_len, Ordering::Relaxed);
        // SAFETY: allocated in this context, freed once; by the contract nothing uses it any more.
        let freed = self.shared.enter().map(|_current| unsafe { driver!(cuMemFree_v2(address)) });
        match freed {
            Ok(Ok(())) => {}
            // With a lost device the memory goes with the context.
            Ok(Err(error)) => self.shared.note(error),
            Err(error) => tracing::debug!(%error, "freeing device memory"),
        }
    }
}

impl BufferTrait for Buffer {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }

    fn address(&self) -> u64 {
        match &self.memory {
            Memory::Own(address) => *address,
            Memory::Foreign(memory) => memory.address,
        }
    }

    fn host_pointer(&self) -> Option<NonNull<u8>> {
        None
    }

    fn read_only(&self) -> bool {
        self.read_only
    }
}
