//! NVIDIA GPUs through the driver API and NVRTC, both loaded at run time: a build needs neither.
//!
//! * A device is a context of the driver with one stream. What is put on the stream runs in order:
//!   submissions, transfers, zero-filling.
//! * A submission is bracketed by two events, for waiting and timing. After its last command the
//!   stream writes its number into host memory (`context.rs`): when the context fails, the first
//!   submission that has no number there is the one that failed, and later ones report a lost
//!   device. Such a failure (an illegal address, say) ruins every context of the process; the process
//!   goes on. `FAULT` in a kernel's text fails its submission alone.
//! * A graph is built node by node, as one chain unless asked otherwise ([`GraphEdges`]).
//! * Kernels are compiled for the exact chip when first used; machine code is kept on disk.
//! * Memory is allocated from the driver as asked for and freed at once. Freeing waits for the whole
//!   device, so whatever churns belongs into a pool.

mod buffer;
mod compiler;
mod context;
mod device;
mod driver;
mod encoder;
mod graph;
mod kernel;
mod pending;
mod staging;
#[cfg(test)]
mod tests;

pub use buffer::Buffer;
pub use compiler::{Compiled, Compiler, Target};
pub use device::{CudaContext, CudaOptions, Device};
pub use driver::list;
pub use encoder::Encoder;
pub use graph::{Graph, GraphEdges};
pub use kernel::Kernel;
pub use pending::Pending;

use std::sync::{Mutex, MutexGuard};

use crate::backend::{Backend, BackendKind};

/// The CUDA backend.
#[derive(Debug)]
pub struct Cuda;

impl Backend for Cuda {
    const KIND: BackendKind = BackendKind::Cuda;
    type Device = Device;
    type Buffer = Buffer;
    type Kernel = Kernel;
    type Encoder = Encoder;
    type Graph = Graph;
    type Pending = Pending;
}

/// Locks a mutex whose data stays consistent across panics. The standard library's, not the model
/// checker's: the driver is no part of any model.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
