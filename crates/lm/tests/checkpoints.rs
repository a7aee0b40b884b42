//! Models in several files, in folders, and with matrices that no kernel multiplies.

use std::path::{Path, PathBuf};

use anymlx::{DType, MlxDevice, TensorType, TraceOptions};
use anymlx_formats::{
    gguf::{Gguf, GgufWriter, Value},
    quant,
};
use anymlx_lm::{ActivationPrecision, CacheType, Checkpoint, Model, Session, SessionOptions};

const TOKENS: [u32; 7] = [5, 17, 99, 3, 42, 150, 8];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models").join(name)
}

fn logits(path: &Path) -> Vec<f32> {
    logits_on(path, &MlxDevice::cpu().unwrap())
}

fn logits_on(path: &Path, device: &MlxDevice) -> Vec<f32> {
    let model = Model::open(path, device).unwrap();
    let options = SessionOptions {
        context: Some(64),
        chunk: Some(16),
        cache_type: CacheType::F32,
        precision: ActivationPrecision::Full,
    };
    Session::new(&model, options).unwrap().prefill(&TOKENS).unwrap()
}

/// A folder that goes away with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anymlx-checkpoints-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the test made this folder");
    }
}

/// Writes `gguf` in `parts` files, each with every `parts`-th tensor.
fn split(source: &Path, folder: &Path, parts: usize) -> Vec<PathBuf> {
    let bytes = std::fs::read(source).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    let write = |part: usize| {
        let mut writer = GgufWriter::new();
        if part == 0 {
            writer = writer.metadata_from(&gguf.metadata);
        }
        writer = writer
            .metadata("split.no", Value::U16(part as u16))
            .metadata("split.count", Value::U16(parts as u16))
            .metadata("split.tensors.count", Value::I32(gguf.tensors.len() as i32));
        for tensor in gguf.tensors.iter().skip(part).step_by(parts) {
            writer = writer.tensor(&tensor.name, &tensor.shape, tensor.tensor_type, tensor.data(&bytes).unwrap());
        }
        let path = folder.join(format!("model-{:05}-of-{parts:05}.gguf", part + 1));
        writer.write_to(std::fs::File::create(&path).unwrap()).unwrap();
        path
    };
    (0..parts).map(write).collect()
}

/// What Metal does: its buffers end at a length that files of large models pass.
#[test]
fn a_file_larger_than_the_largest_buffer_is_loaded_in_parts() {
    const LIMIT: u64 = 192 << 10;
    let path = golden("llama-k-quants.gguf");
    let options = TraceOptions { max_buffer_bytes: Some(LIMIT), ..TraceOptions::default() };
    let device = MlxDevice::trace(&options).unwrap();
    assert!(device.map_file(&path).is_err(), "the file fits in no buffer");
    assert_eq!(logits_on(&path, &device), logits(&path));
    let log = device.trace_log().unwrap().take();
    let parts = log.iter().filter_map(|line| line.strip_prefix("map b")?.split(' ').nth(1)?.parse().ok());
    let parts: Vec<u64> = parts.collect();
    assert!(parts.len() > 2 && parts.iter().all(|bytes| *bytes <= LIMIT), "{parts:?}");
}

#[test]
fn any_part_of_a_split_file_opens_the_whole_model() {
    let folder = Folder::new("split");
    let whole = logits(&golden("qwen2.gguf"));
    let paths = split(&golden("qwen2.gguf"), &folder.0, 3);
    for path in &paths {
        assert_eq!(logits(path), whole, "{}", path.display());
    }
    let checkpoint = Checkpoint::open(&paths[1]).unwrap();
    assert_eq!(checkpoint.paths(), paths);
    std::fs::remove_file(&paths[2]).unwrap();
    let error = Model::open(&paths[0], &MlxDevice::cpu().unwrap()).unwrap_err().to_string();
    assert!(error.contains("model-00003-of-00003.gguf"), "the missing part is named: {error}");
}

#[test]
fn matrices_without_a_kernel_are_converted_once() {
    let source = golden("qwen2.gguf");
    let bytes = std::fs::read(&source).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    let folder = Folder::new("converted");
    let path = folder.0.join("double.gguf");
    let mut writer = GgufWriter::new().metadata_from(&gguf.metadata);
    for tensor in &gguf.tensors {
        let data = tensor.data(&bytes).unwrap();
        let is_matrix = tensor.shape.len() == 2 && tensor.tensor_type == TensorType::Dense(DType::F32);
        writer = if is_matrix {
            let mut values = vec![0.0_f32; data.len() / 4];
            quant::dequantize(tensor.tensor_type, data, &mut values).unwrap();
            let double: Vec<u8> = values.iter().flat_map(|&value| f64::from(value).to_le_bytes()).collect();
            writer.tensor(&tensor.name, &tensor.shape, DType::F64, double)
        } else {
            writer.tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data)
        };
    }
    writer.write_to(std::fs::File::create(&path).unwrap()).unwrap();
    assert_eq!(logits(&path), logits(&source));
}

#[test]
fn folders_that_are_no_checkpoints_are_refused_by_what_is_missing() {
    let folder = Folder::new("incomplete");
    let device = MlxDevice::cpu().unwrap();
    let refused = |expected: &str| {
        let error = Model::open(&folder.0, &device).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    refused("no `config.json`");
    std::fs::write(folder.0.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    refused("no `.safetensors` file");
    std::fs::write(folder.0.join("one.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    refused("`hidden_size`");
    std::fs::write(folder.0.join("two.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    refused("2 `.safetensors` files");
    std::fs::write(
        folder.0.join("config.json"),
        r#"{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}"#,
    )
    .unwrap();
    refused("quantised by `gptq`");
    std::fs::write(folder.0.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    std::fs::write(folder.0.join("config.json"), r#"{"model_type": "rwkv"}"#).unwrap();
    refused("architecture `rwkv` is not supported");
}

#[test]
fn the_vocabulary_of_a_folder_is_built_when_it_is_first_used() {
    let folder = Folder::new("vocabulary");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mlx/qwen2-affine-4bit");
    for entry in std::fs::read_dir(&golden).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.0.join(entry.file_name())).unwrap();
    }
    let device = MlxDevice::cpu().unwrap();
    let model = Model::open(&folder.0, &device).unwrap();
    assert!(std::ptr::eq(model.tokenizer().unwrap(), model.tokenizer().unwrap()), "it is built once");

    std::fs::write(folder.0.join("tokenizer.json"), "{}").unwrap();
    let model = Model::open(&folder.0, &device).unwrap();
    for _ in 0..2 {
        let error = model.tokenizer().err().unwrap().to_string();
        assert!(error.contains("anymlx-checkpoints") && error.contains("`tokenizer.json`"), "{error}");
    }

    std::fs::remove_file(folder.0.join("tokenizer.json")).unwrap();
    let error = Model::open(&folder.0, &device).unwrap_err().to_string();
    assert!(error.contains("has no `tokenizer.json`"), "{error}");
}
