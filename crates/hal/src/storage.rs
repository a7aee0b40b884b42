//! Handles to memory, and host access to it that cannot race with the device.

use std::{ops::Range, ptr::NonNull};

use crate::{
    Context, HalError, Residency, Result, any,
    backend::{Buffer as _, Device as _, StorageMode},
    context::Core,
    memory::{HostUse, Memory},
    sync::{Arc, AtomicBool, Ordering, fence},
    usage::HostAccess,
};

#[derive(Debug)]
struct Shared {
    memory: Arc<Memory>,
    resident: AtomicBool,
    core: Arc<Core>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.resident.load(Ordering::Relaxed) {
            let completed = self.core.ledger.completed();
            self.core.residency.remove(&self.core.device, &self.memory, completed);
        }
    }
}

/// Memory of a device; clones are handles to the same memory.
///
/// When the last handle is gone the memory leaves its residency set and is freed once every
/// submission that uses it has completed.
#[derive(Debug, Clone)]
pub struct Storage {
    shared: Arc<Shared>,
}

impl Storage {
    pub(crate) fn new(core: &Arc<Core>, memory: Memory, residency: Residency) -> Result<Self> {
        let shared = Shared { memory: Arc::new(memory), resident: AtomicBool::new(false), core: Arc::clone(core) };
        let storage = Self { shared: Arc::new(shared) };
        if residency == Residency::Join {
            storage.make_resident()?;
        }
        Ok(storage)
    }

    /// Joins the residency set, if it has not already; the last handle's drop removes it again.
    ///
    /// # Errors
    /// `Residency` when the system refuses.
    pub fn make_resident(&self) -> Result<()> {
        let shared = &self.shared;
        if !shared.resident.swap(true, Ordering::Relaxed)
            && let Err(error) = shared.core.residency.add(&shared.core.device, &shared.memory)
        {
            shared.resident.store(false, Ordering::Relaxed);
            return Err(error);
        }
        Ok(())
    }

    /// Copies the bytes of a mapped file around `range` into huge pages, where the device gains by that: contents and
    /// addresses stay, work under way is not disturbed. Returns the bytes copied, 0 where there is nothing to do. The copies
    /// are memory of the process's own and end with the storage.
    ///
    /// # Errors
    /// `InvalidUse` for a range past the end; `Io` when the system refuses.
    pub fn move_to_huge_pages(&self, range: &Range<u64>) -> Result<u64> {
        self.check_range("move to huge pages", range)?;
        self.shared.core.device.move_to_huge_pages(&self.shared.memory.buffer, range)
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.shared.memory
    }

    /// The backend's buffer.
    pub fn backend_buffer(&self) -> &any::Buffer {
        &self.shared.memory.buffer
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.shared.core
    }

    /// The device that owns the memory.
    pub fn context(&self) -> Context {
        Context { core: Arc::clone(&self.shared.core) }
    }

    /// Bytes of the whole allocation.
    pub fn byte_len(&self) -> u64 {
        self.shared.memory.buffer.byte_len()
    }

    /// Address in the device's address space.
    pub fn address(&self) -> u64 {
        self.shared.memory.buffer.address()
    }

    /// Who can see the memory.
    pub fn mode(&self) -> StorageMode {
        self.shared.memory.mode
    }

    /// True when nothing may write the memory.
    pub fn read_only(&self) -> bool {
        self.shared.memory.buffer.read_only()
    }

    /// True when the allocation has joined the residency set.
    pub fn is_resident(&self) -> bool {
        self.shared.resident.load(Ordering::Relaxed)
    }

    /// Handles that exist, recorded but uncommitted commands included.
    pub fn handle_count(&self) -> usize {
        let count = Arc::strong_count(&self.shared);
        // What handles did before they were dropped, submissions above all, is seen by whoever
        // counts them gone.
        fence(Ordering::Acquire);
        count
    }

    /// True when both are handles of the same memory.
    pub fn same_storage(&self, other: &Storage) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Takes the poison from all bytes: what follows has nothing to do with what wrote them.
    pub(crate) fn forget_failures(&self) {
        self.shared.memory.usage.heal(&(0..self.byte_len()));
    }

    /// True when no unfinished submission uses the memory.
    pub fn is_idle(&self) -> bool {
        self.shared.memory.usage.last_use() <= self.shared.core.ledger.completed()
    }

    /// Where the host sees the whole allocation; `None` where it cannot.
    ///
    /// Without unified memory this is the host mirror as it stands.
    pub fn host_base(&self) -> Option<NonNull<u8>> {
        let memory = &self.shared.memory;
        memory.host_view(&self.shared.core.device, "contents_ptr", &(0..0), HostUse::Read).ok()
    }

    fn check_range(&self, operation: &'static str, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.byte_len() {
            return Ok(());
        }
        let message = format!("bytes {}..{} of an allocation of {} bytes", range.start, range.end, self.byte_len());
        Err(HalError::InvalidUse { operation, message })
    }

    /// Where the host sees `range` now, checked once and not held: the caller's borrow of a handle
    /// is all that keeps later work away. [`Self::lock_host`] is the sound form.
    ///
    /// # Errors
    /// `NotHostVisible`, `ReadOnly`, `InFlight`, `Locked`, `Poisoned`.
    pub fn peek_host(&self, operation: &'static str, range: Range<u64>, access: HostAccess) -> Result<NonNull<u8>> {
        self.check_range(operation, &range)?;
        let purpose = self.host_purpose(operation, access)?;
        let (memory, core) = (&self.shared.memory, &self.shared.core);
        memory.usage.check_host(operation, &range, access, core.ledger.completed())?;
        let start = memory.host_view(&core.device, operation, &range, purpose)?;
        if access == HostAccess::Write {
            memory.usage.heal(&range);
            memory.host_has_written(&range);
        }
        // SAFETY: the range is inside the allocation.
        Ok(unsafe { start.add(range.start as usize) })
    }

    /// Holds `range` for the host: as long as the lock lives, submitting work that conflicts is an
    /// error. Taking a write lock counts as writing the whole range.
    ///
    /// # Errors
    /// `NotHostVisible`, `ReadOnly`, `InFlight`, `Locked`, `Poisoned` (reading).
    pub fn lock_host(&self, operation: &'static str, range: Range<u64>, access: HostAccess) -> Result<HostLock> {
        self.check_range(operation, &range)?;
        let purpose = self.host_purpose(operation, access)?;
        let (memory, core) = (&self.shared.memory, &self.shared.core);
        memory.usage.lock_host(operation, &range, access, core.ledger.completed())?;
        let start = memory.host_view(&core.device, operation, &range, purpose).inspect_err(|_| {
            memory.usage.unlock_host(&range, access);
        })?;
        if access == HostAccess::Write {
            memory.usage.heal(&range);
        }
        // SAFETY: the range is inside the allocation.
        let start = unsafe { start.add(range.start as usize) };
        Ok(HostLock { storage: self.clone(), range, access, start })
    }

    fn host_purpose(&self, operation: &'static str, access: HostAccess) -> Result<HostUse> {
        if self.mode() == StorageMode::Private {
            return Err(HalError::NotHostVisible { operation });
        }
        match access {
            HostAccess::Read => Ok(HostUse::Read),
            HostAccess::Write if self.read_only() => Err(HalError::ReadOnly { operation }),
            HostAccess::Write => Ok(HostUse::Update),
        }
    }

    /// Copies bytes to the host, whatever the storage mode.
    ///
    /// # Errors
    /// `InvalidUse` for a range outside the allocation, `InFlight`, `Locked`, `Poisoned`.
    pub fn read_bytes(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        const OPERATION: &str = "read";
        let range = offset..offset.saturating_add(to.len() as u64);
        self.check_range(OPERATION, &range)?;
        let (memory, core) = (&self.shared.memory, &self.shared.core);
        memory.usage.lock_host(OPERATION, &range, HostAccess::Read, core.ledger.completed())?;
        let result = memory.read(&core.device, offset, to);
        memory.usage.unlock_host(&range, HostAccess::Read);
        result
    }

    /// Copies bytes from the host, whatever the storage mode.
    ///
    /// # Errors
    /// `InvalidUse` for a range outside the allocation, `ReadOnly`, `InFlight`, `Locked`.
    pub fn write_bytes(&self, offset: u64, from: &[u8]) -> Result<()> {
        const OPERATION: &str = "write";
        let range = offset..offset.saturating_add(from.len() as u64);
        self.check_range(OPERATION, &range)?;
        if self.read_only() {
            return Err(HalError::ReadOnly { operation: OPERATION });
        }
        let (memory, core) = (&self.shared.memory, &self.shared.core);
        memory.usage.lock_host(OPERATION, &range, HostAccess::Write, core.ledger.completed())?;
        let result = memory.write(&core.device, offset, from);
        if result.is_ok() {
            memory.usage.heal(&range);
        }
        memory.usage.unlock_host(&range, HostAccess::Write);
        result
    }
}

/// A range held for the host.
#[derive(Debug)]
pub struct HostLock {
    storage: Storage,
    range: Range<u64>,
    access: HostAccess,
    start: NonNull<u8>,
}

// SAFETY: the lock grants access to bytes that no other lock or submission conflicts with; which
// thread uses it does not matter.
unsafe impl Send for HostLock {}
// SAFETY: as above; shared use only reads the fields.
unsafe impl Sync for HostLock {}

impl HostLock {
    /// The first byte held.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes held.
    pub fn byte_len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }
}

impl Drop for HostLock {
    fn drop(&mut self) {
        let memory = &self.storage.shared.memory;
        if self.access == HostAccess::Write {
            memory.host_has_written(&self.range);
        }
        memory.usage.unlock_host(&self.range, self.access);
    }
}
