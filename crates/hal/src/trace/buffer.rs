//! Numbered memory.

use std::ptr::NonNull;

use super::TraceLog;
use crate::{backend::Buffer as BufferTrait, cpu};

/// Host memory with a number.
#[derive(Debug)]
pub struct Buffer {
    pub(super) inner: cpu::Buffer,
    pub(super) number: usize,
    pub(super) unified: bool,
    pub(super) log: TraceLog,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.log.line(format_args!("free b{}", self.number));
    }
}

impl BufferTrait for Buffer {
    fn byte_len(&self) -> u64 {
        self.inner.byte_len()
    }

    fn address(&self) -> u64 {
        self.inner.address()
    }

    fn host_pointer(&self) -> Option<NonNull<u8>> {
        if self.unified { self.inner.host_pointer() } else { None }
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }
}
