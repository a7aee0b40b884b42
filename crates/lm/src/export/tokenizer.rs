//! The vocabulary of a GGUF file as `tokenizer.json` and `tokenizer_config.json`.
//!
//! Format of the first: what the `tokenizers` crate reads. Vocabularies that merge by score (SentencePiece) become merges in
//! order of score: every way to cut a token into two tokens, best scores first, as Hugging Face `transformers` converts them.

use std::collections::HashMap;

use anymlx_formats::gguf::Metadata;
use serde_json::{Value, json};

use crate::{
    LmError, Result,
    tokenizer::{SPACE_MARK, TokenKind, Tokenizer, word_patterns},
};

/// The two files.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TokenizerFiles {
    pub(super) tokenizer: Value,
    pub(super) config: Value,
}

/// Makes both files.
///
/// # Errors
/// For a file without a vocabulary, or one of a kind that this cannot write.
pub(super) fn files(metadata: &Metadata) -> Result<TokenizerFiles> {
    let tokenizer = Tokenizer::from_gguf(metadata)?;
    let tokenizer_json = match metadata.require_string("tokenizer.ggml.model")? {
        "llama" => score_merge(metadata, &tokenizer)?,
        "gpt2" => byte_level(metadata, &tokenizer)?,
        other => {
            return Err(LmError::InvalidModel(format!(
                "a vocabulary of kind `{other}` cannot become a tokenizer.json"
            )));
        }
    };
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "model_max_length": 1_000_000_000_u64,
        "add_bos_token": tokenizer.add_bos_by_default(),
        "add_eos_token": tokenizer.add_eos_by_default(),
    });
    for (key, id) in [
        ("bos_token", tokenizer.bos()),
        ("eos_token", tokenizer.eot().or(tokenizer.eos())),
        ("unk_token", tokenizer.unknown()),
        ("pad_token", tokenizer.padding()),
    ] {
        if let Some(text) = text(id) {
            config[key] = text.into();
        }
    }
    if let Some(template) = metadata.string("tokenizer.chat_template")? {
        config["chat_template"] = template.into();
    }
    Ok(TokenizerFiles { tokenizer: tokenizer_json, config })
}

/// Texts and ids of all tokens. Texts that come twice belong to the first of them.
fn vocabulary(tokenizer: &Tokenizer) -> impl Iterator<Item = (u32, &str)> {
    (0..tokenizer.vocab_size() as u32).filter_map(|id| Some((id, tokenizer.token_text(id)?)))
}

fn vocabulary_object(tokenizer: &Tokenizer) -> Value {
    let mut object = serde_json::Map::new();
    for (id, text) in vocabulary(tokenizer) {
        object.entry(text).or_insert_with(|| id.into());
    }
    Value::Object(object)
}

/// Tokens that are found in texts before anything else.
fn added_tokens(tokenizer: &Tokenizer) -> Vec<Value> {
    let added = |(id, text): (u32, &str)| {
        let special = match tokenizer.token_kind(id)? {
            TokenKind::Control | TokenKind::Unknown => true,
            TokenKind::UserDefined => false,
            _ => return None,
        };
        let plain = !text.is_empty();
        plain.then(|| {
            json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            })
        })
    };
    vocabulary(tokenizer).filter_map(added).collect()
}

/// What is put around a text: the begin-of-text token in front where the model wants it.
fn post_processor(tokenizer: &Tokenizer) -> Value {
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos_by_default());
    let eos = tokenizer.eos().filter(|_| tokenizer.add_eos_by_default());
    let mut special = serde_json::Map::new();
    let mut piece = |id: Option<u32>, sequence: usize| -> Vec<Value> {
        let Some((id, text)) = id.and_then(|id| Some((id, tokenizer.token_text(id)?))) else { return Vec::new() };
        special.insert(text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}));
        vec![json!({"SpecialToken": {"id": text, "type_id": sequence}})]
    };
    let sequence = |name: &str, type_id: usize| vec![json!({"Sequence": {"id": name, "type_id": type_id}})];
    let single = [piece(bos, 0), sequence("A", 0), piece(eos, 0)].concat();
    let pair =
        [piece(bos, 0), sequence("A", 0), piece(eos, 0), piece(bos, 1), sequence("B", 1), piece(eos, 1)].concat();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
}

fn score_merge(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Value> {
    let scores = metadata.require_f32s("tokenizer.ggml.scores")?;
    let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK});
    let back = json!({"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "});
    let mut normalizers = vec![replace];
    let mut decoders = vec![back, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE_MARK}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(tokenizer),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": post_processor(tokenizer),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": tokenizer.unknown().and_then(|id| tokenizer.token_text(id)),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocabulary_object(tokenizer),
            "merges": merges_by_score(tokenizer, scores),
        },
    }))
}

/// Every way to make a token of two, best first.
fn merges_by_score(tokenizer: &Tokenizer, scores: &[f32]) -> Vec<[String; 2]> {
    let pieces: HashMap<&str, u32> = vocabulary(tokenizer)
        .filter(|&(id, _)| matches!(tokenizer.token_kind(id), Some(TokenKind::Normal)))
        .map(|(id, text)| (text, id))
        .collect();
    let mut merges: Vec<(f32, u32, u32, &str, &str)> = Vec::new();
    for (&text, &id) in &pieces {
        let score = scores.get(id as usize).copied().unwrap_or_default();
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (pieces.get(left), pieces.get(right)) {
                merges.push((score, left_id, right_id, left, right));
            }
        }
    }
    let order = |a: &(f32, u32, u32, &str, &str), b: &(f32, u32, u32, &str, &str)| {
        let characters = |text: &str| text.chars().count();
        b.0.total_cmp(&a.0)
            .then_with(|| characters(b.3).cmp(&characters(a.3)))
            .then_with(|| characters(b.4).cmp(&characters(a.4)))
            .then_with(|| (a.1, a.2).cmp(&(b.1, b.2)))
    };
    merges.sort_unstable_by(order);
    merges.into_iter().map(|(_, _, _, left, right)| [left.to_owned(), right.to_owned()]).collect()
}

fn byte_level(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Value> {
    let merges = metadata.require_strings("tokenizer.ggml.merges")?;
    let merges: Vec<[&str; 2]> =
        merges.iter().filter_map(|merge| merge.split_once(' ')).map(|(left, right)| [left, right]).collect();
    let name = metadata.string("tokenizer.ggml.pre")?.unwrap_or("default");
    let words = word_patterns(name)?;
    let mut stages: Vec<Value> = words
        .patterns
        .iter()
        .map(|pattern| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}))
        .collect();
    stages.push(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}));
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(tokenizer),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": stages},
        "post_processor": post_processor(tokenizer),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": tokenizer.unknown().and_then(|id| tokenizer.token_text(id)),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": words.whole_words,
            "vocab": vocabulary_object(tokenizer),
            "merges": merges,
        },
    }))
}

#[cfg(test)]
mod tests {
    use anymlx_formats::gguf::{Array, StringArray, Value as MetadataValue};

    use super::*;
    use crate::tokenizer::EncodeOptions;

    fn strings<'a>(texts: impl IntoIterator<Item = &'a str>) -> MetadataValue {
        MetadataValue::Array(Array::String(texts.into_iter().collect::<StringArray>()))
    }

    /// Ids of `text` by the file's own rules and by the `tokenizers` crate from the written JSON.
    fn assert_same_ids(metadata: &Metadata, texts: &[&str]) {
        let own = Tokenizer::from_gguf(metadata).unwrap();
        let json = serde_json::to_vec(&files(metadata).unwrap().tokenizer).unwrap();
        let written = tokenizers::Tokenizer::from_bytes(json).unwrap();
        for text in texts {
            let expected = own.encode(text, EncodeOptions { parse_special: true, ..EncodeOptions::default() }).unwrap();
            assert_eq!(written.encode(*text, true).unwrap().get_ids(), expected, "{text:?}");
        }
    }

    #[test]
    fn score_merging_becomes_merges() {
        let pieces = [
            ("<unk>", 2, 0.0),
            ("<s>", 3, 0.0),
            ("</s>", 3, 0.0),
            ("<0x21>", 6, 0.0),
            ("<0xC3>", 6, 0.0),
            ("<0xA9>", 6, 0.0),
            ("<turn>", 4, 0.0),
            ("▁a", 1, -1.0),
            ("b", 1, -7.0),
            ("c", 1, -8.0),
            ("▁", 1, -9.0),
            ("a", 1, -10.0),
            ("bc", 1, -2.0),
            ("ab", 1, -3.0),
            ("▁ab", 1, -4.0),
            ("abc", 1, -5.0),
        ];
        let known = pieces;
        let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
        let others = bytes.iter().filter(|byte| known.iter().all(|piece| piece.0 != byte.as_str()));
        let pieces: Vec<(&str, i32, f32)> =
            known.iter().copied().chain(others.map(|byte| (byte.as_str(), 6, 0.0))).collect();
        for prefix in [false, true] {
            let mut metadata = Metadata::new();
            metadata.insert("tokenizer.ggml.model", "llama");
            metadata.insert("tokenizer.ggml.tokens", strings(pieces.iter().map(|piece| piece.0)));
            let kinds: Vec<i32> = pieces.iter().map(|piece| piece.1).collect();
            metadata.insert("tokenizer.ggml.token_type", kinds);
            let scores: Vec<f32> = pieces.iter().map(|piece| piece.2).collect();
            metadata.insert("tokenizer.ggml.scores", scores);
            metadata.insert("tokenizer.ggml.bos_token_id", 1_u32);
            metadata.insert("tokenizer.ggml.eos_token_id", 2_u32);
            metadata.insert("tokenizer.ggml.add_space_prefix", prefix);
            assert_same_ids(&metadata, &["a", "abc", "ab abc  bca", "cab!", "é a", "a<turn>b", "abcabcabc ab"]);
        }
    }

    #[test]
    fn byte_level_vocabularies_keep_their_merges() {
        let symbols: Vec<String> = {
            let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let mut shifted = 0x100..;
            let mut symbol = |byte: u32| if printable(byte) { byte } else { shifted.next().unwrap() };
            (0..=0xff).map(|byte| char::from_u32(symbol(byte)).unwrap().to_string()).collect()
        };
        for pre in ["gpt-2", "llama-bpe", "qwen2"] {
            let tokens = symbols.iter().map(String::as_str).chain(["He", "ll", "Hell", "Ġw", "<|end|>"]);
            let mut kinds = vec![1_i32; 261];
            kinds[260] = 3;
            let mut metadata = Metadata::new();
            metadata.insert("tokenizer.ggml.model", "gpt2");
            metadata.insert("tokenizer.ggml.pre", pre);
            metadata.insert("tokenizer.ggml.tokens", strings(tokens));
            metadata.insert("tokenizer.ggml.token_type", kinds);
            metadata.insert("tokenizer.ggml.merges", strings(["H e", "l l", "He ll", "Ġ w"]));
            metadata.insert("tokenizer.ggml.eos_token_id", 260_u32);
            assert_same_ids(
                &metadata,
                &["Hello world", "  w  12345\n\n x", "é你 don't<|end|>I'LL", "Hell\t\r\n we'll   "],
            );
        }
    }
}
