//! The calls of Metal that the backend makes, one method each.
//!
//! [`super::Apple`] sends them to Metal; [`super::MetalRecorder`] writes them down, so that the same backend
//! runs where there is no Metal. Nothing here decides anything.

use std::{fmt::Debug, path::Path, ptr::NonNull};

use crate::{Access, CpuKernel, Owner, StorageMode};

/// What Metal says of the GPU and the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Model name.
    pub name: String,
    /// Number of the device in the system's registry.
    pub registry_id: u64,
    /// Version of the operating system.
    pub system: String,
    /// True when host and GPU use the same memory.
    pub unified: bool,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// Bytes that may be in use without a loss of speed.
    pub working_set_bytes: u64,
    /// Bytes of threadgroup memory.
    pub threadgroup_bytes: usize,
    /// The number of the GPU's family, as in `Apple7`.
    pub apple_family: u32,
    /// `MTLResidencySet` exists: macOS 15 and later.
    pub residency_sets: bool,
}

/// A version of the Metal shading language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LanguageVersion {
    /// macOS 13.
    Metal3_0,
    /// macOS 14: `bfloat`.
    Metal3_1,
}

/// How a text is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompileOptions {
    /// Version of the language.
    pub language: LanguageVersion,
    /// Arithmetic may be reordered, and infinities and NaN ignored.
    pub fast_math: bool,
}

/// What a compiled kernel allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineLimits {
    /// Threads of a group.
    pub threads: u32,
    /// Threads of a simdgroup.
    pub width: u32,
    /// Bytes of threadgroup memory that the kernel declares itself.
    pub threadgroup_bytes: usize,
}

/// How a command buffer ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It has not.
    Unfinished,
    /// Well; seconds of the host's clock at which the GPU began and ended.
    Completed {
        /// Begin.
        start: f64,
        /// End.
        end: f64,
    },
    /// Not well: the error's description.
    Failed(String),
}

/// A range of a buffer for an argument of a kernel.
#[derive(Debug)]
pub struct Argument<A: Api> {
    /// The buffer.
    pub buffer: A::Buffer,
    /// First byte.
    pub offset: u64,
    /// Bytes from there; Metal itself is not told.
    pub byte_len: u64,
    /// Use; Metal itself is not told.
    pub access: Access,
}

impl<A: Api> Clone for Argument<A> {
    fn clone(&self) -> Self {
        Self { buffer: self.buffer.clone(), ..*self }
    }
}

/// Metal, or something that can be called as if it were.
///
/// Objects are handles; clones of them are the same object.
pub trait Api: Debug + Send + Sync + Sized + 'static {
    /// `MTLBuffer`
    type Buffer: Clone + Debug + Send + Sync + 'static;
    /// `MTLLibrary`
    type Library: Clone + Debug + Send + Sync + 'static;
    /// `MTLComputePipelineState`
    type Pipeline: Clone + Debug + Send + Sync + 'static;
    /// `MTLCommandBuffer`
    type CommandBuffer: Debug + Send + Sync + 'static;
    /// `MTLComputeCommandEncoder`
    type Encoder: Debug;
    /// `MTLResidencySet`
    type ResidencySet: Debug + Send + Sync + 'static;

    /// What the device is.
    fn facts(&self) -> Facts;
    /// `currentAllocatedSize`
    fn allocated(&self) -> u64;
    /// Seconds of the clock in which command buffers tell when they ran.
    fn now(&self) -> f64;
    /// Runs `work` in an autorelease pool of its own.
    fn autorelease<R>(&self, work: impl FnOnce() -> R) -> R;

    /// `newBufferWithLength:options:`
    fn new_buffer(&self, byte_len: usize, mode: StorageMode) -> Option<Self::Buffer>;
    /// `newBufferWithBytesNoCopy:length:options:deallocator:`; the deallocator drops `owner`.
    ///
    /// # Safety
    /// * `start` and `byte_len` are multiples of the page size, and these pages are mapped until `owner`
    ///   is dropped.
    unsafe fn new_buffer_no_copy(
        &self,
        start: NonNull<u8>,
        byte_len: usize,
        owner: Option<Box<dyn Owner>>,
    ) -> Option<Self::Buffer>;
    /// `length`
    fn length(&self, buffer: &Self::Buffer) -> u64;
    /// `contents`, where the host sees the buffer
    fn contents(&self, buffer: &Self::Buffer) -> Option<NonNull<u8>>;
    /// `gpuAddress`
    fn gpu_address(&self, buffer: &Self::Buffer) -> u64;
    /// `registryID` of the buffer's device
    fn registry_id(&self, buffer: &Self::Buffer) -> u64;
    /// `hazardTrackingMode` is tracked
    fn is_tracked(&self, buffer: &Self::Buffer) -> bool;

    /// `newLibraryWithSource:options:error:`
    ///
    /// # Errors
    /// The compiler's log.
    fn new_library(&self, text: &str, options: CompileOptions) -> Result<Self::Library, String>;
    /// `newComputePipelineStateWithDescriptor:options:reflection:error:`, with machine code kept in the
    /// `MTLBinaryArchive` of this path. `host` may do the kernel's work where there is no Metal.
    ///
    /// # Errors
    /// What Metal says, or that the library has no such function.
    fn new_pipeline(
        &self,
        library: &Self::Library,
        function: &str,
        archive: Option<&Path>,
        host: Option<&CpuKernel>,
    ) -> Result<Self::Pipeline, String>;
    /// `maxTotalThreadsPerThreadgroup`, `threadExecutionWidth`, `staticThreadgroupMemoryLength`
    fn pipeline_limits(&self, pipeline: &Self::Pipeline) -> PipelineLimits;

    /// `commandBufferWithUnretainedReferences` and its label
    ///
    /// # Safety
    /// * Everything that the command buffer uses lives until it has ended.
    unsafe fn new_command_buffer(&self, label: &str) -> Option<Self::CommandBuffer>;
    /// `computeCommandEncoderWithDispatchType:`, concurrent
    fn new_encoder(&self, commands: &Self::CommandBuffer) -> Option<Self::Encoder>;
    /// `setComputePipelineState:`
    fn set_pipeline(&self, encoder: &Self::Encoder, pipeline: &Self::Pipeline);
    /// `setBuffer:offset:atIndex:`
    ///
    /// # Safety
    /// * The range is inside the buffer, and the kernel stays inside it and uses it as it says.
    unsafe fn set_buffer(&self, encoder: &Self::Encoder, argument: &Argument<Self>, index: usize);
    /// `setBytes:length:atIndex:`, at most 4,096 bytes
    fn set_bytes(&self, encoder: &Self::Encoder, bytes: &[u8], index: usize);
    /// `dispatchThreadgroups:threadsPerThreadgroup:`
    ///
    /// # Safety
    /// * Every argument of the kernel is set, and its limits hold.
    unsafe fn dispatch(&self, encoder: &Self::Encoder, groups: [u32; 3], threads: u32);
    /// `memoryBarrierWithScope:`, buffers
    fn barrier(&self, encoder: &Self::Encoder);
    /// `pushDebugGroup:`
    fn push_group(&self, encoder: &Self::Encoder, name: &str);
    /// `popDebugGroup`
    fn pop_group(&self, encoder: &Self::Encoder);
    /// `endEncoding`
    fn end_encoding(&self, encoder: Self::Encoder);
    /// `addCompletedHandler:`
    fn on_completed(&self, commands: &Self::CommandBuffer, handler: Box<dyn Fn() + Send + Sync>);
    /// `commit`
    fn commit(&self, commands: &Self::CommandBuffer);
    /// `waitUntilCompleted`
    fn wait(&self, commands: &Self::CommandBuffer);
    /// `status`, `error`, `GPUStartTime`, `GPUEndTime`
    fn ending(&self, commands: &Self::CommandBuffer) -> Ending;

    /// `newResidencySetWithDescriptor:error:`
    ///
    /// # Errors
    /// What Metal says.
    fn new_residency_set(&self) -> Result<Self::ResidencySet, String>;
    /// `addResidencySet:` of the queue
    fn attach(&self, set: &Self::ResidencySet);
    /// `removeResidencySet:` of the queue
    fn detach(&self, set: &Self::ResidencySet);
    /// `addAllocation:`
    fn add_allocation(&self, set: &Self::ResidencySet, buffer: &Self::Buffer);
    /// `removeAllocation:`
    fn remove_allocation(&self, set: &Self::ResidencySet, buffer: &Self::Buffer);
    /// `commit` of the set
    fn commit_residency(&self, set: &Self::ResidencySet);
    /// `requestResidency`
    fn request_residency(&self, set: &Self::ResidencySet);
    /// `endResidency`
    fn end_residency(&self, set: &Self::ResidencySet);

    /// `startCaptureWithDescriptor:error:` into a `.gputrace` document
    ///
    /// # Errors
    /// What Metal says.
    fn start_capture(&self, file: &Path) -> Result<(), String>;
    /// `stopCapture`
    fn stop_capture(&self);

    /// True on a thread that carries out command buffers.
    fn on_own_thread(&self) -> bool {
        false
    }

    /// Makes the next command buffer that is committed end with this error, where that can be done.
    fn fail_next(&self, message: &str) -> bool {
        let _ = message;
        false
    }
}
