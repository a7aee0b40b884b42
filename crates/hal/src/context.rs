//! An opened device with its bookkeeping.

use std::{fmt, fs::File, mem::ManuallyDrop, ops::Deref};

use crate::{
    HalError, Result, any,
    any::Any,
    backend::{Buffer as _, Device as _, DeviceInfo, ForeignMemory, KernelSource, StorageMode, Timing},
    ledger::{Ledger, Ticket},
    memory::{Contents, Memory},
    recorder::{Graph, Recorder},
    residency::{ResidencySet, ResidencyStats},
    storage::Storage,
    sync::Arc,
};

/// What contexts, storages and recorders of one device share.
#[derive(Debug)]
pub(crate) struct Core {
    /// Never used again, unlike an address.
    id: u64,
    parts: ManuallyDrop<Parts>,
}

/// The parts of a [`Core`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) device: any::Device,
    pub(crate) ledger: Ledger,
    pub(crate) residency: ResidencySet,
}

impl Parts {
    /// Frees what was dropped in flight and is not used any more.
    pub(crate) fn retire(&self) {
        self.residency.retire(&self.device, self.ledger.completed());
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.ledger.drain();
        self.residency.close(&self.device);
    }
}

impl Core {
    fn new(device: any::Device) -> Self {
        static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let id = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let parts = Parts { device, ledger: Ledger::default(), residency: ResidencySet::default() };
        Self { id, parts: ManuallyDrop::new(parts) }
    }
}

impl Deref for Core {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: taken once; `self` is not used after this.
        let parts = unsafe { ManuallyDrop::take(&mut self.parts) };
        if !parts.device.on_own_thread() {
            return drop(parts);
        }
        // The last handle was held by a kernel: the thread that ran it cannot wait for itself.
        let parts = ManuallyDrop::new(parts);
        let close = move || drop(ManuallyDrop::into_inner(parts));
        if let Err(error) = std::thread::Builder::new().name("anymlx-close".into()).spawn(close) {
            tracing::error!(%error, "a device could not be closed: its memory stays allocated");
        }
    }
}

/// Whether an allocation joins the device's residency set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residency {
    /// Long-lived: weights, key-value caches.
    #[default]
    Join,
    /// Churned: scratch, staging.
    Stay,
}

/// An opened device; clones are handles to the same one.
#[derive(Clone)]
pub struct Context {
    pub(crate) core: Arc<Core>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.core.device.info().name).finish()
    }
}

/// A kernel compiled for one device; clones are handles.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub(crate) name: Arc<str>,
    pub(crate) kernel: any::Kernel,
    /// [`Context::id`].
    pub(crate) device: u64,
}

impl Kernel {
    /// Entry point.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Context {
    /// Wraps an opened device.
    pub fn new(device: any::Device) -> Self {
        Self { core: Arc::new(Core::new(device)) }
    }

    /// The backend's device.
    pub fn device(&self) -> &any::Device {
        &self.core.device
    }

    /// What the device is.
    pub fn info(&self) -> DeviceInfo {
        self.core.device.info()
    }

    /// Identifies the device among those opened in this process.
    pub(crate) fn id(&self) -> u64 {
        self.core.id
    }

    /// True when both are handles of the same opened device.
    pub fn same_device(&self, other: &Context) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    /// Allocates zero-filled memory.
    ///
    /// # Errors
    /// `InvalidUse` for 0 bytes, `OutOfMemory`.
    pub fn allocate(&self, byte_len: u64, mode: StorageMode, residency: Residency) -> Result<Storage> {
        if byte_len == 0 {
            return Err(HalError::InvalidUse { operation: "allocate", message: "0 bytes asked for, needed 1".into() });
        }
        if byte_len > isize::MAX as u64 {
            let DeviceInfo { memory_in_use: in_use, max_buffer_bytes: limit, .. } = self.info();
            let reason = "larger than the address space".into();
            return Err(HalError::OutOfMemory { asked: byte_len, in_use, limit, reason });
        }
        self.core.retire();
        let buffer = self.core.device.allocate(byte_len, mode)?;
        Storage::new(&self.core, Memory::new(buffer, mode, Contents::Zeros), residency)
    }

    /// Makes a part of a file readable for kernels; see [`crate::backend::Device::map_file`].
    ///
    /// # Errors
    /// `InvalidUse` for 0 bytes, `Io`, `OutOfMemory` where the device needs a copy.
    pub fn map_file(&self, file: &File, offset: u64, byte_len: u64, residency: Residency) -> Result<Storage> {
        if byte_len == 0 {
            return Err(HalError::InvalidUse { operation: "map file", message: "0 bytes asked for".into() });
        }
        let buffer = self.core.device.map_file(file, offset, byte_len)?;
        Storage::new(&self.core, Memory::new(buffer, StorageMode::Shared, Contents::Unknown), residency)
    }

    /// Uses memory that someone else allocated. It joins no residency set.
    ///
    /// # Errors
    /// `InvalidUse` when the address or length cannot be right.
    ///
    /// # Safety
    /// * The bytes are valid on this device until `memory.owner` is dropped (or, without one, until
    ///   the last handle and submission that use them are gone).
    /// * Nobody accesses them in conflict with what is done through the handles.
    pub unsafe fn import(&self, memory: ForeignMemory) -> Result<Storage> {
        // SAFETY: the caller's promise, passed on.
        let buffer = unsafe { self.core.device.import(memory) }?;
        Storage::new(&self.core, Memory::new(buffer, StorageMode::Shared, Contents::Unknown), Residency::Stay)
    }

    /// Uses a buffer that the backend's own device made of a foreign object. It joins no residency set.
    ///
    /// # Errors
    /// None at present.
    ///
    /// # Safety
    /// * The buffer belongs to this context's device.
    /// * Nobody accesses it in conflict with what is done through the handles.
    pub unsafe fn adopt(&self, buffer: any::Buffer) -> Result<Storage> {
        let hidden = buffer.host_pointer().is_none();
        let mode = if hidden { StorageMode::Private } else { StorageMode::Shared };
        Storage::new(&self.core, Memory::new(buffer, mode, Contents::Unknown), Residency::Stay)
    }

    /// Compiles a kernel.
    ///
    /// # Errors
    /// `CompileFailed` with the compiler's log.
    pub fn compile(&self, source: &KernelSource<'_>) -> Result<Kernel> {
        Ok(Kernel { name: source.name.into(), kernel: self.core.device.compile(source)?, device: self.id() })
    }

    /// Starts to record commands.
    ///
    /// # Errors
    /// What the backend reports.
    pub fn recorder(&self, label: &str) -> Result<Recorder> {
        Recorder::new(self, label)
    }

    /// Runs prepared commands once.
    ///
    /// # Errors
    /// As [`Recorder::commit`].
    pub fn replay(&self, graph: &Graph) -> Result<Submission> {
        graph.replay(self)
    }

    /// Blocks until everything submitted so far has completed.
    pub fn synchronize(&self) {
        self.core.ledger.drain();
        self.core.retire();
    }

    /// Counters of the residency set.
    pub fn residency_stats(&self) -> ResidencyStats {
        self.core.residency.stats()
    }

    /// True when the system keeps allocations resident on request.
    pub fn residency_sets_enabled(&self) -> bool {
        self.core.device.has_residency_sets()
    }

    /// Makes the next submission fail with `message` in place of running. `false`: this backend cannot.
    pub fn fail_next_submission(&self, message: &str) -> bool {
        self.core.device.fail_next_submission(message)
    }

    pub(crate) fn submission(&self, ticket: Ticket, label: &Arc<str>) -> Submission {
        Submission { context: self.clone(), ticket, label: Arc::clone(label) }
    }
}

/// Submitted work. Dropping it does not stop the work.
#[derive(Debug, Clone)]
pub struct Submission {
    context: Context,
    ticket: Ticket,
    label: Arc<str>,
}

impl Submission {
    /// Number of the submission on its device, from 1.
    pub fn id(&self) -> u64 {
        self.ticket.id
    }

    /// The encoder's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// True when the work has ended, well or not. Never blocks.
    pub fn is_done(&self) -> bool {
        self.context.core.ledger.is_done(&self.ticket)
    }

    /// Blocks until the work has ended.
    ///
    /// # Errors
    /// `SubmissionFailed` with the label, also when this work read what earlier work failed to
    /// write; `DeviceLost`.
    pub fn wait(&self) -> Result<Timing> {
        let outcome = self.context.core.ledger.wait(&self.ticket);
        self.context.core.retire();
        outcome
    }
}

/// The backend family that the common layer drives.
pub(crate) type Backend = Any;
