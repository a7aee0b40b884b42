//! The table of tokens: texts, kinds, scores, and the way back from a text to its id.

use std::hash::BuildHasher;

use anymlx_formats::gguf::{Array, Metadata, StringArray};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::error::{TokenizerError, excerpt};

/// What a token stands for; the numbers of `tokenizer.ggml.token_type`.
///
/// Source: the GGUF specification, and the piece types of SentencePiece's `sentencepiece_model.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for text that the vocabulary cannot express.
    Unknown,
    /// Marks structure (begin of text, end of turn, ..); not text.
    Control,
    /// A piece of text that is matched before anything else.
    UserDefined,
    /// Reserved; not text.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl TokenKind {
    fn from_number(number: i64) -> Self {
        match number {
            1 => TokenKind::Normal,
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            6 => TokenKind::Byte,
            // 5 is "unused", 0 "undefined"; llama.cpp reads any other number as undefined.
            _ => TokenKind::Unused,
        }
    }

    /// As `tokenizer.ggml.token_type` has it.
    pub(crate) fn number(self) -> i32 {
        match self {
            TokenKind::Normal => 1,
            TokenKind::Unknown => 2,
            TokenKind::Control => 3,
            TokenKind::UserDefined => 4,
            TokenKind::Unused => 5,
            TokenKind::Byte => 6,
        }
    }
}

/// An entry of the way back. Half the hash stands beside the id, so that a text that is no token is
/// seldom compared with one.
#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    id: u32,
}

/// Texts, kinds and scores by id, and ids by text. Texts are unique.
pub(super) struct Vocabulary {
    texts: StringArray,
    kinds: Vec<TokenKind>,
    scores: Vec<f32>,
    ids: HashTable<Slot>,
    hasher: DefaultHashBuilder,
    /// Bytes of the longest text.
    longest: usize,
}

impl Vocabulary {
    /// An empty table of `size` nameless, unused tokens.
    pub fn nameless(size: usize) -> Self {
        Self {
            texts: StringArray::new(),
            kinds: vec![TokenKind::Unused; size],
            scores: Vec::new(),
            ids: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            longest: 0,
        }
    }

    /// Reads `tokenizer.ggml.{tokens, token_type, scores}`. Absent kinds mean that all are normal.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let texts = metadata.require_strings("tokenizer.ggml.tokens")?.clone();
        let size = texts.len();
        if size == 0 {
            return Err(TokenizerError::vocabulary("`tokenizer.ggml.tokens` is empty, at least one token is needed"));
        }
        if u32::try_from(size).is_err() {
            return Err(TokenizerError::vocabulary(format!("{size} tokens, ids have 32 bits")));
        }
        let kinds = read_kinds(metadata, size)?;
        let scores = read_scores(metadata, size)?;

        Self::from_parts(texts, kinds, scores)
    }

    /// A table of texts, which are unique or empty, with as many kinds, and scores or none.
    pub fn from_parts(texts: StringArray, kinds: Vec<TokenKind>, scores: Vec<f32>) -> Result<Self, TokenizerError> {
        let hasher = DefaultHashBuilder::default();
        let mut ids = HashTable::with_capacity(texts.len());
        let mut longest = 0;
        for (id, text) in (0u32..).zip(texts.iter()) {
            longest = longest.max(text.len());
            // An empty text can never match; the entry stays reachable by id.
            if text.is_empty() {
                continue;
            }
            let hash = hasher.hash_one(text);
            let slot = Slot { hash: hash as u32, id };
            let same = |other: &Slot| other.hash == slot.hash && texts.get(other.id as usize) == Some(text);
            let rehash = |other: &Slot| hasher.hash_one(texts.get(other.id as usize).unwrap_or_default());
            match ids.entry(hash, same, rehash) {
                hashbrown::hash_table::Entry::Vacant(entry) => drop(entry.insert(slot)),
                hashbrown::hash_table::Entry::Occupied(entry) => {
                    let message = format!("tokens {} and {id} are both `{}`", entry.get().id, excerpt(text));
                    return Err(TokenizerError::vocabulary(message));
                }
            }
        }
        for (id, text) in texts.iter().enumerate() {
            if kinds[id] == TokenKind::Byte && parse_byte(text).is_none() {
                let message = format!("token {id} is of kind byte, its text is `{}`, needed `<0xXX>`", excerpt(text));
                return Err(TokenizerError::vocabulary(message));
            }
        }
        Ok(Self { texts, kinds, scores, ids, hasher, longest })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Text as stored.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize)
    }

    /// Kind, or `None` past the end.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// Changes the kind of an existing token.
    pub fn set_kind(&mut self, id: u32, kind: TokenKind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// True when `tokenizer.ggml.scores` was present.
    pub fn has_scores(&self) -> bool {
        !self.scores.is_empty()
    }

    /// Score of a token; zero where there are none.
    pub fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// The id whose text is `text`.
    pub fn find(&self, text: &str) -> Option<u32> {
        if text.is_empty() || text.len() > self.longest {
            return None;
        }
        let hash = self.hasher.hash_one(text);
        let same = |slot: &Slot| slot.hash == hash as u32 && self.texts.get(slot.id as usize) == Some(text);
        self.ids.find(hash, same).map(|slot| slot.id)
    }

    /// As [`Self::find`], among the tokens that plain text may become. Control, unknown and byte
    /// tokens are not: text that happens to spell one must stay text.
    pub fn find_piece(&self, text: &str) -> Option<u32> {
        self.find(text).filter(|&id| self.is_piece(id))
    }

    /// True for tokens that plain text may become.
    pub fn is_piece(&self, id: u32) -> bool {
        matches!(self.kind(id), Some(TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused))
    }

    /// All texts in order.
    pub fn texts(&self) -> impl Iterator<Item = (u32, &str)> {
        (0u32..).zip(self.texts.iter())
    }
}

fn read_kinds(metadata: &Metadata, size: usize) -> Result<Vec<TokenKind>, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let kinds: Vec<TokenKind> = match metadata.array(KEY)? {
        None => return Ok(vec![TokenKind::Normal; size]),
        Some(Array::I32(numbers)) => numbers.iter().map(|&n| TokenKind::from_number(n.into())).collect(),
        Some(Array::U32(numbers)) => numbers.iter().map(|&n| TokenKind::from_number(n.into())).collect(),
        Some(_) => return Err(TokenizerError::vocabulary(format!("`{KEY}` is not an array of 32-bit integers"))),
    };
    check_length(KEY, kinds.len(), size)?;
    Ok(kinds)
}

fn read_scores(metadata: &Metadata, size: usize) -> Result<Vec<f32>, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.scores";
    let scores: Vec<f32> = match metadata.array(KEY)? {
        None => return Ok(Vec::new()),
        // Adding zero turns -0.0 into 0.0, so that both are the same score in a total order.
        Some(Array::F32(scores)) => scores.iter().map(|&score| score + 0.0).collect(),
        Some(Array::I32(scores)) => scores.iter().map(|&score| score as f32).collect(),
        Some(_) => return Err(TokenizerError::vocabulary(format!("`{KEY}` is not an array of f32 or i32"))),
    };
    check_length(KEY, scores.len(), size)?;
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(TokenizerError::vocabulary(format!("the score of token {id} is not a number")));
    }
    Ok(scores)
}

fn check_length(key: &str, found: usize, needed: usize) -> Result<(), TokenizerError> {
    if found == needed {
        return Ok(());
    }
    Err(TokenizerError::vocabulary(format!("`{key}` has {found} entries, `tokenizer.ggml.tokens` has {needed}")))
}

/// The byte that `<0x0A>` stands for.
pub(super) fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u8::from_str_radix(digits, 16).ok() } else { None }
}
