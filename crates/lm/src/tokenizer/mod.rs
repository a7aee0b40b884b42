//! Text to token ids and back, from the vocabulary that a GGUF file carries or from a `tokenizer.json`.
//!
//! | `tokenizer.ggml.model` | how text becomes ids |
//! |---|---|
//! | `llama` | SentencePiece: merging by score, spaces as `▁`, unknown characters as bytes (`<0xE2>`). Own merging: the `tokenizers` crate has no engine that works from scores. |
//! | `gpt2` | byte-level byte-pair encoding; words by `tokenizer.ggml.pre`, merging by the `tokenizers` crate |
//! | `no_vocab`, `none` | not at all: only ids are counted |
//! | `tokenizer.json` | what the file describes, by the `tokenizers` crate |
//!
//! Defaults for absent keys and the texts that mark the end of generation follow llama.cpp, with two
//! differences: text never becomes a control, unknown or byte token unless that is asked for, and
//! `</s>` ends generation only where the file calls it a control token. Neither decoding nor encoding
//! changes a text: there is no Unicode normalisation and no removal of spaces before punctuation.

mod byte_level;
mod error;
mod json;
mod json_limits;
mod pre_tokenizer;
mod score_merge;
mod special;
mod stream;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::fmt;

use anymlx_formats::gguf::Metadata;

pub use error::TokenizerError;
pub use json::JsonOptions;
pub use stream::StreamDecoder;
pub use vocabulary::TokenKind;

use byte_level::ByteLevel;
use json::JsonModel;
use pre_tokenizer::PreTokenizer;
pub(crate) use pre_tokenizer::{byte_level_words, name_of_words, word_patterns};
pub(crate) use score_merge::SPACE_MARK;
use score_merge::ScoreMerge;
use special::{DefaultIds, Partitioner, SpecialTokens};
use vocabulary::Vocabulary;

/// The most ids that a file without a vocabulary may declare.
const MAX_NAMELESS: u64 = 1 << 24;

/// What [`Tokenizer::encode`] adds to and reads in a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Begin with the begin-of-text token; `None` does as the model wants it.
    pub add_bos: Option<bool>,
    /// End with the end-of-text token; `None` does as the model wants it.
    pub add_eos: Option<bool>,
    /// Read control tokens written in the text (`<start_of_turn>`) as these tokens. For prompts
    /// that a chat template has made, not for text from elsewhere.
    pub parse_special: bool,
}

impl EncodeOptions {
    /// The text alone: nothing in front, nothing behind, control tokens are text.
    pub const TEXT_ONLY: Self = Self { add_bos: Some(false), add_eos: Some(false), parse_special: false };
}

/// How ids become text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Write control and unknown tokens as their texts; otherwise they are left out.
    pub show_special: bool,
    /// The ids continue a text: the first keeps its leading space. Otherwise the space that
    /// encoding put in front of a text (`add_space_prefix`) is taken away again.
    pub continuation: bool,
}

enum Model {
    ScoreMerge(ScoreMerge),
    ByteLevel(Box<ByteLevel>),
    Json(Box<JsonModel>),
    IdsOnly,
}

struct Parts {
    vocabulary: Vocabulary,
    special: SpecialTokens,
    model: Model,
    /// Where the file does not say whether texts begin with a begin-of-text token.
    default_add_bos: bool,
}

/// A vocabulary and the rule by which text becomes its tokens.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    special: SpecialTokens,
    partitioner: Partitioner,
    model: Model,
    add_bos: bool,
    add_eos: bool,
}

impl Tokenizer {
    /// Builds the tokenizer that `tokenizer.ggml.*` describes.
    ///
    /// # Errors
    /// A model or pre-tokenizer that is not supported; keys that are absent, of another type or
    /// contradict each other; special ids past the vocabulary; merges that name no tokens.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenizerError> {
        match metadata.require_string("tokenizer.ggml.model")? {
            "llama" => Self::score_merge(metadata),
            "gpt2" => Self::byte_level(metadata),
            "no_vocab" | "none" => Self::ids_only(metadata),
            other => Err(TokenizerError::UnsupportedModel { model: error::excerpt(other) }),
        }
    }

    /// Builds the tokenizer that a `tokenizer.json` describes.
    ///
    /// # Errors
    /// JSON that the `tokenizers` crate refuses, ids that leave more gaps than a vocabulary has.
    pub fn from_json(json: &[u8], options: &JsonOptions<'_>) -> Result<Self, TokenizerError> {
        let json::Loaded { vocabulary, special, model, add_bos, add_eos } = json::load(json, options)?;
        let partitioner = Partitioner::new(&vocabulary);
        Ok(Self { vocabulary, special, partitioner, model: Model::Json(Box::new(model)), add_bos, add_eos })
    }

    fn score_merge(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let mut vocabulary = Vocabulary::from_gguf(metadata)?;
        let defaults = DefaultIds { bos: Some(1), eos: Some(2), unknown: Some(0) };
        let special = SpecialTokens::from_gguf(metadata, &mut vocabulary, defaults)?;
        let model = Model::ScoreMerge(ScoreMerge::from_gguf(metadata, &vocabulary, special.unknown)?);
        Self::assemble(metadata, Parts { vocabulary, special, model, default_add_bos: true })
    }

    fn byte_level(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let name = metadata.string("tokenizer.ggml.pre")?.unwrap_or_else(|| {
            tracing::warn!("`tokenizer.ggml.pre` is missing, cutting words by the rule `default`");
            "default"
        });
        let words = PreTokenizer::named(name)?;
        let default_add_bos = words.adds_bos();
        let mut vocabulary = Vocabulary::from_gguf(metadata)?;
        let special = SpecialTokens::from_gguf(metadata, &mut vocabulary, DefaultIds::default())?;
        let model = Model::ByteLevel(Box::new(ByteLevel::from_gguf(metadata, &vocabulary, words, special.unknown)?));
        Self::assemble(metadata, Parts { vocabulary, special, model, default_add_bos })
    }

    fn ids_only(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let key = match metadata.string("general.architecture")? {
            Some(architecture) => format!("{architecture}.vocab_size"),
            None => "vocab_size".to_owned(),
        };
        let size = metadata.u64(&key)?.unwrap_or(0);
        let size = usize::try_from(size).ok().filter(|_| size <= MAX_NAMELESS).ok_or_else(|| {
            TokenizerError::vocabulary(format!("`{key}` is {size}, at most {MAX_NAMELESS} ids are read"))
        })?;
        let mut vocabulary = Vocabulary::nameless(size);
        let special = SpecialTokens::from_gguf(metadata, &mut vocabulary, DefaultIds::default())?;
        Self::assemble(metadata, Parts { vocabulary, special, model: Model::IdsOnly, default_add_bos: false })
    }

    fn assemble(metadata: &Metadata, parts: Parts) -> Result<Self, TokenizerError> {
        let Parts { vocabulary, special, model, default_add_bos } = parts;
        let wanted = |key: &str, id: Option<u32>, default: bool| match metadata.bool(key)? {
            Some(true) if id.is_none() => {
                Err(TokenizerError::vocabulary(format!("`{key}` is true, but the vocabulary names no such token")))
            }
            Some(stated) => Ok(stated),
            None => Ok(default && id.is_some()),
        };
        let add_bos = wanted("tokenizer.ggml.add_bos_token", special.bos, default_add_bos)?;
        let add_eos = wanted("tokenizer.ggml.add_eos_token", special.eos, false)?;
        let partitioner = Partitioner::new(&vocabulary);
        Ok(Self { vocabulary, special, partitioner, model, add_bos, add_eos })
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// A special token that is asked for and that the vocabulary lacks; a byte that it cannot express;
    /// any text where there is no vocabulary.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        if options.add_bos.unwrap_or(self.add_bos) {
            let missing = TokenizerError::NoSuchSpecialToken { option: "`add_bos`", token: "begin-of-text" };
            ids.push(self.special.bos.ok_or(missing)?);
        }
        if !text.is_empty() {
            let fragments = || self.partitioner.split(&self.vocabulary, text, options);
            match &self.model {
                Model::ScoreMerge(model) => model.encode(&self.vocabulary, &fragments(), &mut ids)?,
                Model::ByteLevel(model) => model.encode(&fragments(), &mut ids)?,
                Model::Json(model) => model.encode(text, options, &mut ids)?,
                Model::IdsOnly => return Err(TokenizerError::NoVocabulary),
            }
        }
        if options.add_eos.unwrap_or(self.add_eos) {
            let missing = TokenizerError::NoSuchSpecialToken { option: "`add_eos`", token: "end-of-text" };
            ids.push(self.special.eos.ok_or(missing)?);
        }
        Ok(ids)
    }

    /// The text of `ids`; bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// An id past the vocabulary.
    pub fn decode(&self, ids: &[u32], options: DecodeOptions) -> Result<String, TokenizerError> {
        let mut text = String::with_capacity(ids.len().saturating_mul(4));
        let mut decoder = self.stream_decoder(options);
        for &id in ids {
            decoder.push_into(id, &mut text)?;
        }
        text.push_str(&decoder.finish());
        Ok(text)
    }

    /// A decoder that takes one id at a time.
    pub fn stream_decoder(&self, options: DecodeOptions) -> StreamDecoder<'_> {
        StreamDecoder::new(self, options)
    }

    /// The bytes that a token stands for in a text: the text itself for special tokens, nothing for
    /// unused ones, `None` past the vocabulary. They need not be whole characters.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let kind = self.vocabulary.kind(id)?;
        let text = self.vocabulary.text(id).unwrap_or_default();
        Some(match (kind, &self.model) {
            (TokenKind::Unused, _) => Vec::new(),
            (TokenKind::Byte, _) => vocabulary::parse_byte(text).into_iter().collect(),
            (TokenKind::Normal, Model::Json(model)) => model.text_bytes(text),
            (TokenKind::Normal, Model::ScoreMerge(_)) => text.replace(score_merge::SPACE_MARK, " ").into_bytes(),
            (TokenKind::Normal, Model::ByteLevel(_)) => byte_level::text_bytes(text),
            _ => text.as_bytes().to_vec(),
        })
    }

    /// The text of a token as the vocabulary stores it (`▁the`, `Ġthe`, `<0x0A>`).
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.vocabulary.text(id)
    }

    /// What a token stands for.
    pub fn token_kind(&self, id: u32) -> Option<TokenKind> {
        self.vocabulary.kind(id)
    }

    /// The id whose stored text is exactly `text`.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.find(text)
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Begin of text.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// End of text.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// End of a turn in a conversation.
    pub fn eot(&self) -> Option<u32> {
        self.special.end_of_turn
    }

    /// Stands for what the vocabulary cannot express.
    pub fn unknown(&self) -> Option<u32> {
        self.special.unknown
    }

    /// Fills batches.
    pub fn padding(&self) -> Option<u32> {
        self.special.padding
    }

    /// True when generation ends with this token.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.special.is_end_of_generation(id)
    }

    /// All tokens that end generation, ascending.
    pub fn end_of_generation(&self) -> &[u32] {
        self.special.end_of_generation()
    }

    /// True for control and unknown tokens: hidden when decoding, read from text only on request.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.vocabulary.kind(id), Some(TokenKind::Control | TokenKind::Unknown))
    }

    /// Whether the model wants texts to begin with [`Self::bos`].
    pub fn add_bos_by_default(&self) -> bool {
        self.add_bos
    }

    /// Whether the model wants texts to end with [`Self::eos`].
    pub fn add_eos_by_default(&self) -> bool {
        self.add_eos
    }

    fn adds_space_prefix(&self) -> bool {
        match &self.model {
            Model::ScoreMerge(model) => model.adds_space_prefix(),
            Model::Json(model) => model.adds_space_prefix(),
            Model::ByteLevel(_) | Model::IdsOnly => false,
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = match &self.model {
            Model::ScoreMerge(_) => "llama",
            Model::ByteLevel(_) => "gpt2",
            Model::Json(_) => "tokenizer.json",
            Model::IdsOnly => "no_vocab",
        };
        f.debug_struct("Tokenizer")
            .field("model", &model)
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .field("add_bos", &self.add_bos)
            .field("add_eos", &self.add_eos)
            .finish_non_exhaustive()
    }
}
