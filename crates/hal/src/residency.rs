//! The set of allocations that stay resident.
//!
//! Additions and removals are staged; one native commit happens at the next submission if anything
//! is staged, however many buffers it concerns. The lifecycle and the counters are the same on
//! every backend; what a commit does is the backend's affair.

use crate::{
    Result, any,
    backend::Device as _,
    memory::Memory,
    sync::{Arc, AtomicU64, Mutex, Ordering, lock},
};

/// Counters of a device's residency set, from the opening of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResidencyStats {
    /// Allocations staged for addition.
    pub adds: u64,
    /// Allocations staged for removal.
    pub removes: u64,
    /// Commits that made staged changes take effect.
    pub commits: u64,
}

#[derive(Debug, Default)]
struct Staged {
    /// The backend has been told of changes since its last commit.
    changed: bool,
    /// Dropped by their last handle while a submission still used them: removed once it completes.
    leaving: Vec<Arc<Memory>>,
}

impl Staged {
    fn remove(&mut self, device: &any::Device, memory: &Memory) {
        self.changed = true;
        if let Err(error) = device.residency_remove(&memory.buffer) {
            tracing::error!(%error, "an allocation could not be removed from the residency set");
        }
    }

    /// Removes what has waited long enough, for the caller to drop after the lock: owners of
    /// foreign memory are the user's code.
    #[must_use]
    fn retire(&mut self, device: &any::Device, completed: u64) -> Vec<Arc<Memory>> {
        let gone: Vec<_> = self.leaving.extract_if(.., |memory| memory.usage.last_use() <= completed).collect();
        gone.iter().for_each(|memory| self.remove(device, memory));
        gone
    }
}

/// Staging and counting.
#[derive(Debug, Default)]
pub(crate) struct ResidencySet {
    staged: Mutex<Staged>,
    adds: AtomicU64,
    removes: AtomicU64,
    commits: AtomicU64,
}

impl ResidencySet {
    pub(crate) fn stats(&self) -> ResidencyStats {
        ResidencyStats {
            adds: self.adds.load(Ordering::Relaxed),
            removes: self.removes.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn add(&self, device: &any::Device, memory: &Memory) -> Result<()> {
        let mut staged = lock(&self.staged);
        device.residency_add(&memory.buffer)?;
        staged.changed = true;
        self.adds.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Stages the removal; the memory stays resident until `completed` has reached its last use.
    pub(crate) fn remove(&self, device: &any::Device, memory: &Arc<Memory>, completed: u64) {
        let mut staged = lock(&self.staged);
        self.removes.fetch_add(1, Ordering::Relaxed);
        if memory.usage.last_use() > completed {
            staged.leaving.push(Arc::clone(memory));
        } else {
            staged.remove(device, memory);
        }
    }

    /// Frees what was dropped in flight, as far as submissions have completed.
    pub(crate) fn retire(&self, device: &any::Device, completed: u64) {
        let gone = lock(&self.staged).retire(device, completed);
        drop(gone);
    }

    /// Commits if anything is staged.
    pub(crate) fn flush(&self, device: &any::Device, completed: u64) -> Result<()> {
        let mut staged = lock(&self.staged);
        let gone = staged.retire(device, completed);
        if staged.changed {
            device.residency_commit()?;
            staged.changed = false;
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        drop(staged);
        drop(gone);
        Ok(())
    }

    /// Removes what is left and commits; the device is going.
    pub(crate) fn close(&self, device: &any::Device) {
        if let Err(error) = self.flush(device, u64::MAX) {
            tracing::error!(%error, "the residency set could not be closed");
        }
    }
}
