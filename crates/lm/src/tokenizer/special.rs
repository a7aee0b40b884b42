//! Tokens with a role, and the search for tokens that are matched before any merging.

use anymlx_formats::gguf::Metadata;

use super::EncodeOptions;
use super::error::TokenizerError;
use super::vocabulary::{TokenKind, Vocabulary};

/// End-of-turn texts, the first one present wins. Source: llama.cpp's `llama-vocab.cpp`.
const END_OF_TURN_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Further texts after which a model has nothing more to say. Source: as above.
const END_OF_GENERATION_TEXTS: &[&str] = &[
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<|eom_id|>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Texts that guide code infilling; control tokens in every model that has them. Source: as above.
const FILL_IN_TEXTS: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
];

/// Ids with a role.
#[derive(Debug, Clone, Default)]
pub(super) struct SpecialTokens {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub end_of_turn: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    /// Sorted.
    end_of_generation: Vec<u32>,
}

/// Ids that a kind of tokenizer assumes where the file names none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DefaultIds {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
}

/// Roles by the texts of their tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoleTexts<'a> {
    pub bos: Option<&'a str>,
    pub eos: Option<&'a str>,
    pub unknown: Option<&'a str>,
    pub padding: Option<&'a str>,
}

impl SpecialTokens {
    /// Reads `tokenizer.ggml.*_token_id`, completes them by well-known texts, and makes control
    /// tokens of the texts found so.
    pub fn from_gguf(
        metadata: &Metadata,
        vocabulary: &mut Vocabulary,
        defaults: DefaultIds,
    ) -> Result<Self, TokenizerError> {
        let size = vocabulary.len();
        let read = |name: &str| read_id(metadata, name, size);
        let fitting = |id: Option<u32>| id.filter(|&id| (id as usize) < size);
        let bos = read("bos_token_id")?.or(fitting(defaults.bos));
        let eos = read("eos_token_id")?.or(fitting(defaults.eos));
        let end_of_turn = read("eot_token_id")?;
        let mut end_of_generation: Vec<u32> = Vec::new();
        for name in ["eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"] {
            end_of_generation.extend(read(name)?);
        }
        let unknown = read("unknown_token_id")?.or(fitting(defaults.unknown));
        let padding = read("padding_token_id")?;
        Ok(Self { bos, eos, end_of_turn, unknown, padding, end_of_generation }.completed(vocabulary))
    }

    /// Roles by the texts of tokens; `end_of_generation` are ids that end generation besides.
    pub fn from_texts(vocabulary: &mut Vocabulary, texts: &RoleTexts<'_>, end_of_generation: &[u32]) -> Self {
        let find = |text: Option<&str>| text.and_then(|text| vocabulary.find(text));
        let size = vocabulary.len();
        let special = Self {
            bos: find(texts.bos),
            eos: find(texts.eos),
            end_of_turn: None,
            unknown: find(texts.unknown),
            padding: find(texts.padding),
            end_of_generation: end_of_generation.iter().copied().filter(|&id| (id as usize) < size).collect(),
        };
        special.completed(vocabulary)
    }

    /// Adds roles that follow from well-known texts, and makes control tokens of these.
    fn completed(mut self, vocabulary: &mut Vocabulary) -> Self {
        let inner_end = inner_end(vocabulary);
        for text in END_OF_TURN_TEXTS {
            if let Some(id) = vocabulary.find(text).filter(|&id| Some(id) != inner_end) {
                self.end_of_turn.get_or_insert(id);
                self.end_of_generation.push(id);
            }
        }
        let ends = &mut self.end_of_generation;
        ends.extend(END_OF_GENERATION_TEXTS.iter().filter_map(|text| vocabulary.find(text)));
        // Gemma and Qwen have `</s>` as ordinary text (a closing tag of HTML).
        ends.extend(vocabulary.find("</s>").filter(|&id| vocabulary.kind(id) == Some(TokenKind::Control)));
        for id in ends.iter() {
            vocabulary.set_kind(*id, TokenKind::Control);
        }
        for id in FILL_IN_TEXTS.iter().filter_map(|text| vocabulary.find(text)).collect::<Vec<_>>() {
            vocabulary.set_kind(id, TokenKind::Control);
        }
        ends.extend(self.eos);
        ends.extend(self.end_of_turn);
        ends.sort_unstable();
        ends.dedup();
        self
    }

    /// True when generation ends with `id`.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }

    /// All ids that end generation, ascending.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.end_of_generation
    }
}

/// `<|end|>` where it ends a message inside a generation, as in the "harmony" format
/// (`<|return|>`, `<|call|>`).
fn inner_end(vocabulary: &Vocabulary) -> Option<u32> {
    let has = |text: &str| vocabulary.find(text).is_some();
    let harmony = (has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>"));
    vocabulary.find("<|end|>").filter(|_| harmony)
}

fn read_id(metadata: &Metadata, name: &str, size: usize) -> Result<Option<u32>, TokenizerError> {
    let key = format!("tokenizer.ggml.{name}");
    // Converters write "none" as -1, in a signed or an unsigned type.
    let none = matches!(
        metadata.get(&key),
        Some(anymlx_formats::gguf::Value::I32(-1) | anymlx_formats::gguf::Value::U32(u32::MAX))
    );
    if none {
        return Ok(None);
    }
    let Some(number) = metadata.u64(&key)? else { return Ok(None) };
    match u32::try_from(number) {
        Ok(id) if (id as usize) < size => Ok(Some(id)),
        _ => Err(TokenizerError::vocabulary(format!("`{key}` is {number}, the vocabulary has {size} entries"))),
    }
}

/// A part of a text: plain, or a token matched as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

/// Finds the tokens that are matched before any merging: user-defined ones always, control and
/// unknown ones on request.
///
/// The longest token text takes all its places first, from left to right, then the next longest in
/// what is left, and so on (the order of llama.cpp; it differs from leftmost-longest).
pub(super) struct Partitioner {
    /// Longest text first, then by id.
    tokens: Vec<u32>,
}

impl Partitioner {
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut tokens: Vec<(usize, u32)> = vocabulary
            .texts()
            .filter(|&(id, text)| {
                !text.is_empty()
                    && matches!(
                        vocabulary.kind(id),
                        Some(TokenKind::UserDefined | TokenKind::Control | TokenKind::Unknown)
                    )
            })
            .map(|(id, text)| (text.len(), id))
            .collect();
        tokens.sort_unstable_by_key(|&(length, id)| (std::cmp::Reverse(length), id));
        Self { tokens: tokens.into_iter().map(|(_, id)| id).collect() }
    }

    /// Cuts `text` into fragments.
    pub fn split<'t>(&self, vocabulary: &Vocabulary, text: &'t str, options: EncodeOptions) -> Vec<Fragment<'t>> {
        if text.is_empty() {
            return Vec::new();
        }
        let pairs = BytePairs::of(text.as_bytes());
        let mut fragments = vec![Fragment::Text(text)];
        for &id in &self.tokens {
            let Some(token_text) = vocabulary.text(id) else { continue };
            let admitted = options.parse_special || vocabulary.kind(id) == Some(TokenKind::UserDefined);
            if !admitted || token_text.len() > text.len() || !pairs.may_contain(token_text.as_bytes()) {
                continue;
            }
            let finder = memchr::memmem::Finder::new(token_text);
            if finder.find(text.as_bytes()).is_none() {
                continue;
            }
            let mut split = Vec::with_capacity(fragments.len() + 2);
            for fragment in fragments {
                match fragment {
                    Fragment::Text(part) => cut(part, &finder, token_text.len(), id, &mut split),
                    token => split.push(token),
                }
            }
            fragments = split;
        }
        fragments
    }
}

fn cut<'t>(
    text: &'t str,
    finder: &memchr::memmem::Finder<'_>,
    token_length: usize,
    id: u32,
    out: &mut Vec<Fragment<'t>>,
) {
    let mut rest = 0;
    for at in finder.find_iter(text.as_bytes()) {
        if at > rest {
            out.push(Fragment::Text(&text[rest..at]));
        }
        out.push(Fragment::Token(id));
        rest = at + token_length;
    }
    if rest < text.len() {
        out.push(Fragment::Text(&text[rest..]));
    }
}

/// The set of adjacent byte pairs of a text: rules out most of thousands of special tokens without
/// a search.
struct BytePairs {
    bits: Vec<u64>,
}

impl BytePairs {
    fn of(text: &[u8]) -> Self {
        let mut bits = vec![0u64; 1 << 10];
        for pair in text.windows(2) {
            let index = usize::from(pair[0]) << 8 | usize::from(pair[1]);
            bits[index / 64] |= 1 << (index % 64);
        }
        Self { bits }
    }

    fn may_contain(&self, text: &[u8]) -> bool {
        text.windows(2).all(|pair| {
            let index = usize::from(pair[0]) << 8 | usize::from(pair[1]);
            self.bits[index / 64] >> (index % 64) & 1 == 1
        })
    }
}
