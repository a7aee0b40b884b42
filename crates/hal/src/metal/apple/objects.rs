//! Objects that several threads hold.

use std::{fmt, ops::Deref};

use objc2::{Message, rc::Retained, runtime::ProtocolObject};
use objc2_metal::{MTLBuffer, MTLCommandBuffer, MTLResidencySet};

/// An `MTLBuffer`: a handle that may be cloned and sent.
///
/// Derefs to the protocol of `objc2-metal`, for passing it to other code that speaks Metal.
#[derive(Clone)]
pub struct MetalBuffer(Retained<ProtocolObject<dyn MTLBuffer>>);

// SAFETY: Metal lets any thread use a resource; what is in it is synchronised by the submission order and the host guards of the common layer. objc_retain and objc_release
// are atomic.
unsafe impl Send for MetalBuffer {}
// SAFETY: as above; none of the protocol's methods that take `&self` need exclusive access.
unsafe impl Sync for MetalBuffer {}

impl Deref for MetalBuffer {
    type Target = ProtocolObject<dyn MTLBuffer>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Debug for MetalBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetalBuffer({} bytes)", self.0.length())
    }
}

impl From<Retained<ProtocolObject<dyn MTLBuffer>>> for MetalBuffer {
    fn from(buffer: Retained<ProtocolObject<dyn MTLBuffer>>) -> Self {
        Self(buffer)
    }
}

impl From<&ProtocolObject<dyn MTLBuffer>> for MetalBuffer {
    fn from(buffer: &ProtocolObject<dyn MTLBuffer>) -> Self {
        Self(buffer.retain())
    }
}

impl From<MetalBuffer> for Retained<ProtocolObject<dyn MTLBuffer>> {
    fn from(buffer: MetalBuffer) -> Self {
        buffer.0
    }
}

/// A command buffer that was committed, or will be by the thread that made it.
#[derive(Debug)]
pub struct Committed(pub(super) Retained<ProtocolObject<dyn MTLCommandBuffer>>);

// SAFETY: Metal wants a command buffer to be encoded by one thread at a time, which is the one that makes it; afterwards only `waitUntilCompleted`, `status`, `error` and the times are asked for,
// which any thread may.
unsafe impl Send for Committed {}
// SAFETY: as above.
unsafe impl Sync for Committed {}

/// The residency set.
#[derive(Debug)]
pub struct Set(pub(super) Retained<ProtocolObject<dyn MTLResidencySet>>);

// SAFETY: any thread may change an MTLResidencySet, but no two at a time (it promises no more): the common layer stages and commits under the lock of its `ResidencySet`.
unsafe impl Send for Set {}
// SAFETY: as above.
unsafe impl Sync for Set {}
