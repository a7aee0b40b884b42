//! Ids beside those of llama.cpp and Hugging Face `tokenizers`; `goldens/tokenizer` holds the records
//! and the scripts that made them.

use std::path::{Path, PathBuf};

use anymlx_formats::gguf::{Array, Gguf, Metadata, Value};
use anymlx_lm::tokenizer::{DecodeOptions, EncodeOptions, Tokenizer};
use serde::Deserialize;

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokenizer").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[derive(Deserialize)]
struct ByteLevelGolden {
    tokens: Vec<String>,
    merges: Vec<String>,
    texts: Vec<String>,
    rules: std::collections::BTreeMap<String, Vec<Vec<u32>>>,
}

impl ByteLevelGolden {
    fn tokenizer(&self, rule: &str) -> Tokenizer {
        let strings = |list: &[String]| Value::Array(Array::String(list.iter().map(String::as_str).collect()));
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
        metadata.insert("tokenizer.ggml.pre", Value::String(rule.to_owned()));
        metadata.insert("tokenizer.ggml.tokens", strings(&self.tokens));
        metadata.insert("tokenizer.ggml.merges", strings(&self.merges));
        Tokenizer::from_gguf(&metadata).expect("a tokenizer")
    }
}

#[test]
fn byte_level_ids_are_those_of_hugging_face() {
    let golden: ByteLevelGolden = serde_json::from_str(&golden("byte_level.json")).expect("a golden");
    assert_eq!(golden.rules.len(), 5);
    for (rule, expected) in &golden.rules {
        let tokenizer = golden.tokenizer(rule);
        assert_eq!(expected.len(), golden.texts.len());
        for (text, ids) in golden.texts.iter().zip(expected) {
            let found = tokenizer.encode(text, EncodeOptions::TEXT_ONLY).expect("ids");
            assert_eq!(&found, ids, "{rule} {text:?}");
            assert_eq!(&tokenizer.decode(&found, DecodeOptions::default()).expect("a text"), text, "{rule}");
        }
    }
}

#[test]
fn streaming_gives_the_text_of_the_whole() {
    let golden: ByteLevelGolden = serde_json::from_str(&golden("byte_level.json")).expect("a golden");
    let tokenizer = golden.tokenizer("qwen2");
    for ids in &golden.rules["qwen2"] {
        // Every other id: broken characters in many places.
        let broken: Vec<u32> = ids.iter().copied().step_by(2).collect();
        for ids in [ids, &broken] {
            let mut decoder = tokenizer.stream_decoder(DecodeOptions::default());
            let mut text = String::new();
            for &id in ids {
                text.push_str(&decoder.push(id).expect("a known id"));
            }
            text.push_str(&decoder.finish());
            assert_eq!(text, tokenizer.decode(ids, DecodeOptions::default()).expect("a text"));
        }
    }
}

#[derive(Deserialize)]
struct LlamaCppGolden {
    peer: String,
    cases: Vec<LlamaCppCase>,
    long_text: LongText,
}

#[derive(Deserialize)]
struct LlamaCppCase {
    text: String,
    parse_special: bool,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct LongText {
    count: usize,
    fnv1a: String,
}

fn fnv1a(ids: &[u32]) -> String {
    let state = ids
        .iter()
        .flat_map(|id| id.to_le_bytes())
        .fold(0xCBF2_9CE4_8422_2325u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    format!("{state:016x}")
}

/// The tokenizer of the model that the program fetches by default, or `None`, saying why.
fn gemma3() -> Option<Tokenizer> {
    let file = "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf";
    let path: PathBuf = anymlx::env::cache_dir().expect("a cache folder").join(file);
    if !path.exists() {
        println!("skipped: {} is not there (`anymlx pull gemma3-270m` fetches it)", path.display());
        return None;
    }
    let bytes = std::fs::read(&path).expect("a readable model");
    let gguf = Gguf::parse(&bytes).expect("a GGUF file");
    Some(Tokenizer::from_gguf(&gguf.metadata).expect("a tokenizer"))
}

#[test]
fn gemma3_ids_are_those_of_llama_cpp() {
    let Some(tokenizer) = gemma3() else { return };
    let golden: LlamaCppGolden = serde_json::from_str(&golden("gemma3.json")).expect("a golden");
    assert_eq!(golden.cases.len(), 98);
    for case in &golden.cases {
        let options = EncodeOptions { parse_special: case.parse_special, ..EncodeOptions::default() };
        let ids = tokenizer.encode(&case.text, options).expect("ids");
        assert_eq!(ids, case.ids, "{:?}, {}", case.text, golden.peer);
        if !case.parse_special && !case.text.contains('▁') {
            let text = tokenizer.decode(&ids, DecodeOptions::default()).expect("a text");
            assert_eq!(text, case.text);
        }
    }
    assert_eq!(tokenizer.encode("", EncodeOptions::default()), Ok(vec![2]));
    // Not recorded from llama.cpp, which takes this closing tag of HTML for an end of text.
    let tag = tokenizer.encode("<s>x</s>", EncodeOptions::TEXT_ONLY).expect("ids");
    assert_eq!(tag.last(), tokenizer.token_id("</s>").as_ref());
    assert_eq!(tokenizer.end_of_generation(), [1, 106]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.eot()), (Some(2), Some(1), Some(106)));
    assert!(tokenizer.add_bos_by_default() && !tokenizer.add_eos_by_default());
}

#[test]
fn gemma3_ids_of_a_long_text() {
    let Some(tokenizer) = gemma3() else { return };
    let golden: LlamaCppGolden = serde_json::from_str(&golden("gemma3.json")).expect("a golden");
    let texts: ByteLevelGolden = serde_json::from_str(&self::golden("byte_level.json")).expect("a golden");
    let text = texts.texts.join("\n").repeat(30);
    let ids = tokenizer.encode(&text, EncodeOptions::default()).expect("ids");
    assert_eq!((ids.len(), fnv1a(&ids)), (golden.long_text.count, golden.long_text.fnv1a));
    assert_eq!(tokenizer.decode(&ids, DecodeOptions::default()).expect("a text"), text.replace('▁', " "));
}
