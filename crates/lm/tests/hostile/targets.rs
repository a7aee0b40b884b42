//! What is done with hostile input, here and in the fuzzer: read it with bounded memory, and use what is accepted.

use anymlx_formats::DType;
use anymlx_formats::gguf::{Array, Gguf, GgufWriter, Metadata, Value};
use anymlx_lm::chat::{ChatTemplate, Message, RenderOptions, SpecialTexts};
use anymlx_lm::tokenizer::{DecodeOptions, EncodeOptions, JsonOptions, Tokenizer, TokenizerError};
use anymlx_lm::{Checkpoint, architecture};

use crate::allocation::{Budget, bounded, bounded_process};
use crate::records::{MODEL_KEYS, Records, TOKENIZER_KEYS};

/// A check of one input; true when it is accepted.
pub type Target = fn(&[u8]) -> bool;

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 4] = [
    ("tokenizer_gguf", tokenizer_gguf),
    ("tokenizer_json", tokenizer_json),
    ("chat_template", chat_template),
    ("model_config", model_config),
];

/// Tables by text and by id, and the merging engine's own.
// The constant is for vocabularies of ids without texts, whose number no byte of the file backs.
const TOKENIZER: Budget = Budget { constant: 16 << 20, multiple: 400 };

/// What regular expressions and the tables of the crate `tokenizers` take, whatever the vocabulary.
const TOKENIZER_JSON: Budget = Budget { constant: 64 << 20, multiple: 400 };

/// One entry for each of up to 4,096 layers, whatever the file's length.
const MODEL: Budget = Budget { constant: 256 << 10, multiple: 20 };

/// What a rendering may hold: the values that its fuel pays for.
const TEMPLATE: Budget = Budget { constant: 64 << 20, multiple: 1000 };

fn one_line(error: &dyn std::error::Error) {
    let message = error.to_string();
    assert!(!message.is_empty() && !message.contains('\n'), "the message is one line: {message}");
}

/// Metadata of a vocabulary: an even first byte is followed by a GGUF file, an odd one by records.
pub fn tokenizer_gguf(input: &[u8]) -> bool {
    let Some((mode, rest)) = input.split_first() else { return false };
    let metadata = if mode % 2 == 0 {
        let Ok(gguf) = Gguf::parse(rest) else { return false };
        gguf.metadata
    } else {
        Records::new(rest).metadata(&TOKENIZER_KEYS)
    };
    let result = bounded_process(TOKENIZER, bytes_of(&metadata), || Tokenizer::from_gguf(&metadata));
    match result {
        Ok(tokenizer) => {
            use_tokenizer(&tokenizer, input);
            true
        }
        Err(error) => {
            one_line(&error);
            false
        }
    }
}

/// A `tokenizer.json`.
pub fn tokenizer_json(input: &[u8]) -> bool {
    let options = JsonOptions {
        bos_token: Some("<s>"),
        eos_token: Some("</s>"),
        unknown_token: Some("<unk>"),
        padding_token: None,
        end_of_generation: &[2],
    };
    let result = bounded_process(TOKENIZER_JSON, input.len(), || {
        let tokenizer = Tokenizer::from_json(input, &options)?;
        use_tokenizer(&tokenizer, input);
        Ok(())
    });
    result.map_err(|error: TokenizerError| one_line(&error)).is_ok()
}

/// About what the metadata take in memory.
fn bytes_of(metadata: &Metadata) -> usize {
    let of = |value: &Value| match value {
        Value::Array(Array::String(texts)) => texts.iter().map(|text| text.len() + 8).sum(),
        Value::Array(array) => array.len() * 8,
        Value::String(text) => text.len(),
        _ => 8,
    };
    metadata.iter().map(|(key, value)| key.len() + of(value)).sum()
}

fn use_tokenizer(tokenizer: &Tokenizer, input: &[u8]) {
    let tail = String::from_utf8_lossy(&input[input.len().saturating_sub(40)..]);
    for text in ["", "Hello, wörld!  \n<s></s>\u{1f600}", &tail] {
        for parse_special in [false, true] {
            let options = EncodeOptions { parse_special, ..EncodeOptions::default() };
            let Ok(ids) = tokenizer.encode(text, options) else { continue };
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "ids are of the vocabulary");
            tokenizer
                .decode(&ids, DecodeOptions { show_special: true, continuation: false })
                .expect("what was encoded can be decoded");
        }
    }
    let last = tokenizer.vocab_size() as u32;
    assert!(
        [last, u32::MAX].iter().all(|&id| tokenizer.token_text(id).is_none() && tokenizer.token_bytes(id).is_none())
    );
    for id in [0, 1, last.saturating_sub(1)].into_iter().filter(|&id| id < last) {
        tokenizer.decode(&[id], DecodeOptions::default()).expect("ids of the vocabulary can be decoded");
    }
}

/// The text of a template.
pub fn chat_template(input: &[u8]) -> bool {
    let source = String::from_utf8_lossy(input);
    let messages =
        [Message::new("system", "Be brief."), Message::new("user", " Hi "), Message::new("assistant", "<b> é")];
    let result = bounded_process(TEMPLATE, input.len(), || {
        let template = ChatTemplate::new(&source, SpecialTexts { bos_token: "<s>", eos_token: "</s>" })?;
        template.render(&messages, RenderOptions { add_generation_prompt: true })
    });
    result.is_ok()
}

/// Records that make a configuration, after a byte each for the rows and columns of the embedding table; the lowest bit of a
/// third one says whether there are frequency factors.
pub fn model_config(input: &[u8]) -> bool {
    let mut records = Records::new(input);
    let (rows, columns) = (u64::from(records.byte()) + 1, u64::from(records.byte()) + 1);
    let factors = records.byte() % 2 == 1;
    let metadata = records.metadata(&MODEL_KEYS);
    let mut file = Vec::new();
    let table = vec![0; (rows * columns) as usize];
    let mut writer =
        GgufWriter::new().metadata_from(&metadata).tensor("token_embd.weight", &[columns, rows], DType::I8, table);
    if factors {
        writer = writer.tensor("rope_freqs.weight", &[columns], DType::F32, vec![0; 4 * columns as usize]);
    }
    writer.write_to(&mut file).expect("records make a file");
    let place = tempfile::Builder::new().suffix(".gguf").tempfile().expect("the system has room for a file");
    std::fs::write(place.path(), &file).expect("the file can be written");
    let checkpoint = Checkpoint::open(place.path()).expect("what was written is read");
    let (result, _) = bounded(MODEL, file.len(), || architecture::configure(&checkpoint));
    match result {
        Ok(config) => {
            assert!(config.heads.is_multiple_of(config.kv_heads) && !config.layers.is_empty());
            assert!(config.rotary_dims <= config.head_dim && config.vocabulary == rows as usize);
            true
        }
        Err(error) => {
            one_line(&error);
            false
        }
    }
}
