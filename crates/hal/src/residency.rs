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
    changed: bool,
    /// Dropped by their last handle while a submission still used them: removed once it completes.
    leaving: Vec<Arc<Memory>>,
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
        staged.changed = true;
        if memory.usage.last_use() > completed {
            staged.leaving.push(Arc::clone(memory));
        } else if let Err(error) = device.residency_remove(&memory.buffer) {
            tracing::error!(%error, "an allocation could not be removed from the residency set");
        }
    }

    /// Commits if anything is staged.
    pub(crate) fn flush(&self, device: &any::Device, completed: u64) -> Result<()> {
        let mut staged = lock(&self.staged);
        if !staged.changed {
            return Ok(());
        }
        let (gone, leaving): (Vec<_>, Vec<_>) =
            std::mem::take(&mut staged.leaving).into_iter().partition(|memory| memory.usage.last_use() <= completed);
        for memory in &gone {
            device.residency_remove(&memory.buffer)?;
        }
        device.residency_commit()?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        staged.changed = !leaving.is_empty();
        staged.leaving = leaving;
        Ok(())
    }

    /// Removes what is left and commits; the device is going.
    pub(crate) fn close(&self, device: &any::Device) {
        if let Err(error) = self.flush(device, u64::MAX) {
            tracing::error!(%error, "the residency set could not be closed");
        }
    }
}
