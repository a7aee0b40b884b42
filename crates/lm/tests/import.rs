//! Folders of safetensors as GGUF files: the same logits, the same ids of texts.

mod support;

use std::path::{Path, PathBuf};

use anymlx::MlxDevice;
use anymlx_formats::gguf::Gguf;
use anymlx_lm::{
    Checkpoint, Model, architecture,
    export::{ExportPlan, ExportWeights},
    import::ImportPlan,
    tokenizer::EncodeOptions,
};
use anymlx_testing::golden::Golden;
use support::{EXACT, all_logits};

const TEXTS: [&str; 8] = [
    "",
    " ",
    "Hello, world!",
    "  two spaces and\ttabs\n\nlines ",
    "naïve café 你好 🤦🏼",
    "a<|end|>b",
    "3.14159 2024 don't I'll WE'VE",
    "<0x41> ▁ under_score",
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mlx")
}

/// A copy of the folder of a golden, its `config.json` changed by `change`.
fn copied(name: &str, change: impl Fn(&mut serde_json::Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory().join(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
    copy
}

/// The folder as a GGUF file.
fn converted(folder: &Path) -> Vec<u8> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let plan = ImportPlan::new(&checkpoint, "a name").unwrap();
    let (mut bytes, read) = (Vec::new(), std::sync::atomic::AtomicU64::new(0));
    let count = |bytes| {
        read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    };
    let written = plan.write(&mut bytes, 0, &count).unwrap();
    assert_eq!((written, read.into_inner()), (bytes.len() as u64, plan.source_bytes()));
    bytes
}

#[test]
fn logits_and_ids_stay_the_same() {
    let device = MlxDevice::cpu().unwrap();
    let unscaled = |config: &mut serde_json::Value| config["query_pre_attn_scalar"] = config["head_dim"].clone();
    // Readers of GGUF do not round Gemma's factor on embeddings to BF16.
    for (name, exactness) in [("llama-sharded", 1e-5), ("qwen2-hf", 1e-5), ("gemma3-bf16", 0.02)] {
        let folder = copied(name, |config| {
            if name == "gemma3-bf16" {
                unscaled(config)
            }
        });
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), converted(folder.path())).unwrap();
        let (before, after) =
            (Model::open(folder.path(), &device).unwrap(), Model::open(file.path(), &device).unwrap());
        let golden = Golden::load_all(&directory()).unwrap().into_iter().find(|golden| golden.name == name).unwrap();
        let expected: Vec<f64> = all_logits(&before, &golden.tokens, EXACT).into_iter().map(f64::from).collect();
        let logits = all_logits(&after, &golden.tokens, EXACT);
        anymlx_testing::assert_close(name, &logits, &expected, &golden.tolerance(exactness));

        let (before, after) = (before.tokenizer().unwrap(), after.tokenizer().unwrap());
        for text in TEXTS {
            for parse_special in [false, true] {
                let options = EncodeOptions { parse_special, ..EncodeOptions::default() };
                let (before, after) = (before.encode(text, options).unwrap(), after.encode(text, options).unwrap());
                assert_eq!(before, after, "{name}: {text:?}");
            }
        }
        assert_eq!((before.bos(), before.eos()), (after.bos(), after.eos()), "{name}");
        for &id in before.end_of_generation() {
            assert!(after.is_end_of_generation(id), "{name}: {id}");
        }
    }
}

#[test]
fn hyper_parameters_stay_the_same() {
    let yarn = |config: &mut serde_json::Value| {
        config["rope_scaling"] = serde_json::json!({
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.25,
        });
    };
    let linear = |config: &mut serde_json::Value| {
        config["rope_scaling"] = serde_json::json!({"rope_type": "linear", "factor": 2.0});
    };
    let plain = |_: &mut serde_json::Value| ();
    let folders = [
        ("llama", copied("llama-sharded", plain)),
        ("yarn", copied("qwen2-hf", yarn)),
        ("linear", copied("qwen2-hf", linear)),
    ];
    for (name, folder) in folders {
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), converted(folder.path())).unwrap();
        let mut before = architecture::configure(&Checkpoint::open(folder.path()).unwrap()).unwrap();
        let after = architecture::configure(&Checkpoint::open(file.path()).unwrap()).unwrap();
        // Rows were permuted for it.
        before.rope_layout = after.rope_layout;
        assert_eq!(format!("{before:?}"), format!("{after:?}"), "{name}");
    }
}

/// To a folder and back, and from the folder again: every tensor has the bytes that it had.
#[test]
fn there_and_back() {
    let folder = directory().join("qwen2-hf");
    let first = converted(&folder);
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    std::fs::write(file.path(), &first).unwrap();
    let checkpoint = Checkpoint::open(file.path()).unwrap();
    let plan = ExportPlan::new(&checkpoint, ExportWeights::Lossless).unwrap();
    let second = tempfile::tempdir().unwrap();
    for (name, bytes) in plan.files().unwrap() {
        std::fs::write(second.path().join(name), bytes).unwrap();
    }
    let mut tensors = Vec::new();
    plan.write_tensors(&mut tensors, 0, 1, &|_| ()).unwrap();
    std::fs::write(second.path().join("model.safetensors"), tensors).unwrap();
    let again = converted(second.path());
    let (before, after) = (Gguf::parse(&first).unwrap(), Gguf::parse(&again).unwrap());
    assert_eq!(before.tensors.len(), after.tensors.len());
    for tensor in &before.tensors {
        let found = after.require_tensor(&tensor.name).unwrap();
        assert_eq!((&tensor.shape, tensor.tensor_type), (&found.shape, found.tensor_type), "{}", tensor.name);
        assert_eq!(tensor.data(&first).unwrap(), found.data(&again).unwrap(), "{}", tensor.name);
    }
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.pre", "tokenizer.ggml.token_type"] {
        assert_eq!(before.metadata.get(key), after.metadata.get(key), "{key}");
    }
}

#[test]
fn what_a_file_cannot_say_is_refused() {
    let refusal = |folder: &Path| {
        let checkpoint = Checkpoint::open(folder).unwrap();
        ImportPlan::new(&checkpoint, "a name").expect_err("cannot be expressed").to_string()
    };
    let packed = refusal(&directory().join("qwen2-affine-4bit"));
    assert!(packed.contains("packed by MLX"), "{packed}");
    let scale = refusal(&directory().join("gemma3-bf16"));
    assert!(scale.contains("attention scores are multiplied with"), "{scale}");
    let words = copied("qwen2-hf", |_| ());
    let path = words.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["pre_tokenizer"] =
        serde_json::json!({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": false});
    std::fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
    let words = refusal(words.path());
    assert!(words.contains("words are cut by"), "{words}");
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    std::fs::write(file.path(), converted(&directory().join("qwen2-hf"))).unwrap();
    let file = refusal(file.path());
    assert!(file.contains("needed a folder"), "{file}");
}
