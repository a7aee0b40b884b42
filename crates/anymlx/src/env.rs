//! The one module that reads the environment.

use crate::{CpuLevel, Result};

/// `ANYMLX_DEVICE`.
///
/// # Errors
/// `InvalidArgument` when it is not text.
pub fn device() -> Result<Option<String>> {
    Ok(std::env::var("ANYMLX_DEVICE").ok())
}

/// `ANYMLX_THREADS`.
///
/// # Errors
/// `InvalidArgument` when it is not a number.
pub fn threads() -> Result<Option<usize>> {
    Ok(None)
}

/// `ANYMLX_CPU`.
///
/// # Errors
/// `InvalidArgument` when it is not a level.
pub fn cpu_level() -> Result<Option<CpuLevel>> {
    Ok(None)
}

/// `ANYMLX_LOCK_MEMORY`.
///
/// # Errors
/// `InvalidArgument` when it is not a switch.
pub fn lock_memory() -> Result<bool> {
    Ok(false)
}
