//! What a backend or the common layer can refuse.

/// Result of this crate.
pub type Result<T, E = HalError> = std::result::Result<T, E>;

/// Why an operation could not be carried out.
///
/// Only what a correct caller cannot foresee comes from a backend; the common layer adds what
/// depends on timing (a buffer in use) and on earlier failures (a poisoned buffer).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HalError {
    /// No such device on this machine.
    #[error("{backend}: no device: {reason}")]
    DeviceNotFound {
        /// Backend asked for.
        backend: &'static str,
        /// What was looked for and why it cannot be used.
        reason: String,
    },
    /// Memory is exhausted or the request passes a limit.
    #[error("allocate {asked} bytes: {reason} ({in_use} bytes in use on this device, limit {limit})")]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes allocated on the device by this process.
        in_use: u64,
        /// Largest total the device grants.
        limit: u64,
        /// What refused.
        reason: String,
    },
    /// A kernel text did not compile.
    #[error("compile kernel `{name}`: {log}")]
    CompileFailed {
        /// Kernel name.
        name: String,
        /// The compiler's log.
        log: String,
    },
    /// Submitted work failed; everything it would have written is poisoned.
    #[error("submission `{label}` failed: {message}")]
    SubmissionFailed {
        /// Label of the submission.
        label: String,
        /// What the device reported.
        message: String,
    },
    /// The device can do no more work.
    #[error("device lost: {message}")]
    DeviceLost {
        /// What the device reported.
        message: String,
    },
    /// The bytes would have been written by work that failed.
    #[error("{operation}: bytes {start}..{end} are poisoned: {cause}; write them again before reading")]
    Poisoned {
        /// What was asked for.
        operation: &'static str,
        /// First poisoned byte, from the start of the allocation.
        start: u64,
        /// End of the poisoned bytes.
        end: u64,
        /// The failure that poisoned them.
        cause: String,
    },
    /// Submitted work that uses the buffer has not completed.
    #[error("{operation}: the buffer is used by submission {submission}, which has not completed; wait for it first")]
    InFlight {
        /// What was asked for.
        operation: &'static str,
        /// The unfinished submission.
        submission: u64,
    },
    /// A host guard holds an overlapping range.
    #[error("{operation}: bytes {start}..{end} are held by a host {held} guard; drop it first")]
    Locked {
        /// What was asked for.
        operation: &'static str,
        /// `read` or `write`.
        held: &'static str,
        /// First byte held, from the start of the allocation.
        start: u64,
        /// End of the bytes held.
        end: u64,
    },
    /// The host cannot see this memory.
    #[error("{operation}: the storage is private to the device; use copy_from_slice or to_vec")]
    NotHostVisible {
        /// What was asked for.
        operation: &'static str,
    },
    /// The memory may only be read.
    #[error("{operation}: the storage is read-only (mapped from a file)")]
    ReadOnly {
        /// What was asked for.
        operation: &'static str,
    },
    /// The caller broke a rule that is checked.
    #[error("{operation}: {message}")]
    InvalidUse {
        /// What was asked for.
        operation: &'static str,
        /// What was given and what is needed.
        message: String,
    },
    /// The residency set could not be created or committed.
    #[error("residency set: {message}")]
    Residency {
        /// What the system reported.
        message: String,
    },
    /// The operating system refused.
    #[error("{operation}: {message}")]
    Io {
        /// What was asked for, with the path where there is one.
        operation: String,
        /// The system's message.
        message: String,
    },
}
