//! Errors of the library.

use anymlx_formats::FormatError;
use anymlx_hal::HalError;

/// Result of this crate.
pub type Result<T, E = MlxError> = std::result::Result<T, E>;

/// Why an operation could not be carried out.
///
/// Messages name the operation, what was given, what is needed, and a hint where one exists.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MlxError {
    /// No such device on this machine.
    #[error("device not found: {0}")]
    DeviceNotFound(String),
    /// Submitted work failed, or the device can do no more work.
    #[error("command buffer: {0}")]
    CommandBufferError(String),
    /// A kernel did not compile.
    #[error("compile kernel `{name}`: {message}")]
    ShaderCompilationError {
        /// Kernel name.
        name: String,
        /// The compiler's log, with the line.
        message: String,
    },
    /// Memory is exhausted or the request passes a limit.
    #[error("allocate {bytes} bytes: {reason}")]
    BufferAllocationError {
        /// Bytes asked for.
        bytes: u64,
        /// What refused, bytes in use and the limit.
        reason: String,
    },
    /// The residency set could not be created or committed.
    #[error("residency set: {0}")]
    ResidencySetError(String),
    /// The arguments do not fit the operation.
    #[error("{0}")]
    InvalidArgument(String),
    /// No kernel of this name is registered.
    #[error("kernel `{name}` is not registered{}", nearest.as_ref().map_or(String::new(), |name| format!("; did you mean `{name}`?")))]
    KernelNotFound {
        /// The name looked up.
        name: String,
        /// The registered name that is most alike.
        nearest: Option<String>,
    },
    /// The operating system refused.
    #[error("{0}")]
    IoError(String),
    /// Submitted work that uses the buffer has not completed.
    #[error("{0}")]
    InFlight(String),
    /// A host guard conflicts.
    #[error("{0}")]
    Locked(String),
    /// The bytes would have been written by work that failed.
    #[error("{0}")]
    Poisoned(String),
    /// The host cannot see this memory.
    #[error("{0}")]
    NotHostVisible(String),
    /// The memory may only be read.
    #[error("{0}")]
    ReadOnly(String),
    /// A file breaks its format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An error with the place where it arose.
    #[error("{context}: {source}")]
    WithContext {
        /// What was being done.
        context: String,
        /// The error.
        source: Box<MlxError>,
    },
}

impl MlxError {
    /// True when the same call can succeed later: work in flight, guards held, memory short.
    pub fn is_transient(&self) -> bool {
        match self {
            MlxError::InFlight(_) | MlxError::Locked(_) | MlxError::BufferAllocationError { .. } => true,
            MlxError::WithContext { source, .. } => source.is_transient(),
            _ => false,
        }
    }

    pub(crate) fn invalid(operation: &str, message: impl std::fmt::Display) -> Self {
        MlxError::InvalidArgument(format!("{operation}: {message}"))
    }

    /// The error with `context` in front.
    pub fn context(self, context: impl Into<String>) -> Self {
        MlxError::WithContext { context: context.into(), source: Box::new(self) }
    }
}

impl From<HalError> for MlxError {
    fn from(error: HalError) -> Self {
        let text = error.to_string();
        match error {
            HalError::DeviceNotFound { .. } => MlxError::DeviceNotFound(text),
            HalError::OutOfMemory { asked, in_use, limit, reason } => MlxError::BufferAllocationError {
                bytes: asked,
                reason: format!("{reason} ({in_use} bytes in use on this device, limit {limit})"),
            },
            HalError::CompileFailed { name, log } => MlxError::ShaderCompilationError { name, message: log },
            HalError::SubmissionFailed { .. } | HalError::DeviceLost { .. } => MlxError::CommandBufferError(text),
            HalError::Poisoned { .. } => MlxError::Poisoned(text),
            HalError::InFlight { .. } => MlxError::InFlight(text),
            HalError::Locked { .. } => MlxError::Locked(text),
            HalError::NotHostVisible { .. } => MlxError::NotHostVisible(text),
            HalError::ReadOnly { .. } => MlxError::ReadOnly(text),
            HalError::InvalidUse { .. } => MlxError::InvalidArgument(text),
            HalError::Residency { message } => MlxError::ResidencySetError(message),
            HalError::Io { .. } => MlxError::IoError(text),
            other => MlxError::CommandBufferError(other.to_string()),
        }
    }
}
