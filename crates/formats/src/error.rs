//! What can be wrong with a file.

use crate::printable::Printable;

/// A file that does not say what its format requires.
///
/// Messages name the place, what was found and what was needed, on one line: text from the file is escaped and shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes break a rule of the format.
    #[error("{format}: {}", Printable(message))]
    Malformed {
        /// Short name of the format: `gguf`, `safetensors`, ..
        format: &'static str,
        /// Place, what was found, what was needed.
        message: String,
    },
    /// A type that the format defines or may define, but this crate does not read.
    #[error("{format}: tensor `{}` has type {type_name}, which is not supported", Printable(tensor))]
    UnsupportedType {
        /// Short name of the format.
        format: &'static str,
        /// Tensor name.
        tensor: String,
        /// Name of the type, or its number where no name is known.
        type_name: String,
    },
    /// A metadata key that is needed and absent.
    #[error("{format}: metadata key `{}` is missing{}", Printable(key), Printable(hint))]
    MissingKey {
        /// Short name of the format.
        format: &'static str,
        /// The key looked up.
        key: String,
        /// Empty, or a hint beginning with a space.
        hint: String,
    },
    /// A metadata key whose value has another type than needed.
    #[error("{format}: metadata key `{}` is {found}, needed {needed}", Printable(key))]
    WrongType {
        /// Short name of the format.
        format: &'static str,
        /// The key looked up.
        key: String,
        /// Type found.
        found: String,
        /// Type needed.
        needed: &'static str,
    },
    /// A tensor that is needed and absent.
    #[error("{format}: tensor `{}` is missing{}", Printable(name), Printable(hint))]
    MissingTensor {
        /// Short name of the format.
        format: &'static str,
        /// The tensor looked up.
        name: String,
        /// Empty, or a hint beginning with a space.
        hint: String,
    },
    /// The caller's own values do not fit the format (writing, converting).
    #[error("{operation}: {}", Printable(message))]
    InvalidArgument {
        /// What was asked for.
        operation: &'static str,
        /// What was given and what is needed.
        message: String,
    },
}
