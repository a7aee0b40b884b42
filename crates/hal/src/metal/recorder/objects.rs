//! Numbered objects that notice their end.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Condvar, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::super::{CompileOptions, Ending, lock};
use crate::{
    Access, StorageMode,
    cpu::{self, CpuKernel},
    trace::TraceLog,
};

/// Numbers of objects that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live {
    /// `MTLBuffer`
    pub buffers: usize,
    /// `MTLLibrary`
    pub libraries: usize,
    /// `MTLComputePipelineState`
    pub pipelines: usize,
    /// `MTLCommandBuffer`
    pub command_buffers: usize,
    /// Encoders that have not ended
    pub encoders: usize,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    buffers: AtomicUsize,
    libraries: AtomicUsize,
    pipelines: AtomicUsize,
    command_buffers: AtomicUsize,
    encoders: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Buffer,
    Library,
    Pipeline,
    CommandBuffer,
    Encoder,
}

impl Counters {
    fn of(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Buffer => &self.buffers,
            Kind::Library => &self.libraries,
            Kind::Pipeline => &self.pipelines,
            Kind::CommandBuffer => &self.command_buffers,
            Kind::Encoder => &self.encoders,
        }
    }

    pub(super) fn now(&self) -> Live {
        let count = |kind| self.of(kind).load(Ordering::Relaxed);
        Live {
            buffers: count(Kind::Buffer),
            libraries: count(Kind::Library),
            pipelines: count(Kind::Pipeline),
            command_buffers: count(Kind::CommandBuffer),
            encoders: count(Kind::Encoder),
        }
    }
}

/// Counts an object as long as it exists.
#[derive(Debug)]
pub(super) struct Counted {
    kind: Kind,
    counters: Arc<Counters>,
}

impl Counted {
    pub(super) fn new(kind: Kind, counters: &Arc<Counters>) -> Self {
        counters.of(kind).fetch_add(1, Ordering::Relaxed);
        Self { kind, counters: Arc::clone(counters) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counters.of(self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Memory with a number; its last clone writes its end down.
#[derive(Clone)]
pub struct RecordedBuffer(pub(super) Arc<BufferObject>);

pub(super) struct BufferObject {
    pub(super) number: usize,
    pub(super) mode: StorageMode,
    /// Command buffers keep the memory, but not the object: they retain nothing.
    pub(super) memory: Arc<cpu::Buffer>,
    /// Unfinished command buffers that use the object.
    pub(super) users: Mutex<Vec<Weak<RecordedCommands>>>,
    pub(super) log: TraceLog,
    pub(super) _counted: Counted,
}

impl fmt::Debug for RecordedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0.number)
    }
}

impl Drop for BufferObject {
    fn drop(&mut self) {
        let users = lock(&self.users).iter().filter_map(Weak::upgrade).find(|user| user.is_unfinished());
        match users {
            Some(user) => self.log.line(format_args!("! release b{}, which c{} uses", self.number, user.number)),
            None => self.log.line(format_args!("release b{}", self.number)),
        }
    }
}

/// A text.
#[derive(Clone)]
pub struct RecordedLibrary(pub(super) Arc<LibraryObject>);

pub(super) struct LibraryObject {
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) options: CompileOptions,
    pub(super) _counted: Counted,
}

impl fmt::Debug for RecordedLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l{} {:?}", self.0.number, self.0.options)
    }
}

/// A kernel of a text.
#[derive(Clone)]
pub struct RecordedPipeline(pub(super) Arc<PipelineObject>);

pub(super) struct PipelineObject {
    pub(super) number: usize,
    pub(super) name: String,
    /// What does its work, if anything does.
    pub(super) kernel: Option<CpuKernel>,
    pub(super) _counted: Counted,
}

impl fmt::Debug for RecordedPipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0.number)
    }
}

/// A bound range.
#[derive(Debug, Clone)]
pub(super) struct BoundMemory {
    pub(super) memory: Arc<cpu::Buffer>,
    pub(super) offset: u64,
    pub(super) byte_len: u64,
    pub(super) access: Access,
}

#[derive(Debug)]
pub(super) enum Step {
    Dispatch {
        name: String,
        kernel: Option<CpuKernel>,
        arguments: Vec<BoundMemory>,
        block: Vec<u8>,
        groups: [u32; 3],
        threads: u32,
    },
    Barrier,
}

/// A command buffer.
pub struct RecordedCommands {
    pub(super) number: usize,
    pub(super) label: String,
    pub(super) state: Mutex<State>,
    pub(super) ended: Condvar,
    pub(super) _counted: Counted,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) steps: Vec<Step>,
    pub(super) handlers: Vec<Box<dyn Fn() + Send + Sync>>,
    pub(super) committed: bool,
    pub(super) ending: Option<Ending>,
    /// End with this error in place of running.
    pub(super) failure: Option<String>,
}

impl RecordedCommands {
    pub(super) fn is_unfinished(&self) -> bool {
        lock(&self.state).ending.is_none()
    }

    /// Blocks until somebody has carried it out.
    pub(super) fn wait(&self) {
        let unfinished = |state: &mut State| state.ending.is_none();
        let guard = self.ended.wait_while(lock(&self.state), unfinished);
        drop(guard.unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl fmt::Debug for RecordedCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{} {:?}", self.number, self.label)
    }
}

/// A compute encoder.
#[derive(Debug)]
pub struct RecordedEncoder {
    pub(super) commands: Arc<RecordedCommands>,
    pub(super) table: RefCell<Table>,
    pub(super) log: TraceLog,
    pub(super) ended: bool,
    pub(super) _counted: Counted,
}

/// What is set.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) pipeline: Option<RecordedPipeline>,
    pub(super) arguments: BTreeMap<usize, BoundMemory>,
    pub(super) block: Option<(usize, Vec<u8>)>,
}

impl Drop for RecordedEncoder {
    fn drop(&mut self) {
        if !self.ended {
            self.log.line(format_args!("! encoder of c{} released without endEncoding", self.commands.number));
        }
    }
}
