//! Runs the GPU kernels' own texts on the host.
//!
//! A kernel's text is compiled by the system's C++ compiler into a small program, the runner, in
//! which every GPU thread is a fiber. A dispatch hands the runner the bytes of all bindings and
//! takes back those of the written ones. So sanitizers see the kernel alone: each binding is a heap
//! block of its own, and a report, a crash, a barrier that not all threads reach, or a `FAULT`
//! becomes the error of the submission, with its text.
//!
//! It is made for tests. A switch between GPU threads takes some 20 ns, far more under a sanitizer,
//! so shapes should stay small.

mod compiler;
mod device;
mod encoder;
mod runner;
mod watch;

pub use device::{Device, EmulatorOptions, Sanitizer, Schedule};
pub use encoder::Encoder;
pub use watch::Watcher;

use crate::{
    backend::{Backend, BackendKind},
    cpu::{self, CpuKernel},
};

/// The emulating backend.
#[derive(Debug)]
pub struct Emulator;

impl Backend for Emulator {
    const KIND: BackendKind = BackendKind::Emulator;
    type Device = Device;
    type Buffer = cpu::Buffer;
    type Kernel = CpuKernel;
    type Encoder = Encoder;
    type Graph = cpu::Program;
    type Pending = cpu::Pending;
}
