//! Memory that a GPU sees.

use std::{
    ptr::NonNull,
    sync::{Arc, atomic::Ordering},
};

use super::{Api, Argument, shared::Shared};
use crate::{
    Access, HalError, Owner, Result, StorageMode,
    backend::{Buffer as BufferTrait, ForeignMemory},
    system,
};

/// Memory that a GPU sees: a range of an `MTLBuffer`.
#[derive(Debug)]
pub struct Buffer<A: Api> {
    inner: A::Buffer,
    /// Where the range begins in `inner`: not 0 where memory was wrapped that does not begin with a page.
    start: u64,
    byte_len: u64,
    read_only: bool,
    /// Counted among the bytes in use, until it is dropped.
    counted: bool,
    shared: Arc<Shared<A>>,
}

impl<A: Api> Buffer<A> {
    /// Zero-filled memory.
    pub(super) fn allocate(shared: &Arc<Shared<A>>, byte_len: u64, mode: StorageMode) -> Result<Self> {
        let refused = |reason: &str| shared.out_of_memory(byte_len, reason);
        let Ok(size) = usize::try_from(byte_len) else { return Err(refused("larger than the address space")) };
        if byte_len > shared.facts.max_buffer_bytes {
            return Err(refused("larger than any buffer of the device can be"));
        }
        let sum = |in_use: u64| in_use.checked_add(byte_len).filter(|total| *total <= shared.memory_limit);
        if shared.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_err() {
            return Err(refused("over the device's limit"));
        }
        let Some(inner) = shared.api.autorelease(|| shared.api.new_buffer(size, mode)) else {
            shared.in_use.fetch_sub(byte_len, Ordering::Relaxed);
            return Err(refused("Metal refused"));
        };
        let shared = Arc::clone(shared);
        let buffer = Self { inner, start: 0, byte_len, read_only: false, counted: true, shared };
        // Metal does not promise zeros. Private memory is filled by the caller, on the GPU.
        if let Some(start) = buffer.host_pointer() {
            // SAFETY: `contents` of a shared MTLBuffer points at `length` bytes, and no command uses it yet.
            unsafe { start.as_ptr().write_bytes(0, size) };
        }
        Ok(buffer)
    }

    /// A range of the process's memory.
    ///
    /// # Safety
    /// As [`crate::backend::Device::import`]: `byte_len` bytes from `start` are mapped until `owner` is dropped.
    pub(super) unsafe fn wrap_host(
        shared: &Arc<Shared<A>>,
        start: NonNull<u8>,
        byte_len: usize,
        owner: Option<Box<dyn Owner>>,
        read_only: bool,
    ) -> Result<Self> {
        let page = system::page_bytes();
        let offset = start.addr().get() % page;
        let whole = offset.checked_add(byte_len).and_then(|end| end.checked_next_multiple_of(page));
        let Some(whole) = whole.filter(|whole| *whole as u64 <= shared.facts.max_buffer_bytes) else {
            return Err(shared.out_of_memory(byte_len as u64, "larger than any buffer of the device can be"));
        };
        // SAFETY: no rule of Metal's: the first page that holds one of the bytes begins here, at no null address.
        let base = unsafe { NonNull::new_unchecked(start.as_ptr().wrapping_sub(offset)) };
        // SAFETY: newBufferWithBytesNoCopy takes whole pages; memory is mapped by whole pages, so those that
        // hold the caller's bytes are mapped as long as the bytes are.
        let inner = shared.api.autorelease(|| unsafe { shared.api.new_buffer_no_copy(base, whole, owner) });
        let inner = inner.ok_or_else(|| shared.out_of_memory(byte_len as u64, "Metal cannot use these pages"))?;
        let (start, byte_len, shared) = (offset as u64, byte_len as u64, Arc::clone(shared));
        Ok(Self { inner, start, byte_len, read_only, counted: false, shared })
    }

    /// As [`Self::wrap_host`], for an address of foreign memory.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn import(shared: &Arc<Shared<A>>, memory: ForeignMemory) -> Result<Self> {
        let invalid = || HalError::InvalidUse {
            operation: "import memory",
            message: format!("{} bytes at address {:#x}", memory.byte_len, memory.address),
        };
        let address = usize::try_from(memory.address).map_err(|_| invalid())?;
        let start = NonNull::new(std::ptr::with_exposed_provenance_mut(address)).ok_or_else(invalid)?;
        let byte_len = usize::try_from(memory.byte_len).ok().filter(|len| *len > 0).ok_or_else(invalid)?;
        // SAFETY: newBufferWithBytesNoCopy: the caller's promise that the bytes stay mapped until the owner is dropped.
        unsafe { Self::wrap_host(shared, start, byte_len, memory.owner, memory.read_only) }
    }

    /// A buffer of Metal that someone else made.
    pub(super) fn adopt(shared: &Arc<Shared<A>>, inner: A::Buffer) -> Result<Self> {
        let invalid =
            |message: &str| HalError::InvalidUse { operation: "wrap a Metal buffer", message: message.into() };
        if shared.api.registry_id(&inner) != shared.facts.registry_id {
            return Err(invalid("it belongs to another device"));
        }
        if !shared.api.is_tracked(&inner) {
            return Err(invalid(
                "its hazard tracking is off, so that work on it would not be ordered; \
                 make it with MTLHazardTrackingModeTracked",
            ));
        }
        let byte_len = shared.api.length(&inner);
        Ok(Self { inner, start: 0, byte_len, read_only: false, counted: false, shared: Arc::clone(shared) })
    }

    /// Metal's object.
    pub fn metal(&self) -> &A::Buffer {
        &self.inner
    }

    /// Where this memory begins in Metal's object.
    pub fn metal_offset(&self) -> u64 {
        self.start
    }

    pub(super) fn argument(&self, offset: u64, byte_len: u64, access: Access) -> Argument<A> {
        Argument { buffer: self.inner.clone(), offset: self.start + offset, byte_len, access }
    }
}

impl<A: Api> Drop for Buffer<A> {
    fn drop(&mut self) {
        if self.counted {
            self.shared.in_use.fetch_sub(self.byte_len, Ordering::Relaxed);
        }
    }
}

impl<A: Api> BufferTrait for Buffer<A> {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }

    fn address(&self) -> u64 {
        self.shared.api.gpu_address(&self.inner) + self.start
    }

    fn host_pointer(&self) -> Option<NonNull<u8>> {
        let contents = self.shared.api.contents(&self.inner)?;
        // SAFETY: `start` is inside the MTLBuffer, whose `contents` are one allocation.
        Some(unsafe { contents.add(self.start as usize) })
    }

    fn read_only(&self) -> bool {
        self.read_only
    }
}
