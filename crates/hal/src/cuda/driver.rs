//! The driver library: whether it is there, and what its errors mean.

use std::{
    ffi::{CStr, c_char, c_int},
    fmt,
    sync::OnceLock,
};

use cudarc::driver::sys;

use crate::{
    HalError, Result,
    backend::{BackendKind, DeviceInfo, NativeTexts},
};

/// The oldest driver that has every function used here, as `cuDriverGetVersion` counts.
const OLDEST_DRIVER: c_int = 12_000;

/// A driver call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DriverError {
    pub(super) call: &'static str,
    pub(super) code: sys::CUresult,
}

pub(super) type DriverResult<T = ()> = std::result::Result<T, DriverError>;

pub(super) fn check(call: &'static str, code: sys::CUresult) -> DriverResult {
    if code == sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(DriverError { call, code }) }
}

/// Calls a function of the driver and names it in the error.
macro_rules! driver {
    ($function:ident($($argument:expr),* $(,)?)) => {
        $crate::cuda::driver::check(stringify!($function), cudarc::driver::sys::$function($($argument),*))
    };
}
pub(super) use driver;

impl DriverError {
    /// True when nothing more can be done in the context: every later call returns the same error.
    ///
    /// Source: the descriptions of `CUresult` in the CUDA driver API reference, which say of these
    /// codes that the context, the device or the process is left unusable.
    pub(super) fn is_fatal(self) -> bool {
        use sys::CUresult::*;
        matches!(
            self.code,
            CUDA_ERROR_DEINITIALIZED
                | CUDA_ERROR_DEVICE_UNAVAILABLE
                | CUDA_ERROR_ECC_UNCORRECTABLE
                | CUDA_ERROR_NVLINK_UNCORRECTABLE
                | CUDA_ERROR_CONTAINED
                | CUDA_ERROR_ILLEGAL_ADDRESS
                | CUDA_ERROR_LAUNCH_TIMEOUT
                | CUDA_ERROR_CONTEXT_IS_DESTROYED
                | CUDA_ERROR_ASSERT
                | CUDA_ERROR_HARDWARE_STACK_ERROR
                | CUDA_ERROR_ILLEGAL_INSTRUCTION
                | CUDA_ERROR_MISALIGNED_ADDRESS
                | CUDA_ERROR_INVALID_ADDRESS_SPACE
                | CUDA_ERROR_INVALID_PC
                | CUDA_ERROR_LAUNCH_FAILED
                | CUDA_ERROR_TENSOR_MEMORY_LEAK
                | CUDA_ERROR_EXTERNAL_DEVICE
                | CUDA_ERROR_UNKNOWN
        )
    }

    pub(super) fn is_out_of_memory(self) -> bool {
        self.code == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY
    }

    fn text(self, lookup: unsafe fn(sys::CUresult, *mut *const c_char) -> sys::CUresult) -> String {
        let mut text = std::ptr::null();
        // SAFETY: the function stores a pointer to a constant of the driver, or null.
        let known = unsafe { lookup(self.code, &mut text) } == sys::CUresult::CUDA_SUCCESS && !text.is_null();
        if !known {
            return format!("{:?}", self.code);
        }
        // SAFETY: a constant string, as just checked.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// The driver's own words and the name of the code.
    pub(super) fn explain(self) -> String {
        format!("{} ({})", self.text(sys::cuGetErrorString), self.text(sys::cuGetErrorName))
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.explain())
    }
}

pub(super) fn not_found(reason: impl Into<String>) -> HalError {
    HalError::DeviceNotFound { backend: "cuda", reason: reason.into() }
}

/// Loads and initialises the driver once; its version, 12080 for 12.8.
pub(super) fn initialize() -> Result<c_int> {
    static VERSION: OnceLock<std::result::Result<c_int, String>> = OnceLock::new();
    let version = VERSION.get_or_init(|| {
        // SAFETY: loading the driver's library runs its initialisers, as every CUDA program does.
        if !unsafe { sys::is_culib_present() } {
            return Err("the NVIDIA driver's library (libcuda) cannot be loaded; install the driver".into());
        }
        let mut version = 0;
        // SAFETY: neither call needs anything to be set up before.
        unsafe {
            driver!(cuInit(0)).map_err(|error| error.to_string())?;
            driver!(cuDriverGetVersion(&mut version)).map_err(|error| error.to_string())?;
        }
        if version < OLDEST_DRIVER {
            let [given, needed] = [version, OLDEST_DRIVER].map(version_text);
            return Err(format!("the driver supports CUDA {given}, needed {needed}; update the driver"));
        }
        Ok(version)
    });
    version.clone().map_err(not_found)
}

/// `12.8` for 12080.
pub(super) fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// What does not change while a device exists.
#[derive(Debug, Clone)]
pub(super) struct Properties {
    pub(super) index: usize,
    pub(super) handle: sys::CUdevice,
    pub(super) name: String,
    pub(super) memory_total: u64,
    pub(super) multiprocessors: usize,
    /// Major and minor.
    pub(super) capability: (c_int, c_int),
    pub(super) max_grid: [u32; 3],
    /// Bytes of threadgroup memory that a kernel can have at most.
    pub(super) max_shared: u32,
    pub(super) driver: c_int,
}

impl Properties {
    /// Asks the driver about device `index`.
    pub(super) fn query(index: usize) -> Result<Self> {
        use sys::CUdevice_attribute::*;
        let driver = initialize()?;
        let count = count()?;
        let ordinal = c_int::try_from(index).ok().filter(|_| index < count);
        let Some(ordinal) = ordinal else {
            return Err(not_found(format!("GPU {index} asked for, this machine has {count}, numbered from 0")));
        };
        let absent = |error: DriverError| not_found(format!("GPU {index}: {error}"));
        let mut handle = 0;
        let mut name = [0 as c_char; 256];
        let mut memory_total = 0;
        // SAFETY: the results have the types and lengths that the driver is told.
        unsafe {
            driver!(cuDeviceGet(&mut handle, ordinal)).map_err(absent)?;
            driver!(cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int - 1, handle)).map_err(absent)?;
            driver!(cuDeviceTotalMem_v2(&mut memory_total, handle)).map_err(absent)?;
        }
        let attribute = |attribute| {
            let mut value = 0;
            // SAFETY: as above.
            unsafe { driver!(cuDeviceGetAttribute(&mut value, attribute, handle)) }.map_err(absent).map(|()| value)
        };
        let limit = |which| attribute(which).map(|value| u32::try_from(value).unwrap_or(0));
        Ok(Self {
            index,
            handle,
            // SAFETY: the last byte of the array was kept zero.
            name: unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned(),
            memory_total: memory_total as u64,
            multiprocessors: limit(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            capability: (
                attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            max_grid: [
                limit(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
                limit(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
                limit(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
            ],
            max_shared: limit(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            driver,
        })
    }

    /// The number in `sm_90`.
    pub(super) fn architecture(&self) -> u32 {
        u32::try_from(self.capability.0 * 10 + self.capability.1).unwrap_or(0)
    }

    /// As much as is known without a context.
    pub(super) fn info(&self) -> DeviceInfo {
        DeviceInfo {
            backend: BackendKind::Cuda,
            index: self.index,
            name: self.name.clone(),
            memory_total: self.memory_total,
            memory_free: self.memory_total,
            memory_in_use: 0,
            max_buffer_bytes: self.memory_total,
            unified: false,
            compute_units: self.multiprocessors,
            features: vec![
                format!("sm_{}", self.architecture()),
                format!("driver for CUDA {}", version_text(self.driver)),
            ],
            native: NativeTexts::None,
        }
    }
}

/// Devices that the driver shows to this process.
fn count() -> Result<usize> {
    let mut count = 0;
    // SAFETY: writes one number.
    unsafe { driver!(cuDeviceGetCount(&mut count)) }.map_err(|error| not_found(error.to_string()))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The GPUs of this machine that can be opened. Nothing is opened: free memory is not known, and is
/// given as the whole.
///
/// # Errors
/// `DeviceNotFound` with the reason when the driver or NVRTC is missing or too old.
pub fn list() -> Result<Vec<DeviceInfo>> {
    initialize()?;
    super::Compiler::shared()?;
    (0..count()?).map(|index| Properties::query(index).map(|properties| properties.info())).collect()
}
