//! `tokenizer.json`: normalisation, words, merging and what is put around a text, by the `tokenizers` crate.
//!
//! Ids become text by the rules of this module instead, one token at a time: byte-level pieces as their bytes, other pieces
//! with `▁` as a space, `<0x0A>` as a byte. That is what the decoders of published models do for whole texts.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use anymlx_formats::gguf::StringArray;
use tokenizers::{DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use super::{
    EncodeOptions, byte_level,
    error::{TokenizerError, excerpt},
    json_limits,
    score_merge::SPACE_MARK,
    special::{RoleTexts, SpecialTokens},
    vocabulary::{TokenKind, Vocabulary, parse_byte},
};

/// Ids that a file may name: beyond, the gaps between them would take memory.
const MAX_TOKENS: usize = 1 << 24;

/// Roles that other files of a checkpoint give to tokens of a `tokenizer.json`.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonOptions<'a> {
    /// Begin of text.
    pub bos_token: Option<&'a str>,
    /// End of text.
    pub eos_token: Option<&'a str>,
    /// Stands for what the vocabulary cannot express.
    pub unknown_token: Option<&'a str>,
    /// Fills batches.
    pub padding_token: Option<&'a str>,
    /// Ids after which generation ends, besides the end of a text or of a turn.
    pub end_of_generation: &'a [u32],
}

/// How pieces are written in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// Bytes as printable characters.
    ByteLevel,
    /// Characters, with `▁` for a space.
    Characters,
}

/// A tokenizer of the `tokenizers` crate.
pub(super) struct JsonModel {
    /// Reads control tokens in a text as text.
    plain: Tokenizer,
    /// Reads them as tokens; made when first asked for.
    with_special: OnceLock<Tokenizer>,
    pieces: Pieces,
    adds_space_prefix: bool,
}

/// A `tokenizer.json`, read.
pub(super) struct Loaded {
    pub vocabulary: Vocabulary,
    pub special: SpecialTokens,
    pub model: JsonModel,
    pub add_bos: bool,
    pub add_eos: bool,
}

pub(super) fn load(json: &[u8], options: &JsonOptions<'_>) -> Result<Loaded, TokenizerError> {
    json_limits::check(json)?;
    let mut plain = guarded("read", || Tokenizer::from_bytes(json))?;
    guarded("read", || plain.with_truncation(None).map(drop))?;
    plain.with_padding(None);
    plain.set_encode_special_tokens(true);
    let pieces = match plain.get_decoder() {
        Some(decoder) if is_byte_level(decoder) => Pieces::ByteLevel,
        _ => Pieces::Characters,
    };
    let mut vocabulary = read_vocabulary(&plain, pieces)?;
    let texts = RoleTexts {
        bos: options.bos_token,
        eos: options.eos_token,
        unknown: options.unknown_token,
        padding: options.padding_token,
    };
    let special = SpecialTokens::from_texts(&mut vocabulary, &texts, options.end_of_generation);
    // The post-processor says what surrounds a text.
    let surrounded = guarded("encode", || plain.encode_fast("", true))?;
    let add_bos = special.bos.is_some() && surrounded.get_ids().first().copied() == special.bos;
    let last = surrounded.get_ids().get(usize::from(add_bos)..).and_then(|ids| ids.last().copied());
    let add_eos = special.eos.is_some() && last == special.eos;
    let adds_space_prefix = adds_space_prefix(&plain);
    let model = JsonModel { plain, with_special: OnceLock::new(), pieces, adds_space_prefix };
    Ok(Loaded { vocabulary, special, model, add_bos, add_eos })
}

impl JsonModel {
    pub fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let tokenizer = if options.parse_special {
            self.with_special.get_or_init(|| {
                let mut tokenizer = self.plain.clone();
                tokenizer.set_encode_special_tokens(false);
                tokenizer
            })
        } else {
            &self.plain
        };
        let encoding = guarded("encode", || tokenizer.encode_fast(text, false))?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    pub fn text_bytes(&self, text: &str) -> Vec<u8> {
        match self.pieces {
            Pieces::ByteLevel => byte_level::text_bytes(text),
            Pieces::Characters => text.replace(SPACE_MARK, " ").into_bytes(),
        }
    }

    pub fn adds_space_prefix(&self) -> bool {
        self.adds_space_prefix
    }
}

/// Runs code of the crate, which panics on some files.
fn guarded<T>(doing: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            Err(TokenizerError::vocabulary(format!("`tokenizer.json`: {doing}: {}", excerpt(&error.to_string()))))
        }
        Err(_) => Err(TokenizerError::vocabulary(format!("`tokenizer.json`: {doing}: the file contradicts itself"))),
    }
}

fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}

/// True where a text gets a space in front, which decoding takes away again.
fn adds_space_prefix(tokenizer: &Tokenizer) -> bool {
    fn prepends(normalizer: &NormalizerWrapper) -> bool {
        match normalizer {
            NormalizerWrapper::Prepend(_) => true,
            NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(prepends),
            _ => false,
        }
    }
    fn cuts_with_prefix(words: &PreTokenizerWrapper) -> bool {
        use tokenizers::pre_tokenizers::metaspace::PrependScheme;
        match words {
            PreTokenizerWrapper::Metaspace(metaspace) => metaspace.prepend_scheme != PrependScheme::Never,
            PreTokenizerWrapper::ByteLevel(level) => level.add_prefix_space,
            PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(cuts_with_prefix),
            _ => false,
        }
    }
    tokenizer.get_normalizer().is_some_and(prepends) || tokenizer.get_pre_tokenizer().is_some_and(cuts_with_prefix)
}

fn read_vocabulary(tokenizer: &Tokenizer, pieces: Pieces) -> Result<Vocabulary, TokenizerError> {
    let texts = tokenizer.get_vocab(true);
    let added = tokenizer.get_added_tokens_decoder();
    let size = texts.values().chain(added.keys()).max().map_or(0, |&id| id as usize + 1);
    if size == 0 || size > MAX_TOKENS || size > 64 * (texts.len() + 1024) {
        return Err(TokenizerError::vocabulary(format!(
            "`tokenizer.json` has {} tokens with ids up to {}",
            texts.len(),
            size.saturating_sub(1)
        )));
    }
    let has_byte_tokens = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.byte_fallback,
        ModelWrapper::Unigram(_) => true,
        _ => false,
    };
    let mut by_id = vec![""; size];
    let mut kinds = vec![TokenKind::Unused; size];
    for (text, &id) in &texts {
        let is_byte = has_byte_tokens && pieces == Pieces::Characters && parse_byte(text).is_some();
        by_id[id as usize] = text;
        kinds[id as usize] = if is_byte { TokenKind::Byte } else { TokenKind::Normal };
    }
    for (&id, token) in &added {
        by_id[id as usize] = &token.content;
        kinds[id as usize] = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
    }
    Vocabulary::from_parts(by_id.into_iter().collect::<StringArray>(), kinds, Vec::new())
}
