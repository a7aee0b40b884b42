//! What can be wrong with a vocabulary, a text or an id.

use anymlx_formats::FormatError;

/// A vocabulary that cannot be used, or a text or id that it cannot express.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A metadata key is absent or has another type than needed.
    #[error("tokenizer: {0}")]
    Metadata(#[from] FormatError),
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not implemented.
    #[error("tokenizer: model `{model}` is not supported, supported are `llama`, `gpt2` and `no_vocab`")]
    UnsupportedModel {
        /// The name found.
        model: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not known.
    #[error("tokenizer: unknown pre-tokenizer `{name}`, known are {known}")]
    UnknownPreTokenizer {
        /// The name found.
        name: String,
        /// The known names, comma-separated.
        known: String,
    },
    /// The vocabulary contradicts itself.
    #[error("tokenizer: {message}")]
    InvalidVocabulary {
        /// What was found and what is needed.
        message: String,
    },
    /// An entry of `tokenizer.ggml.merges` that cannot be applied.
    #[error("tokenizer: merge {index} `{merge}`: {reason}")]
    InvalidMerge {
        /// Position in the list.
        index: usize,
        /// The entry, shortened where it is long.
        merge: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A token id beyond the vocabulary.
    #[error("{operation}: token id {id} is out of range, the vocabulary has {vocab_size} entries")]
    IdOutOfRange {
        /// What was asked for.
        operation: &'static str,
        /// The id given.
        id: u32,
        /// Number of entries.
        vocab_size: usize,
    },
    /// The text holds a byte for which there is neither a token nor an unknown token.
    #[error("encode: the vocabulary has no token for byte 0x{byte:02X} and no unknown token")]
    NoTokenForByte {
        /// The byte.
        byte: u8,
    },
    /// A special token was asked for and the vocabulary has none.
    #[error("encode: {option} was asked for, but the vocabulary has no {token} token")]
    NoSuchSpecialToken {
        /// The option that asked.
        option: &'static str,
        /// The role that no token has.
        token: &'static str,
    },
    /// Text was given to a model file that carries no vocabulary.
    #[error("encode: the model file carries no vocabulary (`no_vocab`), only token ids can be given to it")]
    NoVocabulary,
}

impl TokenizerError {
    pub(super) fn vocabulary(message: impl Into<String>) -> Self {
        Self::InvalidVocabulary { message: message.into() }
    }
}

/// `text` for a message: escaped, at most 40 characters.
pub(super) fn excerpt(text: &str) -> String {
    const LIMIT: usize = 40;
    let short: String = text.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    if text.chars().nth(LIMIT).is_some() { format!("{short}..") } else { short }
}
