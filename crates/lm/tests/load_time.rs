//! Opening a model reads headers only: files of gigabytes without contents, whose pages are counted afterwards. The time is
//! printed, not judged.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anymlx::{MlxDevice, QuantType, TensorType};
use anymlx_lm::Model;

const HIDDEN: u64 = 4096;
const FEED_FORWARD: u64 = 14_336;
const KEY_VALUE: u64 = 1024;
const VOCABULARY: u64 = 320;
const LAYERS: u64 = 36;

/// A folder that goes away with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anymlx-load-time-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the test made this folder");
    }
}

/// Bytes of mapped files that are in this process's memory.
fn resident_file_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("RssFile:"))?;
    Some(1024 * line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?)
}

/// Opens the model at `path`, of `bytes` bytes, and checks how much of it was read.
fn open(path: &Path, bytes: u64) {
    let device = MlxDevice::cpu().unwrap();
    let before = resident_file_bytes();
    let started = Instant::now();
    let model = Model::open(path, &device).unwrap();
    let elapsed = started.elapsed();
    assert!(model.bytes_per_token() > 0);
    println!("opened {:.1} GB in {:.1} ms", bytes as f64 / 1e9, elapsed.as_secs_f64() * 1e3);
    let (Some(before), Some(after)) = (before, resident_file_bytes()) else {
        println!("skipped: pages read: /proc/self/status does not tell");
        return;
    };
    let read = after.saturating_sub(before);
    println!("{} KB of the files are in memory", read / 1024);
    // The kernel maps some pages around each one that is touched.
    assert!(read < 32 << 20, "{read} bytes of {bytes} were read");
}

/// Name, rows and columns of every matrix of a layer, then names of its vectors.
const LAYER: ([(&str, u64, u64); 7], [&str; 2]) = (
    [
        ("attn_q", HIDDEN, HIDDEN),
        ("attn_k", KEY_VALUE, HIDDEN),
        ("attn_v", KEY_VALUE, HIDDEN),
        ("attn_output", HIDDEN, HIDDEN),
        ("ffn_gate", FEED_FORWARD, HIDDEN),
        ("ffn_up", FEED_FORWARD, HIDDEN),
        ("ffn_down", HIDDEN, FEED_FORWARD),
    ],
    ["attn_norm", "ffn_norm"],
);

/// The header of a GGUF file, written by hand: the writer wants the tensors' bytes.
fn gguf_header() -> (Vec<u8>, u64) {
    let string = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    let numbers = [
        ("llama.block_count", LAYERS),
        ("llama.embedding_length", HIDDEN),
        ("llama.feed_forward_length", FEED_FORWARD),
        ("llama.attention.head_count", 32),
        ("llama.attention.head_count_kv", 8),
        ("llama.context_length", 4096),
        ("llama.vocab_size", VOCABULARY),
    ];
    let texts = [("general.architecture", "llama"), ("tokenizer.ggml.model", "no_vocab")];
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![HIDDEN, VOCABULARY]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        for (name, rows, columns) in LAYER.0 {
            tensors.push((format!("blk.{layer}.{name}.weight"), vec![columns, rows]));
        }
        for name in LAYER.1 {
            tensors.push((format!("blk.{layer}.{name}.weight"), vec![HIDDEN]));
        }
    }
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(((numbers.len() + texts.len()) as u64).to_le_bytes());
    for (key, value) in texts {
        string(&mut bytes, key);
        bytes.extend(8_u32.to_le_bytes());
        string(&mut bytes, value);
    }
    for (key, value) in numbers {
        string(&mut bytes, key);
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend((value as u32).to_le_bytes());
    }
    let mut offset = 0_u64;
    for (name, shape) in tensors {
        string(&mut bytes, &name);
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|extent| bytes.extend(extent.to_le_bytes()));
        let tensor_type = if shape.len() == 1 { TensorType::Dense(anymlx::DType::F32) } else { QuantType::Q5_K.into() };
        bytes.extend(tensor_type.ggml_id().unwrap().to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += tensor_type.byte_len(shape.iter().product()).unwrap().next_multiple_of(32);
    }
    let start = (bytes.len() as u64).next_multiple_of(32);
    (bytes, start + offset)
}

#[test]
fn a_large_gguf_file_is_opened_by_its_header() {
    let folder = Folder::new("gguf");
    let path = folder.0.join("large.gguf");
    let (header, len) = gguf_header();
    assert!(len > 5_000_000_000, "{len}");
    let mut file = File::create(&path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(len).unwrap();
    open(&path, len);
}

/// A folder of three shards with matrices of 4 bits.
fn write_shards(folder: &Path) -> u64 {
    let names = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    let matrix = |name: &str, rows: u64, columns: u64| {
        vec![
            (format!("{name}.weight"), "U32", vec![rows, columns / 8]),
            (format!("{name}.scales"), "BF16", vec![rows, columns / 64]),
            (format!("{name}.biases"), "BF16", vec![rows, columns / 64]),
        ]
    };
    let vector = |name: &str| vec![(format!("{name}.weight"), "BF16", vec![HIDDEN])];
    let mut shards = vec![matrix("model.embed_tokens", VOCABULARY, HIDDEN), vector("model.norm"), Vec::new()];
    for layer in 0..LAYERS {
        let shard = &mut shards[(layer % 3) as usize];
        for (name, (_, rows, columns)) in names.iter().zip(LAYER.0) {
            shard.extend(matrix(&format!("model.layers.{layer}.{name}"), rows, columns));
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            shard.extend(vector(&format!("model.layers.{layer}.{name}")));
        }
    }
    let mut total = 0;
    let mut map = serde_json::Map::new();
    for (index, tensors) in shards.into_iter().enumerate() {
        let file_name = format!("model-{:05}-of-00003.safetensors", index + 1);
        let mut header = serde_json::Map::new();
        let mut offset = 0_u64;
        for (name, dtype, shape) in tensors {
            let end = offset + shape.iter().product::<u64>() * if dtype == "U32" { 4 } else { 2 };
            let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]});
            map.insert(name.clone(), file_name.clone().into());
            header.insert(name, entry);
            offset = end;
        }
        let mut header = serde_json::to_vec(&header).unwrap();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = File::create(folder.join(&file_name)).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(&header).unwrap();
        file.set_len(8 + header.len() as u64 + offset).unwrap();
        total += 8 + header.len() as u64 + offset;
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 4096, "vocab_size": VOCABULARY,
        "tie_word_embeddings": true, "quantization": {"group_size": 64, "bits": 4, "mode": "affine"},
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mlx/qwen2-hf/tokenizer.json");
    fs::copy(tokenizer, folder.join("tokenizer.json")).unwrap();
    total
}

#[test]
fn a_large_folder_is_opened_by_its_headers() {
    let folder = Folder::new("folder");
    let bytes = write_shards(&folder.0);
    assert!(bytes > 4_000_000_000, "{bytes}");
    open(&folder.0, bytes);
}
