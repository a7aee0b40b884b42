//! Apple GPUs: the default device, and buffers to and from other code that speaks Metal.

use std::sync::{Mutex, PoisonError};

use anymlx_hal::{
    DeviceInfo, any,
    backend::Device as _,
    metal::{Apple, Device, MetalBuffer, MetalOptions},
};

use crate::{CpuLevel, MlxBuffer, MlxDevice, MlxError, RawBuffer, Result, env};

/// Devices that were opened by [`MlxDevice::metal`] or for a foreign buffer, with the number of their GPU in
/// the system's registry. They stay open, so that every buffer of a GPU belongs to one device.
static SHARED: Mutex<Vec<(u64, MlxDevice)>> = Mutex::new(Vec::new());

fn options() -> Result<MetalOptions> {
    let cache = env::cache_dir().inspect_err(|error| tracing::warn!(%error, "compiled kernels are not kept"));
    Ok(MetalOptions {
        cache_folder: cache.ok().map(|folder| folder.join("kernels")),
        without_residency_set: !env::residency_set()?,
        capture: env::metal_capture(),
        memory_limit: None,
    })
}

fn shared(apple: Apple) -> Result<MlxDevice> {
    let number = anymlx_hal::metal::Api::facts(&apple).registry_id;
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = shared.iter().find(|(known, _)| *known == number) {
        return Ok(device.clone());
    }
    let device = MlxDevice::over_metal(apple, &options()?)?;
    shared.push((number, device.clone()));
    Ok(device)
}

/// The default GPU; all calls share one device.
pub(crate) fn default_device() -> Result<MlxDevice> {
    shared(Apple::system_default()?)
}

/// The GPUs that can be opened.
pub(crate) fn list() -> Vec<DeviceInfo> {
    let opened = Apple::system_default().and_then(|apple| Device::with_api(apple, &MetalOptions::default()));
    let opened = opened.inspect_err(|error| tracing::debug!(%error, "no Metal device"));
    opened.map(|device| device.info()).into_iter().collect()
}

impl MlxDevice {
    fn over_metal(apple: Apple, options: &MetalOptions) -> Result<Self> {
        let device = Device::with_api(apple, options)?;
        Ok(Self::from_backend(any::Device::Metal(device), CpuLevel::Scalar, None))
    }

    /// The default Apple GPU with a queue of one's own.
    ///
    /// # Errors
    /// `DeviceNotFound` with the reason.
    pub fn metal_with(options: &MetalOptions) -> Result<Self> {
        Self::over_metal(Apple::system_default()?, options)
    }
}

impl MlxBuffer {
    /// Metal's buffer under this handle, for passing it to other code that speaks Metal.
    ///
    /// It is the whole allocation: this handle begins [`Self::metal_offset`] bytes into it. Work that other
    /// code submits is not ordered with this library's: wait for one before the other begins.
    ///
    /// # Panics
    /// When the buffer belongs to a device that is not Metal's; [`Self::try_metal_buffer`] tells.
    pub fn metal_buffer(&self) -> &MetalBuffer {
        self.try_metal_buffer().expect("metal_buffer: the buffer's device is not a Metal device")
    }

    /// As [`Self::metal_buffer`]; `None` on a device that is not Metal's.
    pub fn try_metal_buffer(&self) -> Option<&MetalBuffer> {
        match self.raw().storage.backend_buffer() {
            any::Buffer::Metal(buffer) => Some(buffer.metal()),
            _ => None,
        }
    }

    /// Where this handle's first byte is in [`Self::metal_buffer`].
    ///
    /// It is [`Self::byte_offset`], except for host memory wrapped in place that does not begin with a page.
    pub fn metal_offset(&self) -> u64 {
        let start = match self.raw().storage.backend_buffer() {
            any::Buffer::Metal(buffer) => buffer.metal_offset(),
            _ => 0,
        };
        start + self.byte_offset()
    }
}

impl RawBuffer {
    /// Wraps a buffer of Metal that other code made, all of it, without a copy. It is retained as long as a
    /// handle or a submission uses it, and joins no residency set.
    ///
    /// The device is the one that [`MlxDevice::metal`] opens for the buffer's GPU. Work that other code submits
    /// on the buffer is not ordered with this library's: wait for one before the other begins.
    ///
    /// # Errors
    /// `InvalidArgument` for a buffer whose hazard tracking is off, as heaps make them; `DeviceNotFound` when
    /// the GPU is not one that the library can use.
    pub fn try_from_metal(buffer: MetalBuffer) -> Result<Self> {
        use objc2_metal::MTLResource as _;
        let device = shared(Apple::new(objc2::Message::retain(&*buffer.device()))?)?;
        let any::Device::Metal(metal) = device.context().device() else {
            return Err(MlxError::invalid("wrap a Metal buffer", "the device is not Metal's"));
        };
        // SAFETY: MTLResource may be used by several owners; that their accesses do not conflict is asked of the
        // caller, as in the contract of `MlxBuffer::from_raw`.
        let adopted = unsafe { metal.adopt(buffer) }?;
        // SAFETY: as above; the MTLBuffer is retained by what is adopted.
        let storage = unsafe { device.context().adopt(any::Buffer::Metal(adopted)) }?;
        Ok(Self { storage })
    }
}

impl From<MetalBuffer> for RawBuffer {
    /// As [`RawBuffer::try_from_metal`].
    ///
    /// # Panics
    /// Where that is an error.
    fn from(buffer: MetalBuffer) -> Self {
        Self::try_from_metal(buffer).unwrap_or_else(|error| panic!("{error}"))
    }
}
