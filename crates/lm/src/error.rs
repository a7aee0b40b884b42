//! Errors of the language-model layer.

use anymlx::MlxError;
use anymlx_formats::FormatError;

use crate::{chat::ChatError, tokenizer::TokenizerError};

/// Result of this crate.
pub type Result<T, E = LmError> = std::result::Result<T, E>;

/// Why a model could not be loaded or run.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LmError {
    /// A device operation failed.
    #[error(transparent)]
    Device(#[from] MlxError),
    /// The file breaks its format or lacks something.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The vocabulary cannot be used, or cannot express a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template cannot be used.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The file's architecture is not implemented.
    #[error("architecture `{name}` is not supported; supported are {supported}")]
    UnknownArchitecture {
        /// `general.architecture` of the file.
        name: String,
        /// Names that are implemented.
        supported: String,
    },
    /// A tensor has another shape than the metadata ask for.
    #[error("tensor `{name}` is {found:?}, needed {needed:?} (outputs first)")]
    WrongShape {
        /// Tensor name.
        name: String,
        /// Shape in the file, outermost first.
        found: Vec<u64>,
        /// Shape that the metadata ask for.
        needed: Vec<u64>,
    },
    /// The metadata contradict themselves or pass a limit.
    #[error("model: {0}")]
    InvalidModel(String),
    /// More tokens than the context holds.
    #[error(
        "{operation}: {given} tokens given after {used} in the context, which holds {capacity}; shorten the text or ask for a longer context"
    )]
    ContextExceeded {
        /// What was asked for.
        operation: &'static str,
        /// Tokens given.
        given: usize,
        /// Tokens in the context already.
        used: usize,
        /// Tokens that the context holds.
        capacity: usize,
    },
    /// The arguments do not fit.
    #[error("{operation}: {message}")]
    InvalidArgument {
        /// What was asked for.
        operation: &'static str,
        /// What was given and what is needed.
        message: String,
    },
    /// An error with the place where it arose.
    #[error("{context}: {source}")]
    WithContext {
        /// What was being done.
        context: String,
        /// The error.
        source: Box<LmError>,
    },
}

impl LmError {
    pub(crate) fn invalid(operation: &'static str, message: impl std::fmt::Display) -> Self {
        LmError::InvalidArgument { operation, message: message.to_string() }
    }

    /// The error with `context` in front.
    pub fn context(self, context: impl Into<String>) -> Self {
        LmError::WithContext { context: context.into(), source: Box::new(self) }
    }
}
