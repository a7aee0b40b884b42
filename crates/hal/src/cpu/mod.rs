//! Host processors: memory of the process, kernels as Rust functions, a persistent thread team.

mod buffer;
mod device;
mod encoder;
mod kernel;
pub(crate) mod latch;
mod mapping;
pub(crate) mod program;
pub(crate) mod queue;
pub(crate) mod team;

pub use buffer::Buffer;
pub use device::{CpuOptions, Device, ProfileEntry};
pub use encoder::Encoder;
pub use kernel::{CpuKernel, Invocation, KernelFault, KernelResult, WholeArguments};
pub use program::Program;
pub use queue::Pending;

use crate::backend::{Backend, BackendKind};

/// The CPU backend.
#[derive(Debug)]
pub struct Cpu;

impl Backend for Cpu {
    const KIND: BackendKind = BackendKind::Cpu;
    type Device = Device;
    type Buffer = Buffer;
    type Kernel = CpuKernel;
    type Encoder = Encoder;
    type Graph = Program;
    type Pending = Pending;
}
