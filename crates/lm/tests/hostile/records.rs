//! Metadata in few bytes, so that a fuzzer changes keys and values rather than lengths.
//!
//! A record is a byte that picks a key, a byte that picks a type, and the value; counts and lengths of texts are one byte. What
//! is missing at the end is taken for zeros.

use anymlx_formats::gguf::{Array, Metadata, StringArray, Value};

/// Keys that the tokenizer reads.
pub const TOKENIZER_KEYS: [&str; 24] = [
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.remove_extra_whitespaces",
    "general.architecture",
    "llama.vocab_size",
    "gemma3.vocab_size",
    "qwen2.vocab_size",
    "tokenizer.chat_template",
];

/// Keys that configurations are made of; `*` stands for the architecture.
pub const MODEL_KEYS: [&str; 26] = [
    "general.architecture",
    "*.block_count",
    "*.context_length",
    "*.embedding_length",
    "*.feed_forward_length",
    "*.attention.head_count",
    "*.attention.head_count_kv",
    "*.attention.key_length",
    "*.attention.value_length",
    "*.attention.layer_norm_rms_epsilon",
    "*.attention.sliding_window",
    "*.attention.sliding_window_pattern",
    "*.attention.scale",
    "*.attn_logit_softcapping",
    "*.final_logit_softcapping",
    "*.rope.dimension_count",
    "*.rope.freq_base",
    "*.rope.freq_base_swa",
    "*.rope.scale_linear",
    "*.rope.scaling.type",
    "*.rope.scaling.factor",
    "*.rope.scaling.original_context_length",
    "*.rope.scaling.attn_factor",
    "*.rope.scaling.yarn_beta_fast",
    "*.rope.scaling.yarn_beta_slow",
    "*.rope.scaling.yarn_ext_factor",
];

/// Reads records one after the other.
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Records of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// One byte; 0 past the end.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn text(&mut self) -> String {
        let len = usize::from(self.byte()).min(self.rest.len());
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.byte()).map_while(|_| (!self.rest.is_empty()).then(|| element(self))).collect()
    }

    fn value(&mut self) -> Value {
        match self.byte() % 12 {
            0 => Value::U32(u32::from_le_bytes(self.bytes())),
            1 => Value::I32(i32::from_le_bytes(self.bytes())),
            2 => Value::F32(f32::from_le_bytes(self.bytes())),
            3 => Value::Bool(self.byte() % 2 == 1),
            4 => Value::String(self.text()),
            5 => {
                let texts = self.list(Self::text);
                Value::Array(Array::String(texts.iter().map(String::as_str).collect::<StringArray>()))
            }
            6 => Value::Array(Array::F32(self.list(|records| f32::from_le_bytes(records.bytes())))),
            7 => Value::Array(Array::I32(self.list(|records| i32::from(records.byte() as i8)))),
            8 => Value::U64(u64::from_le_bytes(self.bytes())),
            9 => Value::Array(Array::Bool(self.list(|records| records.byte() % 2 == 1))),
            10 => Value::U32(u32::from(self.byte())),
            // The 256 byte symbols of byte-level vocabularies, and more.
            _ => {
                let mut texts: StringArray = byte_symbols().iter().map(String::as_str).collect();
                self.list(Self::text).iter().for_each(|text| texts.push(text));
                Value::Array(Array::String(texts))
            }
        }
    }

    /// The metadata that all records make.
    pub fn metadata(&mut self, keys: &[&str]) -> Metadata {
        let mut metadata = Metadata::new();
        let mut architecture = "llama".to_owned();
        while !self.rest.is_empty() {
            let key = keys[usize::from(self.byte()) % keys.len()];
            let value = self.value();
            if let ("general.architecture", Value::String(name)) = (key, &value) {
                architecture.clone_from(name);
            }
            metadata.insert(key.replace('*', &architecture), value);
        }
        metadata
    }
}

/// The characters that stand for single bytes in byte-level vocabularies.
fn byte_symbols() -> Vec<String> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut symbol = |byte: u32| {
        let code = if printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).map(String::from).unwrap_or_default()
    };
    (0..=0xff).map(&mut symbol).collect()
}
