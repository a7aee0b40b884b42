//! Files that are well-formed containers and no usable models: each is one clear line, not a panic.

use std::path::{Path, PathBuf};

use anymlx::MlxDevice;
use anymlx_formats::gguf::{Array, Gguf, GgufWriter, Metadata, Value};
use anymlx_lm::Model;

/// A golden model taken apart, to be put together wrongly.
struct Parts {
    bytes: Vec<u8>,
    gguf: Gguf,
}

impl Parts {
    fn of(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models").join(name);
        let bytes = std::fs::read(path).unwrap();
        Self { gguf: Gguf::parse(&bytes).unwrap(), bytes }
    }

    /// Writes the file anew with changed metadata, without `omitted`, and with `reshaped` as one row.
    fn write(&self, metadata: &Metadata, omitted: &str, reshaped: &str) -> Temporary {
        let mut writer = GgufWriter::new().metadata_from(metadata);
        for tensor in self.gguf.tensors.iter().filter(|tensor| tensor.name != omitted) {
            let shape = if tensor.name == reshaped { vec![tensor.element_count()] } else { tensor.shape.clone() };
            writer = writer.tensor(&tensor.name, &shape, tensor.tensor_type, tensor.data(&self.bytes).unwrap());
        }
        let file = Temporary::new();
        writer.write_to(std::fs::File::create(&file.0).unwrap()).unwrap();
        file
    }
}

struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("anymlx-malformed-{}-{number}.gguf", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("the test wrote this file");
    }
}

fn refused(file: &Temporary) -> String {
    let device = MlxDevice::cpu().unwrap();
    let error = Model::open(&file.0, &device).expect_err("the file is not a usable model").to_string();
    assert!(!error.contains('\n'), "{error}");
    assert!(error.contains("anymlx-malformed"), "the path is named: {error}");
    error
}

#[test]
fn the_parts_themselves_make_a_model() {
    let parts = Parts::of("gemma3.gguf");
    let file = parts.write(&parts.gguf.metadata, "", "");
    Model::open(&file.0, &MlxDevice::cpu().unwrap()).unwrap();
}

#[test]
fn a_missing_tensor_is_named() {
    let parts = Parts::of("gemma3.gguf");
    for tensor in ["token_embd.weight", "blk.1.attn_k.weight", "blk.2.ffn_norm.weight", "output_norm.weight"] {
        let error = refused(&parts.write(&parts.gguf.metadata, tensor, ""));
        assert!(error.contains(&format!("tensor `{tensor}` is missing")), "{error}");
    }
    let parts = Parts::of("qwen2.gguf");
    let error = refused(&parts.write(&parts.gguf.metadata, "blk.0.attn_q.bias", ""));
    assert!(error.contains("blk.0.attn_q.bias"), "{error}");
}

#[test]
fn a_wrong_shape_shows_both_shapes() {
    let parts = Parts::of("gemma3.gguf");
    let error = refused(&parts.write(&parts.gguf.metadata, "", "blk.0.attn_q.weight"));
    assert!(error.contains("tensor `blk.0.attn_q.weight` is [8192], needed [128, 64]"), "{error}");
}

#[test]
fn hyper_parameters_that_make_no_sense_are_refused() {
    let parts = Parts::of("gemma3.gguf");
    let cases: [(&str, Value, &str); 12] = [
        ("general.architecture", Value::String("mamba9".into()), "architecture `mamba9` is not supported"),
        ("general.architecture", Value::U32(3), "general.architecture"),
        ("gemma3.block_count", Value::U32(0), "block_count is 0"),
        ("gemma3.block_count", Value::U64(1 << 63), "block_count"),
        ("gemma3.attention.head_count", Value::U32(0), "head_count"),
        ("gemma3.attention.head_count_kv", Value::U32(3), "4 heads cannot share 3 key-value heads"),
        ("gemma3.attention.key_length", Value::U64(u64::MAX), "keys of 18446744073709551615"),
        ("gemma3.attention.value_length", Value::U32(16), "keys of 32 and values of 16"),
        ("gemma3.rope.dimension_count", Value::U32(31), "31 rotary dimensions"),
        ("gemma3.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), "layer_norm_rms_epsilon is NaN"),
        ("gemma3.attention.sliding_window_pattern", Value::U32(0), "sliding_window_pattern"),
        ("gemma3.attention.sliding_window_pattern", Value::Array(Array::Bool(vec![true])), "1 flags for 3 layers"),
    ];
    for (key, value, expected) in cases {
        let mut metadata = parts.gguf.metadata.clone();
        metadata.insert(key, value.clone());
        let error = refused(&parts.write(&metadata, "", ""));
        assert!(error.contains(expected), "{key} = {value:?}: {error}");
    }
}
