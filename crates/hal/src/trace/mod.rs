//! Records every call that reaches a backend as a line of text, and computes on the host.
//!
//! Golden texts of the record prove scheduling, residency and lifetimes without any GPU. With
//! [`TraceOptions::unified`] off, host and device memory are apart as on an NVIDIA GPU, so that
//! mirrors and transfers are exercised as well.
//!
//! | line | meaning |
//! | --- | --- |
//! | `alloc b1 8192 shared` | memory of a buffer, numbered from 1 |
//! | `map b2 4096`, `import b3 64` | file-backed and foreign memory |
//! | `free b1` | the memory is gone |
//! | `resident+ b1`, `resident- b1`, `resident commit` | residency, staged and committed |
//! | `upload b1[0..64]`, `download b1[0..64]` | host transfers, without unified memory |
//! | `encode` | an encoder starts |
//! | `dispatch rms_norm b1[0..64] b2[0..8] items=1 grid=7x1x1x32` | one kernel |
//! | `copy b1[0..8] b2[8..16]`, `fill b1[0..8] 0` | transfers on the device |
//! | `barrier`, `push "label"`, `pop` | order and labels |
//! | `submit "label"`, `graph g1 "label"`, `replay g1`, `wait "label"` | work handed over and waited for |

mod buffer;
mod device;
mod encoder;
mod log;

pub use buffer::Buffer;
pub use device::{Device, Graph, Pending, TraceOptions};
pub use encoder::Encoder;
pub use log::TraceLog;

use crate::{
    backend::{Backend, BackendKind},
    cpu::CpuKernel,
};

/// The recording backend.
#[derive(Debug)]
pub struct Trace;

impl Backend for Trace {
    const KIND: BackendKind = BackendKind::Trace;
    type Device = Device;
    type Buffer = Buffer;
    type Kernel = CpuKernel;
    type Encoder = Encoder;
    type Graph = Graph;
    type Pending = Pending;
}
