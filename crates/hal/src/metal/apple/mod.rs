//! Metal itself.

mod calls;
mod objects;
mod pipeline;

use objc2::{
    rc::{Retained, autoreleasepool},
    runtime::ProtocolObject,
};
use objc2_foundation::NSString;
use objc2_metal::{MTLCommandQueue, MTLCreateSystemDefaultDevice, MTLDevice, MTLGPUFamily};

pub use objects::MetalBuffer;

use crate::{HalError, Result};

// SAFETY: nothing is declared. MTLCreateSystemDefaultDevice needs the framework, as the documentation of objc2-metal says.
#[cfg(target_vendor = "apple")]
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

/// Command buffers that may exist at a time: those that the common layer lets be unfinished, and transfers.
/// `commandBuffer` blocks beyond it.
const COMMAND_BUFFERS: usize = 256;
/// The newest family that the bindings name, as in `Apple10`.
const NEWEST_FAMILY: u32 = 10;

/// A GPU and its one queue.
#[derive(Debug)]
pub struct Apple {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
}

impl Apple {
    /// The system's default GPU.
    ///
    /// # Errors
    /// `DeviceNotFound` where there is none.
    pub fn system_default() -> Result<Self> {
        autoreleasepool(|_| match MTLCreateSystemDefaultDevice() {
            Some(device) => Self::new(device),
            None => Err(not_found("the system has no Metal device")),
        })
    }

    /// This GPU, with a queue of its own.
    ///
    /// # Errors
    /// `DeviceNotFound` when Metal makes no queue.
    pub fn new(device: Retained<ProtocolObject<dyn MTLDevice>>) -> Result<Self> {
        autoreleasepool(|_| {
            let queue = device
                .newCommandQueueWithMaxCommandBufferCount(COMMAND_BUFFERS)
                .ok_or_else(|| not_found("Metal made no command queue"))?;
            queue.setLabel(Some(&NSString::from_str("anymlx")));
            Ok(Self { device, queue })
        })
    }

    /// Metal's object.
    pub fn device(&self) -> &ProtocolObject<dyn MTLDevice> {
        &self.device
    }

    /// The number of the newest Apple family that the GPU belongs to; 0 for other GPUs.
    fn apple_family(&self) -> u32 {
        let supports = |number: &u32| self.device.supportsFamily(MTLGPUFamily(1000 + *number as isize));
        (1..=NEWEST_FAMILY).rev().find(supports).unwrap_or(0)
    }
}

fn not_found(reason: &str) -> HalError {
    HalError::DeviceNotFound { backend: "metal", reason: reason.into() }
}
