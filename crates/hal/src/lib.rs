//! Mechanism under anymlx: memory, kernels and order. Nothing here knows an operation, an element
//! type or a shape.
//!
//! * [`backend`] is the contract that the backends ([`cpu`], [`cuda`], [`metal`], [`trace`], [`emulator`]) fulfil; read it first.
//! * [`dialect`] is the language of GPU kernels.
//! * [`any`] makes one closed type of them.
//! * [`Context`], [`Storage`], [`Recorder`], [`Submission`] and [`Graph`] are the common layer:
//!   checks, hazards, submission order, host access, poison, residency, pools.

pub mod any;
pub mod backend;
mod cache;
mod context;
pub mod cpu;
pub mod cuda;
pub mod dialect;
pub mod emulator;
mod error;
mod hazard;
mod ledger;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
pub mod metal;
mod order;
mod pool;
mod ranges;
mod recorder;
mod residency;
mod storage;
mod sync;
mod system;
pub mod trace;
mod transfer;
mod usage;

pub use backend::{
    BackendKind, DeviceInfo, ForeignMemory, KernelSource, Launch, NativeTexts, Owner, StorageMode, Timing,
};
pub use context::{Context, Kernel, Residency, Submission};
pub use cpu::{CpuKernel, Invocation, KernelFault, KernelResult, WholeArguments};
pub use error::{HalError, Result};
pub use hazard::{Access, HazardTracker};
pub use pool::{BlockPool, Lease, PoolStats, size_class};
pub use ranges::RangeSet;
pub use recorder::{Binding, Graph, Recorder};
pub use residency::ResidencyStats;
pub use storage::{HostLock, Storage};
pub use usage::HostAccess;
