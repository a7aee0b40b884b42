//! What a device shares with its buffers, kernels and submissions.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Api, Facts,
    faults::Faults,
    kernel::{Kernel, Transfers},
};
use crate::{HalError, cache::CacheKey};

#[derive(Debug)]
pub(super) struct Shared<A: Api> {
    pub(super) api: A,
    pub(super) facts: Facts,
    pub(super) memory_limit: u64,
    pub(super) in_use: AtomicU64,
    pub(super) faults: Faults<A>,
    /// Compiled texts, so that kernels of one text are compiled together.
    pub(super) libraries: Mutex<HashMap<CacheKey, A::Library>>,
    pub(super) transfers: OnceLock<Transfers<A>>,
    /// Folder of binary archives.
    pub(super) archives: Option<PathBuf>,
    /// Commands are named for captures.
    pub(super) labels: bool,
}

impl<A: Api> Shared<A> {
    pub(super) fn out_of_memory(&self, asked: u64, reason: &str) -> HalError {
        HalError::OutOfMemory {
            asked,
            in_use: self.in_use.load(Ordering::Relaxed),
            limit: self.memory_limit.min(self.facts.max_buffer_bytes),
            reason: reason.to_owned(),
        }
    }

    /// The kernels that copy and fill.
    pub(super) fn transfers(self: &Arc<Self>) -> crate::Result<&Transfers<A>> {
        if let Some(transfers) = self.transfers.get() {
            return Ok(transfers);
        }
        let transfers = Transfers {
            copy_bytes: Kernel::transfer(self, "copy_bytes")?,
            copy_vectors: Kernel::transfer(self, "copy_vectors")?,
            fill_bytes: Kernel::transfer(self, "fill_bytes")?,
        };
        Ok(self.transfers.get_or_init(|| transfers))
    }
}
