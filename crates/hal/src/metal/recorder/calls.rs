//! Every call as a line.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    ptr::NonNull,
    sync::{Arc, Condvar},
    thread,
};

use super::{
    Completion, MetalRecorder, next,
    objects::{
        BoundMemory, BufferObject, Counted, Kind, LibraryObject, PipelineObject, RecordedBuffer, RecordedCommands,
        RecordedEncoder, RecordedLibrary, RecordedPipeline, State, Step, Table,
    },
    run::now,
};
use crate::{
    CpuKernel, Owner, StorageMode,
    backend::{Buffer as _, Device as _, ForeignMemory},
    cpu,
    metal::{Api, Argument, CompileOptions, Ending, Facts, PipelineLimits, kernel::FAULT_INDEX, lock},
};

/// Metal's limit on `setBytes`.
const MAX_BYTES: usize = 4096;
const REGISTRY_ID: u64 = 1;
/// Threads of a group that any kernel of the dialect may have.
const MAX_THREADS: u32 = 1024;

thread_local! {
    /// Autorelease pools around this point of the thread.
    static POOLS: Cell<usize> = const { Cell::new(0) };
}

impl MetalRecorder {
    /// Objects that Metal returns autoreleased live until the pool's end: without a pool they stay.
    fn in_pool(&self, call: &str) {
        if POOLS.get() == 0 {
            self.line(format_args!("! {call} outside an autorelease pool"));
        }
    }

    fn buffer(&self, memory: cpu::Buffer, mode: StorageMode) -> RecordedBuffer {
        RecordedBuffer(Arc::new(BufferObject {
            number: next(&self.numbers.buffers),
            mode,
            memory: Arc::new(memory),
            users: Default::default(),
            log: self.log(),
            _counted: Counted::new(Kind::Buffer, &self.live),
        }))
    }
}

impl Api for MetalRecorder {
    type Buffer = RecordedBuffer;
    type Library = RecordedLibrary;
    type Pipeline = RecordedPipeline;
    type CommandBuffer = Arc<RecordedCommands>;
    type Encoder = RecordedEncoder;
    type ResidencySet = ();

    fn facts(&self) -> Facts {
        let memory = self.engine.cpu.info();
        Facts {
            name: "metal recorder".into(),
            registry_id: REGISTRY_ID,
            system: "no system".into(),
            unified: true,
            max_buffer_bytes: self.options.max_buffer_bytes.unwrap_or(memory.max_buffer_bytes),
            working_set_bytes: memory.memory_total,
            threadgroup_bytes: 32 * 1024,
            apple_family: 7,
            residency_sets: !self.options.without_residency_sets,
        }
    }

    fn allocated(&self) -> u64 {
        let info = self.engine.cpu.info();
        info.memory_total - info.memory_free
    }

    fn now(&self) -> f64 {
        now()
    }

    fn autorelease<R>(&self, work: impl FnOnce() -> R) -> R {
        POOLS.set(POOLS.get() + 1);
        let result = work();
        POOLS.set(POOLS.get() - 1);
        result
    }

    fn new_buffer(&self, byte_len: usize, mode: StorageMode) -> Option<RecordedBuffer> {
        let memory = self.engine.cpu.allocate(byte_len as u64, mode).ok()?;
        let buffer = self.buffer(memory, mode);
        let mode = if mode == StorageMode::Private { "private" } else { "shared" };
        self.line(format_args!("newBuffer {buffer:?} {byte_len} {mode}"));
        Some(buffer)
    }

    unsafe fn new_buffer_no_copy(
        &self,
        start: NonNull<u8>,
        byte_len: usize,
        owner: Option<Box<dyn Owner>>,
    ) -> Option<RecordedBuffer> {
        let page = crate::system::page_bytes();
        if !start.addr().get().is_multiple_of(page) || !byte_len.is_multiple_of(page) {
            self.line(format_args!("! newBufferNoCopy of {byte_len} bytes that are not whole pages"));
            return None;
        }
        let address = start.as_ptr().expose_provenance() as u64;
        let memory = ForeignMemory { address, byte_len: byte_len as u64, read_only: false, owner };
        // SAFETY: newBufferWithBytesNoCopy: the caller's promise that the pages stay mapped until the owner is dropped.
        let memory = unsafe { self.engine.cpu.import(memory) }.ok()?;
        let buffer = self.buffer(memory, StorageMode::Shared);
        self.line(format_args!("newBufferNoCopy {buffer:?} {byte_len}"));
        Some(buffer)
    }

    fn length(&self, buffer: &RecordedBuffer) -> u64 {
        buffer.0.memory.byte_len()
    }

    fn contents(&self, buffer: &RecordedBuffer) -> Option<NonNull<u8>> {
        if buffer.0.mode == StorageMode::Private { None } else { buffer.0.memory.host_pointer() }
    }

    fn gpu_address(&self, buffer: &RecordedBuffer) -> u64 {
        buffer.0.memory.address()
    }

    fn registry_id(&self, _: &RecordedBuffer) -> u64 {
        REGISTRY_ID
    }

    fn is_tracked(&self, _: &RecordedBuffer) -> bool {
        true
    }

    fn new_library(&self, text: &str, options: CompileOptions) -> Result<RecordedLibrary, String> {
        self.in_pool("newLibrary");
        let number = next(&self.numbers.libraries);
        self.line(format_args!("newLibrary l{number} {:?}", options.language));
        let _counted = Counted::new(Kind::Library, &self.live);
        Ok(RecordedLibrary(Arc::new(LibraryObject { number, text: text.to_owned(), options, _counted })))
    }

    fn new_pipeline(
        &self,
        library: &RecordedLibrary,
        function: &str,
        _: Option<&Path>,
        host: Option<&CpuKernel>,
    ) -> Result<RecordedPipeline, String> {
        self.in_pool("newPipeline");
        let kernel = self.kernel(&library.0.text, function, host)?;
        let number = next(&self.numbers.pipelines);
        self.line(format_args!("newPipeline p{number} {function} of l{}", library.0.number));
        let _counted = Counted::new(Kind::Pipeline, &self.live);
        Ok(RecordedPipeline(Arc::new(PipelineObject { number, name: function.to_owned(), kernel, _counted })))
    }

    fn pipeline_limits(&self, _: &RecordedPipeline) -> PipelineLimits {
        PipelineLimits { threads: MAX_THREADS, width: 32, threadgroup_bytes: 0 }
    }

    unsafe fn new_command_buffer(&self, label: &str) -> Option<Arc<RecordedCommands>> {
        self.in_pool("commandBuffer");
        let number = next(&self.numbers.commands);
        self.line(format_args!("commandBuffer c{number} {label:?}"));
        Some(Arc::new(RecordedCommands {
            number,
            label: label.to_owned(),
            state: State::default().into(),
            ended: Condvar::new(),
            _counted: Counted::new(Kind::CommandBuffer, &self.live),
        }))
    }

    fn new_encoder(&self, commands: &Arc<RecordedCommands>) -> Option<RecordedEncoder> {
        self.in_pool("computeEncoder");
        self.line(format_args!("computeEncoder c{} concurrent", commands.number));
        Some(RecordedEncoder {
            commands: Arc::clone(commands),
            table: RefCell::new(Table::default()),
            log: self.log(),
            ended: false,
            _counted: Counted::new(Kind::Encoder, &self.live),
        })
    }

    fn set_pipeline(&self, encoder: &RecordedEncoder, pipeline: &RecordedPipeline) {
        self.line(format_args!("setPipeline {pipeline:?}"));
        encoder.table.borrow_mut().pipeline = Some(pipeline.clone());
    }

    unsafe fn set_buffer(&self, encoder: &RecordedEncoder, argument: &Argument<Self>, index: usize) {
        let Argument { buffer, offset, byte_len, access } = argument;
        self.line(format_args!("setBuffer {index} {buffer:?}+{offset}"));
        if offset.checked_add(*byte_len).is_none_or(|end| end > buffer.0.memory.byte_len()) {
            self.line(format_args!("! {byte_len} bytes at {offset} leave {buffer:?}"));
        }
        lock(&buffer.0.users).retain(|user| user.upgrade().is_some_and(|user| user.is_unfinished()));
        lock(&buffer.0.users).push(Arc::downgrade(&encoder.commands));
        let memory = Arc::clone(&buffer.0.memory);
        let bound = BoundMemory { memory, offset: *offset, byte_len: *byte_len, access: *access };
        encoder.table.borrow_mut().arguments.insert(index, bound);
    }

    fn set_bytes(&self, encoder: &RecordedEncoder, bytes: &[u8], index: usize) {
        self.line(format_args!("setBytes {index} [{}]", bytes.len()));
        if bytes.len() > MAX_BYTES {
            self.line(format_args!("! setBytes of more than {MAX_BYTES} bytes"));
        }
        encoder.table.borrow_mut().block = Some((index, bytes.to_vec()));
    }

    unsafe fn dispatch(&self, encoder: &RecordedEncoder, [x, y, z]: [u32; 3], threads: u32) {
        self.line(format_args!("dispatch {x}x{y}x{z} of {threads}"));
        let mut table = encoder.table.borrow_mut();
        let Some(pipeline) = table.pipeline.clone() else {
            return self.line(format_args!("! dispatch without a pipeline"));
        };
        // What was set for the dispatch before may be left over behind this one's arguments.
        let block = table.block.take();
        let count = block.as_ref().map(|(index, _)| *index).unwrap_or(FAULT_INDEX);
        let arguments = table.arguments.range(..count).map(|(_, bound)| bound.clone()).collect();
        let fault = table.arguments.remove(&FAULT_INDEX);
        table.arguments.clear();
        table.arguments.extend(fault.map(|fault| (FAULT_INDEX, fault)));
        lock(&encoder.commands.state).steps.push(Step::Dispatch {
            name: pipeline.0.name.clone(),
            kernel: pipeline.0.kernel.clone(),
            arguments,
            block: block.map_or_else(Vec::new, |(_, bytes)| bytes),
            groups: [x, y, z],
            threads,
        });
    }

    fn barrier(&self, encoder: &RecordedEncoder) {
        self.line(format_args!("barrier buffers"));
        lock(&encoder.commands.state).steps.push(Step::Barrier);
    }

    fn push_group(&self, _: &RecordedEncoder, name: &str) {
        self.line(format_args!("pushGroup {name:?}"));
    }

    fn pop_group(&self, _: &RecordedEncoder) {
        self.line(format_args!("popGroup"));
    }

    fn end_encoding(&self, mut encoder: RecordedEncoder) {
        self.line(format_args!("endEncoding"));
        encoder.ended = true;
    }

    fn on_completed(&self, commands: &Arc<RecordedCommands>, handler: Box<dyn Fn() + Send + Sync>) {
        self.line(format_args!("onCompleted c{}", commands.number));
        let mut state = lock(&commands.state);
        if state.committed {
            self.line(format_args!("! completion handler of c{} after its commit", commands.number));
        }
        state.handlers.push(handler);
    }

    fn commit(&self, commands: &Arc<RecordedCommands>) {
        self.in_pool("commit");
        self.line(format_args!("commit c{}", commands.number));
        if std::mem::replace(&mut lock(&commands.state).committed, true) {
            return self.line(format_args!("! c{} committed twice", commands.number));
        }
        let failure = lock(&self.failure).take();
        lock(&commands.state).failure = failure;
        lock(&self.engine.queue).committed.push_back(Arc::clone(commands));
        match self.options.completion {
            Completion::AtCommit => self.finish(),
            Completion::AtWait => {}
            Completion::Background => self.engine.available.notify_all(),
        }
    }

    fn wait(&self, commands: &Arc<RecordedCommands>) {
        self.in_pool("wait");
        self.line(format_args!("wait c{}", commands.number));
        if !lock(&commands.state).committed {
            self.line(format_args!("! wait for c{}, which was not committed", commands.number));
        }
        match self.options.completion {
            Completion::AtCommit | Completion::AtWait => self.engine.finish_through(commands),
            Completion::Background => commands.wait(),
        }
    }

    fn ending(&self, commands: &Arc<RecordedCommands>) -> Ending {
        let ending = lock(&commands.state).ending.clone().unwrap_or(Ending::Unfinished);
        let name = match &ending {
            Ending::Unfinished => "unfinished",
            Ending::Completed { .. } => "completed",
            Ending::Failed(_) => "error",
        };
        self.line(format_args!("status c{} {name}", commands.number));
        ending
    }

    fn new_residency_set(&self) -> Result<(), String> {
        self.line(format_args!("residency new"));
        self.options.residency_failure.clone().map_or(Ok(()), Err)
    }

    fn attach(&self, (): &()) {
        self.line(format_args!("residency attach"));
    }

    fn detach(&self, (): &()) {
        self.line(format_args!("residency detach"));
    }

    fn add_allocation(&self, (): &(), buffer: &RecordedBuffer) {
        self.line(format_args!("residency + {buffer:?}"));
    }

    fn remove_allocation(&self, (): &(), buffer: &RecordedBuffer) {
        self.line(format_args!("residency - {buffer:?}"));
    }

    fn commit_residency(&self, (): &()) {
        self.line(format_args!("residency commit"));
    }

    fn request_residency(&self, (): &()) {
        self.line(format_args!("residency request"));
    }

    fn end_residency(&self, (): &()) {
        self.line(format_args!("residency end"));
    }

    fn start_capture(&self, _: &Path) -> Result<(), String> {
        self.line(format_args!("startCapture"));
        Ok(())
    }

    fn stop_capture(&self) {
        self.line(format_args!("stopCapture"));
    }

    fn on_own_thread(&self) -> bool {
        let own = self.worker.as_ref().is_some_and(|worker| worker.thread().id() == thread::current().id());
        own || self.engine.cpu.on_own_thread()
    }

    fn fail_next(&self, message: &str) -> bool {
        *lock(&self.failure) = Some(message.to_owned());
        true
    }
}
