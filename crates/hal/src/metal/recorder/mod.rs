//! Calls as if Metal were there, written down as text.
//!
//! Each call is a line; objects have numbers. The rules of Metal that can be checked are: a broken one is a line
//! that begins with `!`. Command buffers are carried out on the host, in order: copies and fills always, other
//! kernels where an emulator is given.
//!
//! | line | call |
//! | --- | --- |
//! | `newBuffer b1 8192 shared`, `newBufferNoCopy b2 16384` | memory |
//! | `release b1` | the last reference is gone |
//! | `newLibrary l1 Metal3_0`, `newPipeline p1 add_f32` | kernels |
//! | `commandBuffer c1 "label"`, `computeEncoder c1 concurrent` | a command buffer and its one encoder |
//! | `setPipeline p1`, `setBuffer 0 b1+256`, `setBytes 2 [16]`, `setThreadgroupMemory 0 [1024]` | arguments |
//! | `dispatch 4x1x1 of 256`, `barrier buffers`, `pushGroup "x"`, `popGroup`, `endEncoding` | commands |
//! | `onCompleted c1`, `commit c1`, `wait c1`, `status c1 completed` | submission |
//! | `residency new`, `residency attach`, `residency + b1`, `residency - b1`, `residency commit`, `residency request`, `residency end`, `residency detach` | residency |
//! | `startCapture`, `stopCapture` | captures |

mod calls;
mod objects;
mod run;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

pub use objects::Live;


use objects::{Counters, RecordedCommands};

use super::lock;
use crate::{
    Result,
    cpu::{self, CpuOptions},
    emulator::{self, EmulatorOptions},
    trace::TraceLog,
};

/// When command buffers are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Completion {
    /// At once.
    #[default]
    AtCommit,
    /// When somebody waits for them or for a later one, or at [`MetalRecorder::finish`].
    AtWait,
}

/// How to make a recorder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecorderOptions {
    /// When command buffers are carried out.
    pub completion: Completion,
    /// What runs the kernels; `None`: they do nothing.
    pub emulator: Option<EmulatorOptions>,
    /// The system has no residency sets.
    pub without_residency_sets: bool,
    /// What `newResidencySetWithDescriptor:` fails with.
    pub residency_failure: Option<String>,
    /// Bytes of the largest buffer; `None`: as much as the machine has.
    pub max_buffer_bytes: Option<u64>,
}

/// A Metal that writes down what it is asked.
#[derive(Debug)]
pub struct MetalRecorder {
    options: RecorderOptions,
    log: TraceLog,
    live: Arc<Counters>,
    cpu: cpu::Device,
    emulator: Option<emulator::Device>,
    numbers: Numbers,
    queue: Mutex<VecDeque<Arc<RecordedCommands>>>,
    failure: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Numbers {
    buffers: AtomicUsize,
    libraries: AtomicUsize,
    pipelines: AtomicUsize,
    commands: AtomicUsize,
}

fn next(number: &AtomicUsize) -> usize {
    number.fetch_add(1, Ordering::Relaxed) + 1
}

impl MetalRecorder {
    /// A recorder with an empty record.
    ///
    /// # Errors
    /// `DeviceNotFound` when the emulator has no compiler; as [`cpu::Device::open`].
    pub fn new(options: &RecorderOptions) -> Result<Self> {
        Ok(Self {
            options: options.clone(),
            log: TraceLog::default(),
            live: Arc::default(),
            cpu: cpu::Device::open(&CpuOptions { threads: Some(1), ..CpuOptions::default() })?,
            emulator: options.emulator.as_ref().map(emulator::Device::open).transpose()?,
            numbers: Numbers::default(),
            queue: Mutex::default(),
            failure: Mutex::default(),
        })
    }

    /// The record.
    pub fn log(&self) -> TraceLog {
        self.log.clone()
    }

    /// Objects that exist now.
    pub fn live(&self) -> Live {
        self.live.now()
    }

    /// Carries out every command buffer that is committed.
    pub fn finish(&self) {
        while let Some(commands) = self.take_first() {
            self.carry_out(&commands);
        }
    }

    fn take_first(&self) -> Option<Arc<RecordedCommands>> {
        lock(&self.queue).pop_front()
    }

    fn line(&self, line: std::fmt::Arguments<'_>) {
        self.log.line(line);
    }
}
