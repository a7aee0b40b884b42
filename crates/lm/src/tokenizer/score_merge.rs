//! Merging by score: byte-pair encoding as SentencePiece does it.
//!
//! The text is a list of characters. The adjacent pair whose joined text is the token of highest
//! score (the leftmost of equals) becomes one symbol, until no pair is a token. A character that is
//! no token becomes the tokens of its bytes. A heap of candidate pairs makes this O(n log n).
//! Source: SentencePiece, `bpe_model.cc`.
//!
//! No token spans two characters that no token has side by side; a text cut there merges the same
//! way in parts. The cuts are made in front of `▁`, so that nearly every part is a word.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use anymlx_formats::gguf::Metadata;

use super::error::TokenizerError;
use super::special::Fragment;
use super::vocabulary::Vocabulary;

/// Written in place of a space.
pub(crate) const SPACE_MARK: &str = "\u{2581}";

/// The options of a `llama` vocabulary.
pub(super) struct ScoreMerge {
    add_space_prefix: bool,
    /// Token of each byte.
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
    /// Characters that some token has in front of a [`SPACE_MARK`].
    before_space: HashSet<char>,
}

impl ScoreMerge {
    pub fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        if !vocabulary.has_scores() {
            return Err(TokenizerError::vocabulary("`tokenizer.ggml.scores` is missing, model `llama` merges by it"));
        }
        let bytes: Vec<Option<u32>> = (0..256).map(|byte| vocabulary.find(&format!("<0x{byte:02X}>"))).collect();
        let missing = bytes.iter().filter(|id| id.is_none()).count();
        if missing == 256 && unknown.is_none() {
            let message = "there are neither byte tokens (`<0x00>`..`<0xFF>`) nor an unknown token";
            return Err(TokenizerError::vocabulary(message));
        }
        if let Some(byte) = bytes.iter().position(Option::is_none)
            && missing < 256
        {
            let message = format!("{missing} of the 256 byte tokens are missing, the first is `<0x{byte:02X}>`");
            return Err(TokenizerError::vocabulary(message));
        }
        let add_space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(Self { add_space_prefix, bytes, unknown, before_space: before_space(vocabulary) })
    }

    /// True when a text at the begin or after a special token gets a space in front.
    pub fn adds_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// Appends the ids of `fragments`, which begin a text.
    pub fn encode(
        &self,
        vocabulary: &Vocabulary,
        fragments: &[Fragment<'_>],
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut after_token = true;
        let mut marked = String::new();
        for fragment in fragments {
            match fragment {
                Fragment::Token(id) => ids.push(*id),
                Fragment::Text(text) => {
                    marked.clear();
                    if self.add_space_prefix && after_token {
                        marked.push_str(SPACE_MARK);
                    }
                    for (index, part) in text.split(' ').enumerate() {
                        if index > 0 {
                            marked.push_str(SPACE_MARK);
                        }
                        marked.push_str(part);
                    }
                    self.encode_marked(vocabulary, &marked, ids)?;
                }
            }
            after_token = matches!(fragment, Fragment::Token(_));
        }
        Ok(())
    }

    fn encode_marked(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut merger = Merger::default();
        let mut rest = 0;
        for at in memchr::memmem::find_iter(text.as_bytes(), SPACE_MARK) {
            let before = text[rest..at].chars().next_back();
            if before.is_some_and(|character| !self.before_space.contains(&character)) {
                self.encode_part(vocabulary, &mut merger, &text[rest..at], ids)?;
                rest = at;
            }
        }
        self.encode_part(vocabulary, &mut merger, &text[rest..], ids)
    }

    fn encode_part(
        &self,
        vocabulary: &Vocabulary,
        merger: &mut Merger,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        for symbol in merger.merge(vocabulary, text) {
            if let Some(id) = symbol.id {
                ids.push(id);
                continue;
            }
            let bytes = &text.as_bytes()[symbol.start..symbol.start + symbol.length];
            let tokens = bytes.iter().map(|&byte| self.bytes[usize::from(byte)]);
            if tokens.clone().all(|id| id.is_some()) {
                ids.extend(tokens.flatten());
            } else {
                ids.push(self.unknown.ok_or(TokenizerError::NoTokenForByte { byte: bytes[0] })?);
            }
        }
        Ok(())
    }
}

fn before_space(vocabulary: &Vocabulary) -> HashSet<char> {
    let finder = memchr::memmem::Finder::new(SPACE_MARK);
    let pieces = vocabulary.texts().filter(|&(id, _)| vocabulary.is_piece(id));
    pieces
        .flat_map(|(_, text)| {
            finder.find_iter(text.as_bytes()).filter_map(|at| text[..at].chars().next_back()).collect::<Vec<_>>()
        })
        .collect()
}

/// A run of the text. `length` is 0 once the run has been joined to the one before.
struct Symbol {
    start: usize,
    length: usize,
    previous: Option<usize>,
    next: Option<usize>,
    id: Option<u32>,
}

/// Two adjacent symbols that would form a token.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both together; tells a candidate that has been overtaken by another merge.
    length: usize,
    id: u32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

/// The working memory of merging, kept from part to part.
#[derive(Default)]
struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl Merger {
    /// The symbols of `text` after all merges, in order.
    fn merge(&mut self, vocabulary: &Vocabulary, text: &str) -> impl Iterator<Item = &Symbol> {
        let Self { symbols, queue } = self;
        symbols.clear();
        symbols.extend(text.char_indices().enumerate().map(|(index, (start, character))| {
            let length = character.len_utf8();
            Symbol {
                start,
                length,
                previous: index.checked_sub(1),
                next: Some(index + 1).filter(|_| start + length < text.len()),
                id: vocabulary.find_piece(&text[start..start + length]),
            }
        }));

        let candidate = |symbols: &[Symbol], left: Option<usize>, right: Option<usize>| {
            let (left, right) = (left?, right?);
            let start = symbols[left].start;
            let length = symbols[left].length + symbols[right].length;
            let id = vocabulary.find_piece(&text[start..start + length])?;
            Some(Candidate { score: vocabulary.score(id), left, right, length, id })
        };
        // The queue is empty here: the loop below ends when it is. Filling it at once is O(n).
        let mut seeds = std::mem::take(queue).into_vec();
        seeds.extend((0..symbols.len()).filter_map(|left| candidate(symbols, Some(left), symbols[left].next)));
        *queue = BinaryHeap::from(seeds);

        while let Some(best) = queue.pop() {
            let (left, right) = (&symbols[best.left], &symbols[best.right]);
            if left.length == 0 || right.length == 0 || left.length + right.length != best.length {
                continue;
            }
            let (previous, next) = (left.previous, right.next);
            let left = &mut symbols[best.left];
            (left.length, left.next, left.id) = (best.length, next, Some(best.id));
            symbols[best.right].length = 0;
            if let Some(next) = next {
                symbols[next].previous = Some(best.left);
            }
            queue.extend(candidate(symbols, previous, Some(best.left)));
            queue.extend(candidate(symbols, Some(best.left), next));
        }
        symbols.iter().filter(|symbol| symbol.length > 0)
    }
}
