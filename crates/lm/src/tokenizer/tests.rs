//! Small vocabularies built in place, and broken ones.

use std::time::{Duration, Instant};

use anymlx_formats::gguf::{Array, Metadata, Value};

use super::*;

/// A `llama` vocabulary: `<unk> <s> </s>`, a user-defined token, all bytes, and `pieces` with scores.
fn score_metadata(pieces: &[(&str, f32)]) -> Metadata {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut texts = vec!["<unk>", "<s>", "</s>", "\n\n"];
    let mut kinds = vec![2, 3, 3, 4];
    let mut scores = vec![0.0; 4];
    texts.extend(bytes.iter().map(String::as_str));
    kinds.resize(texts.len(), 6);
    texts.extend(pieces.iter().map(|&(text, _)| text));
    kinds.resize(texts.len(), 1);
    scores.resize(260, 0.0);
    scores.extend(pieces.iter().map(|&(_, score)| score));
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", Value::String("llama".to_owned()));
    metadata.insert("tokenizer.ggml.tokens", Value::Array(Array::String(texts.into_iter().collect())));
    metadata.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    metadata.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    metadata
}

const PIECES: &[(&str, f32)] = &[
    ("▁", -9.0),
    ("a", -9.0),
    ("b", -9.0),
    ("c", -9.0),
    ("ab", -1.0),
    ("bc", -0.5),
    ("abc", -2.0),
    ("▁a", -3.0),
    ("aa", -4.0),
    ("aaaa", -5.0),
    ("<", -9.0),
    ("s", -9.0),
    (">", -9.0),
    ("<s", -1.0),
    ("0", -9.0),
    ("x", -9.0),
    ("A", -9.0),
    ("<0", -1.0),
    ("<0x", -1.0),
    ("<0x0", -1.0),
    ("<0x0A", -1.0),
];

fn score_tokenizer() -> Tokenizer {
    Tokenizer::from_gguf(&score_metadata(PIECES)).expect("a tokenizer")
}

fn texts(tokenizer: &Tokenizer, text: &str, options: EncodeOptions) -> Vec<String> {
    let ids = tokenizer.encode(text, options).expect("ids");
    ids.iter().map(|&id| tokenizer.token_text(id).expect("a known id").to_owned()).collect()
}

fn plain(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    texts(tokenizer, text, EncodeOptions::TEXT_ONLY)
}

/// Merging as its definition says, pair by pair.
fn merge_by_definition(text: &str, pieces: &[(&str, f32)]) -> Vec<String> {
    let score = |text: &str| pieces.iter().find(|piece| piece.0 == text).map(|piece| piece.1);
    let mut symbols: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for left in 1..symbols.len() {
            if let Some(score) = score(&(symbols[left - 1].clone() + &symbols[left]))
                && best.is_none_or(|(highest, _)| score > highest)
            {
                best = Some((score, left - 1));
            }
        }
        let Some((_, left)) = best else { return symbols };
        let right = symbols.remove(left + 1);
        symbols[left].push_str(&right);
    }
}

#[test]
fn the_best_score_merges_first() {
    let tokenizer = score_tokenizer();
    // `bc` scores above `ab`; then `a` and `bc` join.
    assert_eq!(plain(&tokenizer, "abc"), ["▁", "abc"]);
    assert_eq!(plain(&tokenizer, "a"), ["▁a"]);
    assert_eq!(plain(&tokenizer, "aaaaa"), ["▁a", "aaaa"]);
    assert_eq!(plain(&tokenizer, ""), Vec::<String>::new());
}

#[test]
fn merging_follows_the_definition() {
    let pieces: &[(&str, f32)] = &[
        ("a", -9.0),
        ("b", -9.0),
        ("▁", -9.0),
        ("ab", -1.0),
        ("ba", -1.0),
        ("aa", -2.0),
        ("aba", -0.5),
        ("bb", -3.0),
        ("b▁", -1.5),
        ("b▁a", -2.5),
        ("▁▁", -0.25),
        ("▁ab", -7.0),
        ("abab", -0.1),
    ];
    let mut metadata = score_metadata(pieces);
    metadata.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let tokenizer = Tokenizer::from_gguf(&metadata).expect("a tokenizer");
    let mut state = 7u64;
    for length in 0..200usize {
        let text: String = (0..length % 23)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                [' ', 'a', 'b', 'a', 'b'][(state >> 33) as usize % 5]
            })
            .collect();
        assert_eq!(plain(&tokenizer, &text), merge_by_definition(&text.replace(' ', "▁"), pieces), "{text:?}");
    }
}

#[test]
fn unknown_characters_become_bytes() {
    let tokenizer = score_tokenizer();
    let ids = tokenizer.encode("aé🙂", EncodeOptions::TEXT_ONLY).expect("ids");
    let shown = plain(&tokenizer, "aé🙂");
    assert_eq!(shown, ["▁a", "<0xC3>", "<0xA9>", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>"]);
    assert_eq!(tokenizer.decode(&ids, DecodeOptions::default()).expect("a text"), "aé🙂");
    assert_eq!(tokenizer.decode(&ids[..4], DecodeOptions::default()).expect("a text"), "aé\u{FFFD}");
}

#[test]
fn text_does_not_become_control_or_byte_tokens() {
    let tokenizer = score_tokenizer();
    assert_eq!(plain(&tokenizer, "<s>"), ["▁", "<s", ">"]);
    assert_eq!(plain(&tokenizer, "<0x0A>"), ["▁", "<0x0A", ">"]);
    let special = EncodeOptions { parse_special: true, ..EncodeOptions::TEXT_ONLY };
    assert_eq!(texts(&tokenizer, "<s>a</s>", special), ["<s>", "▁a", "</s>"]);
    assert_eq!(texts(&tokenizer, "a<unk>", special), ["▁a", "<unk>"]);
}

#[test]
fn user_defined_tokens_are_matched_first_and_get_a_prefix_after() {
    let tokenizer = score_tokenizer();
    assert_eq!(plain(&tokenizer, "a\n\na"), ["▁a", "\n\n", "▁a"]);
    assert_eq!(plain(&tokenizer, "\n\n\n"), ["\n\n", "▁", "<0x0A>"]);
}

#[test]
fn begin_and_end_of_text() {
    let tokenizer = score_tokenizer();
    assert!(tokenizer.add_bos_by_default() && !tokenizer.add_eos_by_default());
    assert_eq!(tokenizer.encode("", EncodeOptions::default()), Ok(vec![1]));
    let both = EncodeOptions { add_bos: Some(true), add_eos: Some(true), parse_special: false };
    assert_eq!(texts(&tokenizer, "a", both), ["<s>", "▁a", "</s>"]);
    assert!(tokenizer.is_end_of_generation(2) && !tokenizer.is_end_of_generation(1));

    let mut metadata = score_metadata(PIECES);
    metadata.insert("tokenizer.ggml.add_bos_token", Value::Bool(false));
    metadata.insert("tokenizer.ggml.add_eos_token", Value::Bool(true));
    let tokenizer = Tokenizer::from_gguf(&metadata).expect("a tokenizer");
    assert_eq!(texts(&tokenizer, "a", EncodeOptions::default()), ["▁a", "</s>"]);
}

#[test]
fn decoding_hides_control_tokens_and_the_added_space() {
    let tokenizer = score_tokenizer();
    let ids = tokenizer.encode("  a b", EncodeOptions::default()).expect("ids");
    assert_eq!(tokenizer.decode(&ids, DecodeOptions::default()).expect("a text"), "  a b");
    let continued = DecodeOptions { continuation: true, ..DecodeOptions::default() };
    assert_eq!(tokenizer.decode(&ids, continued).expect("a text"), "   a b");
    let shown = DecodeOptions { show_special: true, continuation: false };
    assert_eq!(tokenizer.decode(&ids, shown).expect("a text"), "<s>  a b");
    let error = tokenizer.decode(&[9_999], DecodeOptions::default()).expect_err("no such id");
    assert_eq!(error.to_string(), "decode: token id 9999 is out of range, the vocabulary has 281 entries");
    assert_eq!(tokenizer.token_bytes(4 + 0xE2), Some(vec![0xE2]));
    assert_eq!(tokenizer.token_bytes(u32::MAX), None);
}

/// A `gpt2` vocabulary: the byte alphabet, `<|im_end|>` and a few merges.
fn byte_level_metadata() -> Metadata {
    let mut texts: Vec<String> = byte_level::byte_alphabet().iter().map(|c| c.to_string()).collect();
    texts.extend(["<|im_end|>", "ab", "Ġab", "abc"].map(str::to_owned));
    let mut kinds = vec![1; texts.len()];
    kinds[256] = 3;
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
    metadata.insert("tokenizer.ggml.pre", Value::String("qwen2".to_owned()));
    metadata.insert("tokenizer.ggml.tokens", Value::Array(Array::String(texts.iter().map(String::as_str).collect())));
    metadata.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    set_merges(&mut metadata, &["a b", "Ġ ab"]);
    metadata.insert("tokenizer.ggml.eos_token_id", Value::U32(256));
    metadata
}

fn set_merges(metadata: &mut Metadata, merges: &[&str]) {
    metadata.insert("tokenizer.ggml.merges", Value::Array(Array::String(merges.iter().copied().collect())));
}

#[test]
fn byte_level_merging() {
    let tokenizer = Tokenizer::from_gguf(&byte_level_metadata()).expect("a tokenizer");
    assert!(!tokenizer.add_bos_by_default() && tokenizer.bos().is_none());
    // `abc` is a token, but no merge makes it.
    assert_eq!(plain(&tokenizer, "abc ab\n"), ["ab", "c", "Ġab", "Ċ"]);
    assert_eq!(plain(&tokenizer, "<|im_end|>").len(), 10);
    let special = EncodeOptions { parse_special: true, ..EncodeOptions::default() };
    assert_eq!(texts(&tokenizer, "ab<|im_end|>", special), ["ab", "<|im_end|>"]);
    assert_eq!(tokenizer.end_of_generation(), [256]);
    assert_eq!(tokenizer.eot(), Some(256));
    let error = tokenizer.encode("a", EncodeOptions { add_bos: Some(true), ..EncodeOptions::default() });
    assert!(matches!(error, Err(TokenizerError::NoSuchSpecialToken { token: "begin-of-text", .. })));

    let mut whole_words = byte_level_metadata();
    whole_words.insert("tokenizer.ggml.pre", Value::String("llama-bpe".to_owned()));
    let tokenizer = Tokenizer::from_gguf(&whole_words).expect("a tokenizer");
    assert_eq!(plain(&tokenizer, "abc ab"), ["abc", "Ġab"]);
}

#[test]
fn ids_without_a_vocabulary() {
    let mut metadata = Metadata::new();
    metadata.insert("tokenizer.ggml.model", Value::String("no_vocab".to_owned()));
    metadata.insert("general.architecture", Value::String("llama".to_owned()));
    metadata.insert("llama.vocab_size", Value::U32(7));
    let tokenizer = Tokenizer::from_gguf(&metadata).expect("a tokenizer");
    assert_eq!(tokenizer.vocab_size(), 7);
    assert_eq!(tokenizer.encode("a", EncodeOptions::default()), Err(TokenizerError::NoVocabulary));
    assert_eq!(tokenizer.decode(&[6], DecodeOptions::default()), Ok(String::new()));
    assert!(tokenizer.decode(&[7], DecodeOptions::default()).is_err());
    metadata.insert("llama.vocab_size", Value::U64(u64::MAX));
    assert!(Tokenizer::from_gguf(&metadata).is_err());
}

/// The error of `metadata` after `change`; its message must contain `part`.
fn refused(metadata: &Metadata, part: &str, change: impl FnOnce(&mut Metadata)) {
    let mut changed = metadata.clone();
    change(&mut changed);
    let message = Tokenizer::from_gguf(&changed).err().unwrap_or_else(|| panic!("{part}: accepted")).to_string();
    assert!(message.contains(part) && !message.contains('\n'), "`{message}` does not contain `{part}`");
}

#[test]
fn broken_score_vocabularies_are_refused() {
    let good = score_metadata(PIECES);
    let size = 260 + PIECES.len();
    let strings = |list: &[&str]| Value::Array(Array::String(list.iter().copied().collect()));
    refused(&good, "`bert` is not supported", |m| m.insert("tokenizer.ggml.model", Value::String("bert".into())));
    refused(&good, "`tokenizer.ggml.model` is u32", |m| m.insert("tokenizer.ggml.model", Value::U32(1)));
    refused(&Metadata::new(), "`tokenizer.ggml.model` is missing", |_| ());
    refused(&good, "is empty", |m| m.insert("tokenizer.ggml.tokens", strings(&[])));
    refused(&good, "`tokenizer.ggml.token_type` has 281 entries, `tokenizer.ggml.tokens` has 1", |m| {
        m.insert("tokenizer.ggml.tokens", strings(&["a"]));
    });
    refused(&good, "`tokenizer.ggml.scores` has 2 entries", |m| {
        m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 2])));
    });
    refused(&good, "token 5 is not a number", |m| {
        let mut scores = vec![0.0; size];
        scores[5] = f32::NAN;
        m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    });
    refused(&good, "not an array of f32 or i32", |m| {
        m.insert("tokenizer.ggml.scores", Value::Array(Array::Bool(vec![true; size])));
    });
    refused(&good, "token 0 is of kind byte, its text is `<unk>`", |m| {
        m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![6; size])));
    });
    refused(&good, "`tokenizer.ggml.eos_token_id` is 281, the vocabulary has 281 entries", |m| {
        m.insert("tokenizer.ggml.eos_token_id", Value::U32(281));
    });
    refused(&good, "`tokenizer.ggml.bos_token_id` is i32", |m| {
        m.insert("tokenizer.ggml.bos_token_id", Value::I32(-2));
    });
    let duplicates: Vec<(&str, f32)> = PIECES.iter().copied().chain([("ab", 0.0)]).collect();
    refused(&score_metadata(&duplicates), "tokens 264 and 281 are both `ab`", |_| ());

    let few = |texts: &[&str], kinds: Vec<i32>| {
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.model", Value::String("llama".to_owned()));
        metadata.insert("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; texts.len()])));
        metadata.insert("tokenizer.ggml.tokens", strings(texts));
        metadata.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
        metadata
    };
    refused(
        &few(&["a", "<0x41>"], vec![1, 6]),
        "255 of the 256 byte tokens are missing, the first is `<0x00>`",
        |_| (),
    );
    refused(&few(&["a"], vec![1]), "`tokenizer.ggml.scores` is missing", |m| {
        *m = m.iter().filter(|(key, _)| !key.ends_with("scores")).fold(Metadata::new(), |mut kept, (key, value)| {
            kept.insert(key, value.clone());
            kept
        });
    });
    // Without byte tokens the unknown token stands in; token 0 is the default one.
    let tokenizer = Tokenizer::from_gguf(&few(&["<unk>", "a"], vec![2, 1])).expect("a tokenizer");
    assert_eq!(tokenizer.encode("a€a", EncodeOptions::TEXT_ONLY), Ok(vec![0, 1, 0, 1]));
}

#[test]
fn broken_byte_level_vocabularies_are_refused() {
    let good = byte_level_metadata();
    refused(&good, "unknown pre-tokenizer `nonsense`", |m| {
        m.insert("tokenizer.ggml.pre", Value::String("nonsense".into()));
    });
    for (merges, part) in [
        (&["ab"][..], "merge 0 `ab`: needed two tokens"),
        (&["a b", " b"], "merge 1 ` b`: needed two tokens"),
        // Longer than any piece, though not than a control token.
        (&["a b", "Ġ ab", "Ġab ab"], "merge 2 `Ġab ab`: the joined text is no token"),
        (&["a b c"], "needed two tokens with one space"),
        (&["a "], "needed two tokens with one space"),
        (&["a c"], "`ac` out of vocabulary"),
        (&["zz b"], "`zz` out of vocabulary"),
        (&["\n b"], "`\\n` out of vocabulary"),
        (&["<|im_end|> <|im_end|>"], "the joined text is no token"),
    ] {
        refused(&good, part, |m| set_merges(m, merges));
    }
    refused(&good, "`tokenizer.ggml.add_bos_token` is true, but the vocabulary names no such token", |m| {
        m.insert("tokenizer.ggml.add_bos_token", Value::Bool(true));
    });
    let mut bare = Metadata::new();
    bare.insert("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
    bare.insert("tokenizer.ggml.pre", Value::String("gpt-2".to_owned()));
    bare.insert("tokenizer.ggml.tokens", Value::Array(Array::String(["a", "b", "ab"].into_iter().collect())));
    refused(&bare, "`tokenizer.ggml.merges` is missing", |_| ());
    refused(&bare, "none of the 256 byte symbols", |m| {
        m.insert("tokenizer.ggml.tokens", Value::Array(Array::String(["xyz"].into_iter().collect())));
    });
    set_merges(&mut bare, &["a b"]);
    let tokenizer = Tokenizer::from_gguf(&bare).expect("a tokenizer");
    assert_eq!(tokenizer.encode("abba", EncodeOptions::default()), Ok(vec![2, 1, 0]));
    assert_eq!(tokenizer.encode("abz", EncodeOptions::default()), Err(TokenizerError::NoTokenForByte { byte: b'z' }));
}

/// Eight times the text may take no more than some thirty times as long.
#[test]
fn long_inputs_take_about_linear_time() {
    let score = score_tokenizer();
    let bytes = Tokenizer::from_gguf(&byte_level_metadata()).expect("a tokenizer");
    for tokenizer in [&score, &bytes] {
        for unit in ["a", "ab", " ", "\n", "🙂", "abc "] {
            let time = |count: usize| {
                let text = unit.repeat(count);
                let started = Instant::now();
                let ids = tokenizer.encode(&text, EncodeOptions::TEXT_ONLY).expect("ids");
                assert!(!ids.is_empty());
                started.elapsed()
            };
            let (short, long) = (time(10_000), time(80_000));
            assert!(
                long < Duration::from_millis(200) + short * 30,
                "{unit:?}: {short:?} for 10,000, {long:?} for 80,000"
            );
        }
    }
}

#[test]
fn special_tokens_longest_first() {
    let mut metadata = byte_level_metadata();
    let mut texts: Vec<String> = byte_level::byte_alphabet().iter().map(|c| c.to_string()).collect();
    texts.extend(["<a>", "<a><b>", "b><a", "<|end|>", "<|return|>", "<|call|>"].map(str::to_owned));
    let mut kinds = vec![1; 256];
    kinds.extend([4, 4, 4, 1, 1, 1]);
    metadata.insert("tokenizer.ggml.tokens", Value::Array(Array::String(texts.iter().map(String::as_str).collect())));
    metadata.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    set_merges(&mut metadata, &[]);
    let tokenizer = Tokenizer::from_gguf(&metadata).expect("a tokenizer");
    assert_eq!(plain(&tokenizer, "<a><b><a>"), ["<a><b>", "<a>"]);
    assert_eq!(plain(&tokenizer, "<b><a>"), ["<", "b><a", ">"]);
    // Where `<|return|>` and `<|call|>` exist, `<|end|>` ends a message only.
    let (end, call) =
        (tokenizer.token_id("<|end|>").expect("a token"), tokenizer.token_id("<|call|>").expect("a token"));
    assert!(!tokenizer.is_end_of_generation(end) && tokenizer.is_end_of_generation(call));
    assert_eq!(tokenizer.token_kind(call), Some(TokenKind::Control));
}
