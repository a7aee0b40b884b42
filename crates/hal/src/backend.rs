//! The contract between the common layer and a backend.
//!
//! # Who does what
//! The common layer ([`crate::Context`], [`crate::Recorder`], [`crate::Storage`]) validates every
//! request, derives barriers, numbers submissions, tracks who uses which bytes and keeps every
//! buffer of a submission alive until its [`Pending`] is done. A backend only moves bytes and runs
//! kernels; it holds clones of the kernels and graphs that its unfinished work needs. Kernels, graphs
//! and encoders may be dropped after their device. It may assume:
//!
//! * sizes are non-zero, ranges lie inside their buffer, arithmetic does not overflow;
//! * every buffer and kernel handed to an encoder belongs to this device, and every buffer outlives
//!   the submission or graph;
//! * two commands with no [`Encoder::barrier`] between them do not conflict and may overlap;
//! * host reads and writes never touch bytes that an unfinished submission writes, and host writes
//!   never touch bytes that one reads.
//!
//! # What is ordered
//! Submissions on one device run in the order of `submit` and `replay`; each sees all writes of
//! the one before. Inside a submission, commands after a barrier see all writes before it.
//!
//! # Failure
//! A failure of submitted work is reported by [`Pending::wait`], never by a panic and never by a
//! silent retry. Work submitted later may still run; the common layer decides what it is worth.
//! An error from any other method means that the call had no effect.

use std::{any::Any, fmt::Debug, fs::File, ops::Range, ptr::NonNull, sync::Arc, time::Duration};

use crate::{Access, CpuKernel, Result, cuda::Target};

/// Families of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// Host processors.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// Apple GPUs.
    Metal,
    /// Records every call as text; computes on the host.
    Trace,
    /// Runs GPU kernels on the host, thread by thread.
    Emulator,
}

impl BackendKind {
    /// Lower-case name, as used by `ANYMLX_DEVICE`.
    pub const fn name(self) -> &'static str {
        match self {
            BackendKind::Cpu => "cpu",
            BackendKind::Cuda => "cuda",
            BackendKind::Metal => "metal",
            BackendKind::Trace => "trace",
            BackendKind::Emulator => "emulator",
        }
    }
}

/// What a device is and can do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Family.
    pub backend: BackendKind,
    /// Number among the devices of its family.
    pub index: usize,
    /// Model name.
    pub name: String,
    /// Bytes of memory that the device can address.
    pub memory_total: u64,
    /// Bytes not in use by anyone, as far as the system tells.
    pub memory_free: u64,
    /// Bytes allocated through this device and not yet freed.
    pub memory_in_use: u64,
    /// Largest single allocation in bytes.
    pub max_buffer_bytes: u64,
    /// True when host and device use the same memory.
    pub unified: bool,
    /// Processors that run kernels: threads on a CPU, multiprocessors on a GPU.
    pub compute_units: usize,
    /// Instruction sets or architecture, for people.
    pub features: Vec<String>,
    /// What its compiler takes beside the portable dialect.
    pub native: NativeTexts,
}

/// Texts of kernels that a device takes beside those in the portable dialect: for kernels that need
/// what one vendor's hardware has, such as matrix units. Such a text goes where the portable one does
/// ([`KernelSource::gpu`]), with the dialect's header before it; on any other device it does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum NativeTexts {
    /// None.
    #[default]
    None,
    /// CUDA C++, compiled for this target.
    Cuda(Target),
    /// The Metal shading language.
    Metal,
}

impl NativeTexts {
    /// True when kernels are compiled for exactly this CUDA architecture (90 for `sm_90a`), so that
    /// they may use instructions which no other has.
    pub fn is_exactly_cuda(self, architecture: u32) -> bool {
        self == NativeTexts::Cuda(Target::Machine(architecture))
    }

    /// True when kernels are compiled for this CUDA architecture or a later one.
    pub fn is_cuda_from(self, architecture: u32) -> bool {
        matches!(self, NativeTexts::Cuda(Target::Machine(known) | Target::Ptx(known)) if known >= architecture)
    }
}

/// Where a buffer lives and who can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StorageMode {
    /// Visible to host and device.
    #[default]
    Shared,
    /// Visible to the device only: weights and scratch. No host mirror is kept.
    Private,
}

/// Memory that someone else allocated.
#[derive(Debug)]
pub struct ForeignMemory {
    /// Address in the device's address space.
    pub address: u64,
    /// Bytes from there.
    pub byte_len: u64,
    /// True when nothing may write it.
    pub read_only: bool,
    /// Kept until the last use has completed, then dropped.
    pub owner: Option<Box<dyn Owner>>,
}

/// Anything that keeps foreign memory alive.
pub trait Owner: Any + Send + Sync {}
impl<T: Any + Send + Sync> Owner for T {}

impl Debug for dyn Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Owner")
    }
}

/// A kernel for every backend that has one.
#[derive(Debug, Clone)]
pub struct KernelSource<'a> {
    /// Entry point in `gpu`, and the name in messages.
    pub name: &'a str,
    /// Text in the portable dialect, or one that the device takes beside it ([`NativeTexts`]); empty
    /// when there is none.
    pub gpu: &'a str,
    /// Native implementation.
    pub cpu: Option<CpuKernel>,
}

/// How a kernel is spread over the device.
///
/// The two halves are independent: an operation fills the one for its device's backend, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Launch {
    /// Threadgroups, for GPUs.
    pub groups: [u32; 3],
    /// Threads of a group: a multiple of 32, at most 1024, for GPUs.
    pub threads_per_group: u32,
    /// Independent work items, for CPUs.
    pub items: usize,
    /// Items that are worth handing out together, for CPUs; at least 1.
    pub items_per_chunk: usize,
}

/// When submitted work ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// From the device's start on the submission to its end.
    pub execution: Duration,
    /// From the submission to the device's start.
    pub queued: Duration,
}

/// A family of associated types; see the module's text for the contract.
pub trait Backend: Debug + Sized + 'static {
    /// Which family.
    const KIND: BackendKind;
    /// An opened device.
    type Device: Device<B = Self>;
    /// Memory of a device.
    type Buffer: Buffer;
    /// A compiled kernel; clones are handles.
    type Kernel: Clone + Debug + Send + Sync;
    /// Commands being recorded.
    type Encoder: Encoder<B = Self>;
    /// Commands prepared to run many times.
    type Graph: Debug + Send + Sync;
    /// Submitted work.
    type Pending: Pending;
}

/// An opened device.
pub trait Device: Debug + Send + Sync + 'static {
    /// The family.
    type B: Backend<Device = Self>;

    /// What this device is. Memory figures are read anew at each call.
    fn info(&self) -> DeviceInfo;

    /// Allocates zero-filled memory of exactly `byte_len` bytes, aligned to at least 256.
    fn allocate(&self, byte_len: u64, mode: StorageMode) -> Result<<Self::B as Backend>::Buffer>;

    /// Makes `byte_len` bytes of a file from `offset` (a multiple of the page size) readable for
    /// kernels, without a copy where memory is unified. The buffer is read-only.
    fn map_file(&self, file: &File, offset: u64, byte_len: u64) -> Result<<Self::B as Backend>::Buffer>;

    /// Uses memory that someone else allocated.
    ///
    /// # Safety
    /// * The bytes are valid on this device until the buffer and `memory.owner` are dropped.
    /// * Nobody accesses them in conflict with the commands that use the buffer.
    unsafe fn import(&self, memory: ForeignMemory) -> Result<<Self::B as Backend>::Buffer>;

    /// Compiles a kernel, or takes it from the cache on disk.
    fn compile(&self, source: &KernelSource<'_>) -> Result<<Self::B as Backend>::Kernel>;

    /// Starts to record commands.
    fn encoder(&self) -> Result<<Self::B as Backend>::Encoder>;

    /// Hands recorded commands to the device.
    fn submit(&self, encoder: <Self::B as Backend>::Encoder, label: &str) -> Result<<Self::B as Backend>::Pending>;

    /// Prepares recorded commands to run many times.
    fn instantiate(&self, encoder: <Self::B as Backend>::Encoder, label: &str) -> Result<<Self::B as Backend>::Graph>;

    /// Runs prepared commands once.
    fn replay(&self, graph: &Arc<<Self::B as Backend>::Graph>) -> Result<<Self::B as Backend>::Pending>;

    /// Copies from device memory without unified memory to the host. Returns when done.
    fn download(&self, buffer: &<Self::B as Backend>::Buffer, offset: u64, to: &mut [u8]) -> Result<()>;

    /// Copies from the host to device memory without unified memory. `from` may be reused on return.
    fn upload(&self, buffer: &<Self::B as Backend>::Buffer, offset: u64, from: &[u8]) -> Result<()>;

    /// True when [`Self::residency_commit`] does something on this system.
    fn has_residency_sets(&self) -> bool;

    /// Stages a buffer for residency.
    fn residency_add(&self, buffer: &<Self::B as Backend>::Buffer) -> Result<()>;

    /// Stages the removal of a buffer.
    fn residency_remove(&self, buffer: &<Self::B as Backend>::Buffer) -> Result<()>;

    /// Copies the bytes of a mapped file around `range` into huge pages, where that makes passes over them faster, and
    /// puts the copies in their place: contents and addresses stay. Returns the bytes copied, 0 where there is nothing
    /// to do.
    fn move_to_huge_pages(&self, buffer: &<Self::B as Backend>::Buffer, range: &Range<u64>) -> Result<u64> {
        let _ = (buffer, range);
        Ok(0)
    }

    /// Makes all staged changes take effect.
    fn residency_commit(&self) -> Result<()>;

    /// True on a thread that runs this device's work: there nobody may wait for the device.
    fn on_own_thread(&self) -> bool {
        false
    }

    /// Makes the next submission or replay fail with `message` in place of running, to test what
    /// depends on failures. `false`: this backend cannot.
    fn fail_next_submission(&self, message: &str) -> bool {
        let _ = message;
        false
    }
}

/// Memory of a device. Dropping it frees it at once: the common layer waits until it may.
pub trait Buffer: Debug + Send + Sync + 'static {
    /// Bytes.
    fn byte_len(&self) -> u64;

    /// Address in the device's address space.
    fn address(&self) -> u64;

    /// Where the host sees the memory, if host and device share it.
    fn host_pointer(&self) -> Option<NonNull<u8>>;

    /// True when nothing may write it.
    fn read_only(&self) -> bool;
}

/// A range of a buffer, bound to a kernel argument.
#[derive(Debug)]
pub struct Bound<'a, B: Backend> {
    /// The buffer.
    pub buffer: &'a B::Buffer,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub byte_len: u64,
    /// How the command uses them.
    pub access: Access,
}

impl<B: Backend> Clone for Bound<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Bound<'_, B> {}

/// Commands being recorded.
pub trait Encoder: Debug + Send + 'static {
    /// The family.
    type B: Backend<Encoder = Self>;

    /// Runs a kernel. `params` follows the buffers as one constant block. A launch whose half for
    /// this backend is empty is refused.
    fn dispatch<'a>(
        &mut self,
        kernel: &<Self::B as Backend>::Kernel,
        bindings: &[Bound<'a, Self::B>],
        params: &[u8],
        launch: Launch,
        label: &str,
    ) -> Result<()>;

    /// Copies bytes; both ranges have the same length and do not overlap.
    fn copy(&mut self, from: Bound<'_, Self::B>, to: Bound<'_, Self::B>) -> Result<()>;

    /// Sets bytes.
    fn fill(&mut self, to: Bound<'_, Self::B>, value: u8) -> Result<()>;

    /// Orders what follows after what came before.
    fn barrier(&mut self);

    /// Opens a named group of commands.
    fn push_label(&mut self, label: &str);

    /// Closes the innermost named group.
    fn pop_label(&mut self);
}

/// Submitted work. `wait` and `poll` may be called from several threads and again after the end.
pub trait Pending: Debug + Send + Sync + 'static {
    /// The outcome, once the work has ended. Never blocks.
    fn poll(&self) -> Option<Result<Timing>>;

    /// Blocks until the work has ended; the status is read after that.
    fn wait(&self) -> Result<Timing>;
}
