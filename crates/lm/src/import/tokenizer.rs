//! `tokenizer.json` under the keys of GGUF.
//!
//! Two kinds exist there: vocabularies of bytes, whose rule for cutting words has a name, and vocabularies of characters that
//! merge by score (SentencePiece). Merges of the latter become scores in their order, which gives the same ids where merges are
//! in the order of what they make, as in all vocabularies that were converted from SentencePiece.

use std::collections::HashMap;

use anymlx_formats::gguf::{Array, Metadata, StringArray, Value as MetadataValue};
use serde_json::Value;

use super::OPERATION;
use crate::{
    LmError, Result,
    checkpoint::{Folder, json_of},
    tokenizer::{SPACE_MARK, TokenKind, Tokenizer, byte_level_words, name_of_words},
};

/// Below the score of every merge: characters and bytes are never made by one.
const UNMERGED: f32 = -1e9;
/// How GGUF pads a vocabulary up to the rows of the embedding table.
const PADDING: &str = "[PAD";

fn inexpressible(what: impl std::fmt::Display) -> LmError {
    LmError::invalid(OPERATION, format!("`tokenizer.json`: {what}, which GGUF cannot express"))
}

/// Adds the vocabulary, roles of tokens and the chat template; `rows` are those of the embedding table.
pub(super) fn describe(folder: &Folder, rows: usize, metadata: &mut Metadata) -> Result<()> {
    let bytes = folder.tokenizer_json()?;
    let json: Value = json_of("tokenizer.json", &bytes)?;
    let tokenizer = folder.tokenizer()?;
    let model = &json["model"];
    if !matches!(model["type"].as_str(), Some("BPE") | None) || !model["merges"].is_array() {
        return Err(inexpressible(format!("a model of type {}", model["type"])));
    }
    let merges = merges(model)?;
    if has_kind(&json["decoder"], "ByteLevel") {
        byte_level(&json, &merges, metadata)?;
    } else {
        score_merge(&json, &tokenizer, &merges, rows, metadata)?;
    }
    let size = tokenizer.vocab_size();
    if size > rows {
        let message = format!("the vocabulary has {size} tokens, the embedding table {rows} rows");
        return Err(LmError::InvalidModel(message));
    }
    let padding: Vec<String> = (size..rows).map(|id| format!("{PADDING}{id}]")).collect();
    let texts = (0..size as u32).map(|id| tokenizer.token_text(id).unwrap_or_default());
    let texts: StringArray = texts.chain(padding.iter().map(String::as_str)).collect();
    metadata.insert("tokenizer.ggml.tokens", MetadataValue::Array(Array::String(texts)));
    let kinds = (0..rows as u32).map(|id| kind_of(&tokenizer, id).number());
    metadata.insert("tokenizer.ggml.token_type", kinds.collect::<Vec<i32>>());
    for (key, id) in [
        ("bos_token_id", tokenizer.bos()),
        ("eos_token_id", tokenizer.eos()),
        ("eot_token_id", other_end(&tokenizer)),
        ("unknown_token_id", tokenizer.unknown()),
        ("padding_token_id", tokenizer.padding()),
    ] {
        if let Some(id) = id {
            metadata.insert(format!("tokenizer.ggml.{key}"), id);
        }
    }
    metadata.insert("tokenizer.ggml.add_bos_token", tokenizer.add_bos_by_default());
    metadata.insert("tokenizer.ggml.add_eos_token", tokenizer.add_eos_by_default());
    if let Some(template) = folder.chat_template_source()? {
        metadata.insert("tokenizer.chat_template", template.as_str());
    }
    Ok(())
}

/// An id after which generation ends that is not the end of a text.
fn other_end(tokenizer: &Tokenizer) -> Option<u32> {
    tokenizer.end_of_generation().iter().copied().find(|&id| Some(id) != tokenizer.eos())
}

fn kind_of(tokenizer: &Tokenizer, id: u32) -> TokenKind {
    match tokenizer.token_kind(id) {
        Some(TokenKind::Control) if tokenizer.unknown() == Some(id) => TokenKind::Unknown,
        Some(kind) => kind,
        None => TokenKind::Unused,
    }
}

/// Pairs of pieces, which older files write as one text with a space between.
fn merges(model: &Value) -> Result<Vec<(&str, &str)>> {
    fn pair_of(merge: &Value) -> Option<(&str, &str)> {
        match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [left, right] => Some((left.as_str()?, right.as_str()?)),
                _ => None,
            },
            _ => None,
        }
    }
    let all = model["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let broken = || LmError::InvalidModel("`tokenizer.json`: a merge is no pair of texts".into());
    all.iter().map(|merge| pair_of(merge).ok_or_else(broken)).collect()
}

/// The stages of a `Sequence`, or the one that stands alone.
fn stages(value: &Value) -> Vec<&Value> {
    let lists = ["normalizers", "pretokenizers", "decoders"];
    match lists.iter().find_map(|list| value[list].as_array()) {
        Some(list) => list.iter().flat_map(stages).collect(),
        None if value.is_null() => Vec::new(),
        None => vec![value],
    }
}

fn has_kind(value: &Value, kind: &str) -> bool {
    stages(value).iter().any(|stage| stage["type"] == kind)
}

fn byte_level(json: &Value, merges: &[(&str, &str)], metadata: &mut Metadata) -> Result<()> {
    // Readers of GGUF leave texts as they are; composed characters, which NFC makes, are what nearly all texts hold.
    if let Some(stage) = stages(&json["normalizer"]).into_iter().find(|stage| stage["type"] != "NFC") {
        return Err(inexpressible(format!("the normaliser {}", stage["type"])));
    }
    let mut patterns = Vec::new();
    for stage in stages(&json["pre_tokenizer"]) {
        match stage["type"].as_str() {
            Some("Split") if stage["behavior"] == "Isolated" && stage["invert"] != true => {
                let Some(pattern) = stage["pattern"]["Regex"].as_str() else {
                    return Err(inexpressible("a split at a text"));
                };
                patterns.push(pattern.to_owned());
            }
            Some("Digits") if stage["individual_digits"] == true => patterns.push(r"\p{N}".to_owned()),
            Some("ByteLevel") if stage["add_prefix_space"] != true => {
                if stage["use_regex"] != false {
                    patterns.push(byte_level_words());
                }
            }
            _ => return Err(inexpressible(format!("the way of cutting words {stage}"))),
        }
    }
    let whole_words = json["model"]["ignore_merges"] == true;
    let Some(name) = name_of_words(&patterns, whole_words) else {
        return Err(inexpressible(format!("words are cut by {patterns:?}")));
    };
    metadata.insert("tokenizer.ggml.model", "gpt2");
    metadata.insert("tokenizer.ggml.pre", name);
    let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    let merges: StringArray = merges.iter().map(String::as_str).collect();
    metadata.insert("tokenizer.ggml.merges", MetadataValue::Array(Array::String(merges)));
    Ok(())
}

fn score_merge(
    json: &Value,
    tokenizer: &Tokenizer,
    merges: &[(&str, &str)],
    rows: usize,
    metadata: &mut Metadata,
) -> Result<()> {
    let model = &json["model"];
    if model["byte_fallback"] != true {
        return Err(inexpressible("characters without a token are not written as bytes"));
    }
    let mut marks_spaces = false;
    let mut prefix = false;
    for stage in stages(&json["normalizer"]) {
        match stage["type"].as_str() {
            Some("Replace") if stage["pattern"]["String"] == " " && stage["content"] == SPACE_MARK => {
                marks_spaces = true;
            }
            Some("Prepend") if stage["prepend"] == SPACE_MARK => prefix = true,
            _ => return Err(inexpressible(format!("the normaliser {}", stage["type"]))),
        }
    }
    for stage in stages(&json["pre_tokenizer"]) {
        match stage["type"].as_str() {
            // All spaces are marked by then.
            Some("Split") if marks_spaces && stage["pattern"]["String"] == " " => {}
            Some("Metaspace") if stage["split"] == false => {
                marks_spaces = true;
                prefix |= stage["prepend_scheme"] != "never";
            }
            _ => return Err(inexpressible(format!("the way of cutting words {stage}"))),
        }
    }
    if !marks_spaces {
        return Err(inexpressible(format!("spaces are not written `{SPACE_MARK}`")));
    }
    let mut scores: HashMap<String, f32> = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        scores.entry([*left, *right].concat()).or_insert(-(rank as f32));
    }
    let score = |id: u32| match (tokenizer.token_kind(id), tokenizer.token_text(id)) {
        (Some(TokenKind::Normal), Some(text)) => scores.get(text).copied().unwrap_or(UNMERGED),
        _ => 0.0,
    };
    metadata.insert("tokenizer.ggml.model", "llama");
    metadata.insert("tokenizer.ggml.pre", "default");
    metadata.insert("tokenizer.ggml.scores", (0..rows as u32).map(score).collect::<Vec<f32>>());
    metadata.insert("tokenizer.ggml.add_space_prefix", prefix);
    Ok(())
}
