//! Turning ids into text one at a time, without ever splitting a character.

use super::{DecodeOptions, Tokenizer, TokenizerError};

/// Bytes that become text as soon as they form whole characters.
///
/// Invalid bytes become U+FFFD exactly as [`String::from_utf8_lossy`] would have it for all bytes
/// together.
#[derive(Debug, Clone, Default)]
struct Utf8Assembler {
    /// The begin of a character that may still be completed; at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Assembler {
    fn push(&mut self, bytes: &[u8], text: &mut String) {
        let joined;
        let mut rest = if self.pending.is_empty() {
            bytes
        } else {
            self.pending.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.pending);
            &joined
        };
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => return text.push_str(valid),
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.extend(valid.utf8_chunks().map(|chunk| chunk.valid()));
                    match error.error_len() {
                        Some(length) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[length..];
                        }
                        None => {
                            self.pending = after.to_vec();
                            return;
                        }
                    }
                }
            }
        }
    }

    fn finish(&mut self, text: &mut String) {
        if !std::mem::take(&mut self.pending).is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Decodes a stream of ids; what [`push`](Self::push) and [`finish`](Self::finish) return, joined, is
/// what [`Tokenizer::decode`] returns for all ids together.
#[derive(Debug, Clone)]
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    options: DecodeOptions,
    assembler: Utf8Assembler,
    /// The next piece of text begins the whole text, so that its added space goes.
    strip_space: bool,
}

impl<'t> StreamDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, options: DecodeOptions) -> Self {
        let strip_space = tokenizer.adds_space_prefix() && !options.continuation;
        Self { tokenizer, options, assembler: Utf8Assembler::default(), strip_space }
    }

    /// The text that `id` completes: empty while a character is incomplete or for a hidden token.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        let mut text = String::new();
        self.push_into(id, &mut text)?;
        Ok(text)
    }

    pub(super) fn push_into(&mut self, id: u32, text: &mut String) -> Result<(), TokenizerError> {
        let bytes = self.tokenizer.token_bytes(id).ok_or_else(|| TokenizerError::IdOutOfRange {
            operation: "decode",
            id,
            vocab_size: self.tokenizer.vocab_size(),
        })?;
        let special = self.tokenizer.is_special(id);
        if special && !self.options.show_special {
            return Ok(());
        }
        let mut bytes = bytes.as_slice();
        if !special && !bytes.is_empty() && std::mem::take(&mut self.strip_space) {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.assembler.push(bytes, text);
        Ok(())
    }

    /// What is left at the end: U+FFFD where a character stayed incomplete, else nothing. Afterwards
    /// the decoder is ready for ids that continue the text.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.assembler.finish(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_what_the_whole_gives() {
        let samples: &[&[u8]] = &[
            b"",
            "plain, 你好 🤦🏼‍♂️ e\u{301}".as_bytes(),
            b"\xF0\x9F\xA4",
            b"a\x80b\xFFc\xC3",
            b"\xE2\x82\xE2\x82\xAC\xF0\x90",
            b"\xED\xA0\x80\xF4\x90\x80\x80\xC0\xAF",
            b"\xF0\x9F\xF0\x9F\xA4\xA6",
        ];
        for bytes in samples {
            let whole = String::from_utf8_lossy(bytes);
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let mut assembler = Utf8Assembler::default();
                    let mut text = String::new();
                    for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                        assembler.push(part, &mut text);
                    }
                    assembler.finish(&mut text);
                    assert_eq!(text, whole, "{bytes:X?} cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn an_incomplete_character_is_held_back() {
        let mut assembler = Utf8Assembler::default();
        let mut text = String::new();
        for (byte, seen) in "a🤦".bytes().zip(["a", "a", "a", "a", "a🤦"]) {
            assembler.push(&[byte], &mut text);
            assert_eq!(text, seen);
        }
    }
}
