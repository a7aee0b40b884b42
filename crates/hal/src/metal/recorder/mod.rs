//! Calls as if Metal were there, written down as text.
//!
//! Each call is a line; objects have numbers. The rules of Metal that can be checked are: a broken one is a line
//! that begins with `!`. Command buffers are carried out on the host, in order; [`Run`] says what does the work
//! of a kernel.
//!
//! | line | call |
//! | --- | --- |
//! | `newBuffer b1 8192 shared`, `newBufferNoCopy b2 16384` | memory |
//! | `release b1` | the last reference is gone |
//! | `newLibrary l1 Metal3_0`, `newPipeline p1 add_f32` | kernels |
//! | `commandBuffer c1 "label"`, `computeEncoder c1 concurrent` | a command buffer and its one encoder |
//! | `setPipeline p1`, `setBuffer 0 b1+256`, `setBytes 2 [16]` | arguments |
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
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

pub use objects::Live;

use objects::{Counters, RecordedCommands};

use super::lock;
use crate::{
    HalError, Result,
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
    /// By a thread of their own, as a GPU does it.
    Background,
}

/// What does the work of a kernel. Copies and fills need nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Run {
    /// Nothing.
    #[default]
    Nothing,
    /// Its function for CPUs, with a work item for each threadgroup.
    Host,
    /// Its text, on the emulator.
    Emulator(EmulatorOptions),
}

/// How to make a recorder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecorderOptions {
    /// When command buffers are carried out.
    pub completion: Completion,
    /// What does the work of a kernel.
    pub run: Run,
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
    engine: Arc<Engine>,
    worker: Option<JoinHandle<()>>,
    emulator: Option<emulator::Device>,
    numbers: Numbers,
    failure: Mutex<Option<String>>,
}

/// What carries out command buffers.
#[derive(Debug)]
struct Engine {
    cpu: cpu::Device,
    queue: Mutex<Queue>,
    available: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    committed: VecDeque<Arc<RecordedCommands>>,
    stop: bool,
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
        let cpu = cpu::Device::open(&CpuOptions { threads: Some(1), ..CpuOptions::default() })?;
        let engine = Arc::new(Engine { cpu, queue: Mutex::default(), available: Condvar::new() });
        let worker = match options.completion {
            Completion::Background => {
                let engine = Arc::clone(&engine);
                let failed = |error: std::io::Error| HalError::Io {
                    operation: "start a thread".into(),
                    message: error.to_string(),
                };
                Some(thread::Builder::new().name("recorder".into()).spawn(move || engine.work()).map_err(failed)?)
            }
            Completion::AtCommit | Completion::AtWait => None,
        };
        let emulator = match &options.run {
            Run::Emulator(options) => Some(emulator::Device::open(options)?),
            Run::Nothing | Run::Host => None,
        };
        Ok(Self {
            options: options.clone(),
            log: TraceLog::default(),
            live: Arc::default(),
            engine,
            worker,
            emulator,
            numbers: Numbers::default(),
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
        while let Some(commands) = self.engine.take_first() {
            self.engine.carry_out(&commands);
        }
    }

    fn line(&self, line: std::fmt::Arguments<'_>) {
        self.log.line(line);
    }
}

impl Drop for MetalRecorder {
    fn drop(&mut self) {
        lock(&self.engine.queue).stop = true;
        self.engine.available.notify_all();
        let Some(worker) = self.worker.take() else { return };
        // The last handle of a device may be held by a kernel.
        if worker.thread().id() != thread::current().id() && worker.join().is_err() {
            tracing::error!("the recorder's thread panicked");
        }
    }
}
