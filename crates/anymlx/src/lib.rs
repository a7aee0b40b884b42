//! Typed GPU buffers, a command encoder that derives its own barriers, and quantised kernels: the
//! same program on Apple Metal, NVIDIA CUDA and plain CPUs.
//!
//! * [`MlxDevice`] opens a device, allocates and maps memory.
//! * [`MlxBuffer`] is dtype and shape over shared memory; views and clones copy nothing.
//! * [`CommandEncoder`] records work; [`CommandGraph`] replays it.
//! * [`ops`] are the operations of transformer models.

pub mod bandwidth;
mod buffer;
mod cpu_level;
mod device;
mod encoder;
pub mod env;
mod error;
mod file;
mod guard;
mod mapped;
#[cfg_attr(not(any(target_vendor = "apple", anymlx_check_metal)), path = "metal/absent.rs")]
mod metal;
pub mod ops;
mod pool;
mod raw;
mod registry;
mod scratch;
mod transfer;
mod weight;

pub use anymlx_formats::{
    DType, FormatError,
    mlx::{MlxType, Mode as MlxMode, Quantization as MlxQuantization},
    quant::{QuantType, TensorType},
};
#[cfg(any(target_vendor = "apple", anymlx_check_metal))]
pub use anymlx_hal::metal::MetalBuffer;
pub use anymlx_hal::{
    BackendKind, CpuKernel, DeviceInfo, Invocation, Kernel, KernelFault, KernelResult, KernelSource, Launch,
    NativeTexts, Owner, PoolStats, ResidencyStats, StorageMode, Timing, WholeArguments,
    cuda::{CudaContext, CudaOptions},
    emulator::{EmulatorOptions, Sanitizer, Schedule, Watcher},
    metal::{Completion, MetalOptions, MetalRecorder, RecorderOptions, Run},
    trace::{TraceLog, TraceOptions},
};
pub use buffer::MlxBuffer;
pub use cpu_level::CpuLevel;
pub use device::{CpuDeviceOptions, DeviceSelector, MlxDevice};
pub use encoder::{Binding, CommandEncoder, CommandGraph, ProfileEntry, Submission, read, read_write, write};
pub use error::{MlxError, Result};
pub use file::HostFile;
pub use guard::{ReadGuard, WriteGuard};
pub use mapped::MappedFile;
pub use pool::MlxBufferPool;
pub use raw::RawBuffer;
pub use registry::{KernelKey, KernelRegistry};
pub use weight::{MlxMatrix, Weight};
