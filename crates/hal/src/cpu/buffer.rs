//! Memory of the process.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use memmap2::MmapRaw;

use super::mapping::{self, FileMapping};
use crate::backend::{Buffer as BufferTrait, ForeignMemory};

/// Every allocation starts on a page, so that it can be shared with a GPU without a copy.
pub(super) const PAGE: usize = 4096;

#[derive(Debug)]
pub(super) enum Memory {
    /// From the process's allocator: cheap for small sizes.
    Heap(NonNull<u8>, Layout),
    /// Own pages: untouched ones cost nothing.
    Pages(MmapRaw),
    File(FileMapping),
    Foreign(ForeignMemory),
}

/// Memory of the process.
#[derive(Debug)]
pub struct Buffer {
    pub(super) memory: Memory,
    pub(super) byte_len: usize,
    /// Bytes in use on the device; this buffer's share goes when it is dropped.
    pub(super) in_use: Arc<AtomicU64>,
}

// SAFETY: the memory belongs to no thread; who touches it when is decided by the common layer.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Memory {
    pub(super) fn allocate(byte_len: usize) -> Option<Self> {
        const SMALL: usize = 256 * 1024;
        if byte_len > SMALL {
            return mapping::allocate(byte_len).map(|pages| Memory::Pages(pages.into()));
        }
        let layout = Layout::from_size_align(byte_len, PAGE).ok()?;
        // SAFETY: the layout's size is not zero.
        NonNull::new(unsafe { alloc_zeroed(layout) }).map(|start| Memory::Heap(start, layout))
    }
}

impl Buffer {
    pub(super) fn start(&self) -> NonNull<u8> {
        match &self.memory {
            Memory::Heap(start, _) => *start,
            Memory::Pages(pages) => pointer(pages.as_ptr()),
            Memory::File(mapping) => pointer(mapping.start()),
            Memory::Foreign(memory) => pointer(memory.address as *const u8),
        }
    }
}

fn pointer(start: *const u8) -> NonNull<u8> {
    NonNull::new(start.cast_mut()).expect("mappings are never at 0, and imported addresses are checked")
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match &self.memory {
            Memory::Foreign(_) => {}
            Memory::File(mapping) => {
                self.in_use.fetch_sub(mapping.moved_bytes(), Ordering::Relaxed);
            }
            Memory::Pages(_) => {
                self.in_use.fetch_sub(self.byte_len as u64, Ordering::Relaxed);
            }
            Memory::Heap(start, layout) => {
                self.in_use.fetch_sub(self.byte_len as u64, Ordering::Relaxed);
                // SAFETY: allocated with this layout by `Memory::allocate`, freed once.
                unsafe { dealloc(start.as_ptr(), *layout) }
            }
        }
    }
}

impl BufferTrait for Buffer {
    fn byte_len(&self) -> u64 {
        self.byte_len as u64
    }

    fn address(&self) -> u64 {
        self.start().as_ptr() as u64
    }

    fn host_pointer(&self) -> Option<NonNull<u8>> {
        Some(self.start())
    }

    fn read_only(&self) -> bool {
        match &self.memory {
            Memory::File(_) => true,
            Memory::Foreign(memory) => memory.read_only,
            Memory::Heap(..) | Memory::Pages(_) => false,
        }
    }
}
