//! Every call to Metal.

use std::{ffi::c_void, path::Path, ptr::NonNull, sync::Mutex};

use block2::RcBlock;
use objc2::{
    available,
    rc::{Retained, autoreleasepool},
    runtime::ProtocolObject,
};
use objc2_foundation::{NSProcessInfo, NSString};
use objc2_metal::{
    MTLAllocation, MTLBarrierScope, MTLBuffer, MTLCaptureDescriptor, MTLCaptureDestination, MTLCaptureManager,
    MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue, MTLComputeCommandEncoder,
    MTLComputePipelineState, MTLDevice, MTLDispatchType, MTLHazardTrackingMode, MTLLibrary, MTLResidencySet,
    MTLResidencySetDescriptor, MTLResource, MTLResourceOptions, MTLSize, MTLStorageMode,
};

use super::{
    Apple, MetalBuffer,
    objects::{Committed, Set},
    pipeline::{describe, url},
};
use crate::{
    CpuKernel, Owner, StorageMode,
    metal::{Api, Argument, CompileOptions, Ending, Facts, PipelineLimits, lock},
};

fn allocation(buffer: &MetalBuffer) -> &ProtocolObject<dyn MTLAllocation> {
    ProtocolObject::from_ref(&**buffer)
}

impl Api for Apple {
    type Buffer = MetalBuffer;
    type Library = Retained<ProtocolObject<dyn MTLLibrary>>;
    type Pipeline = Retained<ProtocolObject<dyn MTLComputePipelineState>>;
    type CommandBuffer = Committed;
    type Encoder = Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>;
    type ResidencySet = Set;

    fn facts(&self) -> Facts {
        autoreleasepool(|_| Facts {
            name: self.device.name().to_string(),
            registry_id: self.device.registryID(),
            system: NSProcessInfo::processInfo().operatingSystemVersionString().to_string(),
            unified: self.device.hasUnifiedMemory(),
            max_buffer_bytes: self.device.maxBufferLength() as u64,
            working_set_bytes: self.device.recommendedMaxWorkingSetSize(),
            threadgroup_bytes: self.device.maxThreadgroupMemoryLength(),
            apple_family: self.apple_family(),
            residency_sets: available!(macos = 15.0, ios = 18.0, tvos = 18.0, visionos = 2.0),
        })
    }

    fn allocated(&self) -> u64 {
        self.device.currentAllocatedSize() as u64
    }

    fn now(&self) -> f64 {
        // GPUStartTime and GPUEndTime are on this clock.
        autoreleasepool(|_| NSProcessInfo::processInfo().systemUptime())
    }

    fn autorelease<R>(&self, work: impl FnOnce() -> R) -> R {
        autoreleasepool(|_| work())
    }

    fn new_buffer(&self, byte_len: usize, mode: StorageMode) -> Option<MetalBuffer> {
        let options = match mode {
            StorageMode::Private => MTLResourceOptions::StorageModePrivate,
            StorageMode::Shared => MTLResourceOptions::StorageModeShared,
        };
        self.device.newBufferWithLength_options(byte_len, options).map(MetalBuffer::from)
    }

    unsafe fn new_buffer_no_copy(
        &self,
        start: NonNull<u8>,
        byte_len: usize,
        owner: Option<Box<dyn Owner>>,
    ) -> Option<MetalBuffer> {
        let owner = Mutex::new(owner);
        let deallocator = RcBlock::new(move |_: NonNull<c_void>, _: usize| {
            autoreleasepool(|_| drop(lock(&owner).take()));
        });
        // SAFETY: newBufferWithBytesNoCopy needs whole pages that stay mapped until the deallocator runs, which
        // the caller promises, and a deallocator that any thread may run: what it captures is `Send`.
        let buffer = unsafe {
            self.device.newBufferWithBytesNoCopy_length_options_deallocator(
                start.cast(),
                byte_len,
                MTLResourceOptions::StorageModeShared,
                Some(&deallocator),
            )
        };
        buffer.map(MetalBuffer::from)
    }

    fn length(&self, buffer: &MetalBuffer) -> u64 {
        buffer.length() as u64
    }

    fn contents(&self, buffer: &MetalBuffer) -> Option<NonNull<u8>> {
        // `contents` of private memory is null, which its type denies.
        (buffer.storageMode() == MTLStorageMode::Shared).then(|| buffer.contents().cast())
    }

    fn gpu_address(&self, buffer: &MetalBuffer) -> u64 {
        buffer.gpuAddress()
    }

    fn registry_id(&self, buffer: &MetalBuffer) -> u64 {
        autoreleasepool(|_| buffer.device().registryID())
    }

    fn is_tracked(&self, buffer: &MetalBuffer) -> bool {
        buffer.hazardTrackingMode() == MTLHazardTrackingMode::Tracked
    }

    fn new_library(&self, text: &str, options: CompileOptions) -> Result<Self::Library, String> {
        self.library(text, options)
    }

    fn new_pipeline(
        &self,
        library: &Self::Library,
        function: &str,
        archive: Option<&Path>,
        _: Option<&CpuKernel>,
    ) -> Result<Self::Pipeline, String> {
        self.pipeline(library, function, archive)
    }

    fn pipeline_limits(&self, pipeline: &Self::Pipeline) -> PipelineLimits {
        let words = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        PipelineLimits {
            threads: words(pipeline.maxTotalThreadsPerThreadgroup()),
            width: words(pipeline.threadExecutionWidth()),
            threadgroup_bytes: pipeline.staticThreadgroupMemoryLength(),
        }
    }

    unsafe fn new_command_buffer(&self, label: &str) -> Option<Committed> {
        let commands = self.queue.commandBufferWithUnretainedReferences()?;
        commands.setLabel(Some(&NSString::from_str(label)));
        Some(Committed(commands))
    }

    fn new_encoder(&self, commands: &Committed) -> Option<Self::Encoder> {
        commands.0.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent)
    }

    fn set_pipeline(&self, encoder: &Self::Encoder, pipeline: &Self::Pipeline) {
        encoder.setComputePipelineState(pipeline);
    }

    unsafe fn set_buffer(&self, encoder: &Self::Encoder, argument: &Argument<Self>, index: usize) {
        // SAFETY: setBuffer:offset:atIndex: needs an offset inside the buffer and an index up to 30, and that the
        // kernel does what it says with the bytes: the caller's promises.
        unsafe { encoder.setBuffer_offset_atIndex(Some(&*argument.buffer), argument.offset as usize, index) };
    }

    fn set_bytes(&self, encoder: &Self::Encoder, bytes: &[u8], index: usize) {
        let Some(start) = NonNull::new(bytes.as_ptr().cast_mut()) else { return };
        // SAFETY: setBytes:length:atIndex: copies at most 4,096 bytes before it returns; `Kernel::check_launch`
        // has refused longer blocks.
        unsafe { encoder.setBytes_length_atIndex(start.cast(), bytes.len(), index) };
    }

    unsafe fn dispatch(&self, encoder: &Self::Encoder, [x, y, z]: [u32; 3], threads: u32) {
        let groups = MTLSize { width: x as usize, height: y as usize, depth: z as usize };
        let threads = MTLSize { width: threads as usize, height: 1, depth: 1 };
        encoder.dispatchThreadgroups_threadsPerThreadgroup(groups, threads);
    }

    fn barrier(&self, encoder: &Self::Encoder) {
        encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
    }

    fn push_group(&self, encoder: &Self::Encoder, name: &str) {
        encoder.pushDebugGroup(&NSString::from_str(name));
    }

    fn pop_group(&self, encoder: &Self::Encoder) {
        encoder.popDebugGroup();
    }

    fn end_encoding(&self, encoder: Self::Encoder) {
        encoder.endEncoding();
    }

    fn on_completed(&self, commands: &Committed, handler: Box<dyn Fn() + Send + Sync>) {
        let block = RcBlock::new(move |_: NonNull<ProtocolObject<dyn MTLCommandBuffer>>| {
            autoreleasepool(|_| handler());
        });
        // SAFETY: addCompletedHandler: copies the block before it returns, and calls it on a thread of Metal's:
        // what it captures is `Send` and `Sync`.
        unsafe { commands.0.addCompletedHandler(RcBlock::as_ptr(&block)) };
    }

    fn commit(&self, commands: &Committed) {
        commands.0.commit();
    }

    fn wait(&self, commands: &Committed) {
        commands.0.waitUntilCompleted();
    }

    fn ending(&self, commands: &Committed) -> Ending {
        let commands = &commands.0;
        match commands.status() {
            MTLCommandBufferStatus::Completed => {
                Ending::Completed { start: commands.GPUStartTime(), end: commands.GPUEndTime() }
            }
            MTLCommandBufferStatus::Error => {
                Ending::Failed(commands.error().map_or_else(|| "Metal gives no reason".to_owned(), describe))
            }
            _ => Ending::Unfinished,
        }
    }

    fn new_residency_set(&self) -> Result<Set, String> {
        let descriptor = MTLResidencySetDescriptor::new();
        descriptor.setLabel(Some(&NSString::from_str("anymlx")));
        self.device.newResidencySetWithDescriptor_error(&descriptor).map(Set).map_err(describe)
    }

    fn attach(&self, set: &Set) {
        self.queue.addResidencySet(&set.0);
    }

    fn detach(&self, set: &Set) {
        self.queue.removeResidencySet(&set.0);
    }

    fn add_allocation(&self, set: &Set, buffer: &MetalBuffer) {
        set.0.addAllocation(allocation(buffer));
    }

    fn remove_allocation(&self, set: &Set, buffer: &MetalBuffer) {
        set.0.removeAllocation(allocation(buffer));
    }

    fn commit_residency(&self, set: &Set) {
        set.0.commit();
    }

    fn request_residency(&self, set: &Set) {
        set.0.requestResidency();
    }

    fn end_residency(&self, set: &Set) {
        set.0.endResidency();
    }

    fn start_capture(&self, file: &Path) -> Result<(), String> {
        let descriptor = MTLCaptureDescriptor::new();
        descriptor.set_capture_command_queue(&self.queue);
        descriptor.setDestination(MTLCaptureDestination::GPUTraceDocument);
        descriptor.setOutputURL(Some(&*url(file)?));
        // SAFETY: sharedCaptureManager returns the process's one manager, which lives as long as the process.
        let manager = unsafe { MTLCaptureManager::sharedCaptureManager() };
        manager.startCaptureWithDescriptor_error(&descriptor).map_err(describe)
    }

    fn stop_capture(&self) {
        // SAFETY: as in `start_capture`.
        unsafe { MTLCaptureManager::sharedCaptureManager() }.stopCapture();
    }
}
