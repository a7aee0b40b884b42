//! Byte-level byte-pair encoding: merges in a fixed order, over bytes written as printable characters.
//!
//! The text is cut into words by the pre-tokenizer, each byte of a word becomes one of 256 printable
//! characters, and the `tokenizers` crate applies the merges. Reading and building takes 0.2 s of
//! processor time for Qwen 2's 151,936 tokens and 0.26 s for Llama 3's 128,256 tokens and 280,147 merges
//! (release build, 2-core development machine). The word cache of that crate is off: it is thread-local
//! and outlives the tokenizer. Its regular expressions are not used either (see `pre_tokenizer`).
//!
//! No Unicode normalisation is applied: GGUF does not record it. Hugging Face's Qwen 2 tokenizer
//! composes characters first (NFC).

use anymlx_formats::gguf::Metadata;
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

use super::error::{TokenizerError, excerpt};
use super::pre_tokenizer::PreTokenizer;
use super::special::Fragment;
use super::vocabulary::Vocabulary;

/// A `gpt2` vocabulary: words, merges and the alphabet of bytes.
pub(super) struct ByteLevel {
    words: PreTokenizer,
    merges: BPE,
    alphabet: [char; 256],
    /// Bytes that no token and no unknown token stands for.
    unreachable: Vec<u8>,
}

impl ByteLevel {
    pub fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        words: PreTokenizer,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let alphabet = byte_alphabet();
        let has_symbol = |byte: u8| {
            let mut buffer = [0; 4];
            vocabulary.find_piece(alphabet[usize::from(byte)].encode_utf8(&mut buffer)).is_some()
        };
        let missing: Vec<u8> = (0..=255).filter(|&byte| !has_symbol(byte)).collect();
        if missing.len() == 256 {
            return Err(TokenizerError::vocabulary("none of the 256 byte symbols is a token, model `gpt2` needs them"));
        }
        // Tokens that text must not become are kept from the merging engine, except the unknown one.
        let pieces: Vocab = vocabulary
            .texts()
            .filter(|&(id, text)| !text.is_empty() && (vocabulary.is_piece(id) || Some(id) == unknown))
            .map(|(id, text)| (text.to_owned(), id))
            .collect();
        let longest = pieces.keys().map(String::len).max().unwrap_or(0);
        let mut builder = BPE::builder()
            .cache_capacity(0)
            .ignore_merges(words.takes_whole_words())
            .vocab_and_merges(pieces, read_merges(metadata, longest)?);
        let unknown_text = unknown.and_then(|id| vocabulary.text(id)).filter(|text| !text.is_empty());
        let unreachable = if unknown_text.is_some() { Vec::new() } else { missing };
        if let Some(text) = unknown_text {
            builder = builder.unk_token(text.to_owned());
        }
        let merges = builder.build().map_err(|error| {
            TokenizerError::vocabulary(format!("`tokenizer.ggml.merges`: {}", excerpt(&error.to_string())))
        })?;
        Ok(Self { words, merges, alphabet, unreachable })
    }

    /// Appends the ids of `fragments`.
    pub fn encode(&self, fragments: &[Fragment<'_>], ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut word_symbols = String::new();
        for fragment in fragments {
            let text = match fragment {
                Fragment::Token(id) => {
                    ids.push(*id);
                    continue;
                }
                Fragment::Text(text) => *text,
            };
            if !self.unreachable.is_empty()
                && let Some(byte) = text.bytes().find(|byte| self.unreachable.binary_search(byte).is_ok())
            {
                return Err(TokenizerError::NoTokenForByte { byte });
            }
            for word in self.words.split(text) {
                word_symbols.clear();
                word_symbols.extend(word.bytes().map(|byte| self.alphabet[usize::from(byte)]));
                let tokens = self.merges.tokenize(&word_symbols).map_err(|error| {
                    TokenizerError::vocabulary(format!("merging `{}`: {}", excerpt(word), excerpt(&error.to_string())))
                })?;
                ids.extend(tokens.iter().map(|token| token.id));
            }
        }
        Ok(())
    }
}

/// `tokenizer.ggml.merges`, each entry `LEFT RIGHT` where left, right and both joined are pieces, of up to `longest` bytes.
fn read_merges(metadata: &Metadata, longest: usize) -> Result<Vec<(String, String)>, TokenizerError> {
    let merges = metadata.require_strings("tokenizer.ggml.merges")?;
    let invalid = |index: usize, merge: &str, reason: &'static str| TokenizerError::InvalidMerge {
        index,
        merge: excerpt(merge),
        reason,
    };
    let mut pairs = Vec::with_capacity(merges.len());
    for (index, merge) in merges.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(invalid(index, merge, "needed two tokens with a space between"));
        };
        if left.is_empty() || right.is_empty() || right.contains(' ') {
            return Err(invalid(index, merge, "needed two tokens with one space between"));
        }
        // The `tokenizers` builder assumes that neither is longer than any piece.
        if left.len() + right.len() > longest {
            return Err(invalid(index, merge, "the joined text is no token"));
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    Ok(pairs)
}

/// The printable character of each byte: itself where it is printable Latin-1, else one from U+0100
/// on. Source: `bytes_to_unicode` of OpenAI's GPT-2.
pub(super) fn byte_alphabet() -> [char; 256] {
    let mut alphabet = ['\0'; 256];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        alphabet[usize::from(byte)] = if printable {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        };
    }
    alphabet
}

/// The byte that a character of the alphabet stands for.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// The bytes of a token's text; a text with a character outside the alphabet stands for itself.
pub(super) fn text_bytes(text: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        for (byte, &character) in (0..=255u8).zip(byte_alphabet().iter()) {
            assert_eq!(byte_of(character), Some(byte), "byte {byte:#x} is written {character:?}");
        }
        // Known points of GPT-2's table.
        assert_eq!(byte_alphabet()[usize::from(b' ')], 'Ġ');
        assert_eq!(byte_alphabet()[usize::from(b'\n')], 'Ċ');
        assert_eq!(byte_of('ń'), None);
    }
}
