//! Apple GPUs through Metal.
//!
//! * The backend is written against [`Api`], the calls of Metal that it makes. `Apple` is Metal itself
//!   (Apple targets only); [`MetalRecorder`] writes the calls down and can run the kernels' texts on the
//!   emulator, so that this very code is tested where there is no Metal.
//! * A device has one queue. Recorded commands are kept as a list; a submission, or a replay of a graph,
//!   encodes the list into one command buffer with one concurrent compute encoder, and puts a memory
//!   barrier exactly where the common layer asks for one. Copies and fills are kernels, so that they need
//!   no other encoder.
//! * Order from submission to submission is Metal's own: buffers are hazard tracked, and foreign buffers
//!   that are not are refused.
//! * Command buffers hold no references. [`Pending`] keeps kernels, and the common layer buffers, until
//!   the end; status, error and times are read after the wait.
//! * A kernel reports a `FAULT` through a few words of a shared buffer, bound at index 30, that belong to
//!   its submission.
//! * Long-lived buffers join one `MTLResidencySet`, where the system has them.
//!
//! `docs/metal.md` says what of this has been shown, and how.

mod api;
#[cfg(any(target_vendor = "apple", anymlx_check_metal))]
mod apple;
mod buffer;
mod device;
mod encoder;
mod faults;
mod kernel;
mod pending;
mod recorder;
mod residency;
mod shared;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{
    fmt::Debug,
    marker::PhantomData,
    sync::{Mutex, MutexGuard},
};

pub use api::{Api, Argument, CompileOptions, Ending, Facts, LanguageVersion, PipelineLimits};
#[cfg(any(target_vendor = "apple", anymlx_check_metal))]
pub use apple::{Apple, MetalBuffer};
pub use buffer::Buffer;
pub use device::{Device, MetalOptions};
pub use encoder::{Encoder, Graph};
pub use kernel::{Kernel, TRANSFER};
pub use pending::Pending;
pub use recorder::{Completion, Live, MetalRecorder, RecorderOptions, Run};

use crate::backend::{Backend, BackendKind};

/// The Metal backend over the calls of `A`.
#[derive(Debug)]
pub struct Metal<A>(PhantomData<A>);

impl<A: Api> Backend for Metal<A> {
    const KIND: BackendKind = BackendKind::Metal;
    type Device = Device<A>;
    type Buffer = Buffer<A>;
    type Kernel = Kernel<A>;
    type Encoder = Encoder<A>;
    type Graph = Graph<A>;
    type Pending = Pending<A>;
}

/// Locks a mutex whose data stays consistent across panics. The standard library's, not the model
/// checker's: Metal is no part of any model.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
