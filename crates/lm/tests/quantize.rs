//! Quantising whole files.

mod support;

use std::path::{Path, PathBuf};

use anymlx::MlxDevice;
use anymlx_formats::{
    DType, QuantType, TensorType,
    gguf::{Gguf, GgufWriter, Metadata, TensorInfo},
    quant,
};
use anymlx_lm::{
    Model, Session, SessionOptions,
    quantize::{ImportanceMatrix, Mixing, QuantizeOptions, QuantizePlan, Recipe, SourceTensor, importance_matrix},
};
use anymlx_testing::golden::Golden;
use support::{EXACT, all_logits};

fn golden_model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models").join(name)
}

/// A file with its header.
struct File {
    gguf: Gguf,
    bytes: Vec<u8>,
}

impl File {
    fn new(bytes: Vec<u8>) -> Self {
        Self { gguf: Gguf::parse(&bytes).unwrap(), bytes }
    }

    fn golden(name: &str) -> Self {
        Self::new(std::fs::read(golden_model(name)).unwrap())
    }

    fn plan(&self, options: &QuantizeOptions<'_>) -> QuantizePlan<'_> {
        let source = |info| SourceTensor { info, data: TensorInfo::data(info, &self.bytes).unwrap() };
        QuantizePlan::new(&self.gguf.metadata, self.gguf.tensors.iter().map(source).collect(), options).unwrap()
    }

    fn quantized(&self, options: &QuantizeOptions<'_>) -> File {
        let mut bytes = Vec::new();
        self.plan(options).write(&mut bytes, 0, 2, &|_| {}).unwrap();
        File::new(bytes)
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let info = self.gguf.require_tensor(name).unwrap();
        let mut values = vec![0.0; info.element_count() as usize];
        quant::dequantize(info.tensor_type, info.data(&self.bytes).unwrap(), &mut values).unwrap();
        values
    }
}

fn mixed(recipe: Recipe) -> QuantizeOptions<'static> {
    QuantizeOptions { recipe, mixing: Mixing::Mixed, importance: None }
}

#[test]
fn threads_and_interruptions_do_not_change_the_bytes() {
    let file = File::golden("gemma3.gguf");
    for recipe in [Recipe::Q8_0, Recipe::Q4_K_M] {
        let plan = file.plan(&mixed(recipe));
        let mut one = Vec::new();
        let read = std::sync::atomic::AtomicU64::new(0);
        let count = |bytes| {
            read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        };
        let len = plan.write(&mut one, 0, 1, &count).unwrap();
        assert_eq!((len, read.into_inner()), (one.len() as u64, plan.source_bytes()));
        let mut three = Vec::new();
        plan.write(&mut three, 0, 3, &|_| {}).unwrap();
        assert!(one == three);
        for present in [1, 1000, one.len() / 3, one.len() / 2 + 1, one.len() - 1, one.len()] {
            let mut rest = Vec::new();
            let whole = plan.write(&mut rest, present as u64, 2, &|_| {}).unwrap();
            assert_eq!(whole, len);
            assert!(rest == one[present..], "{recipe}: the rest after {present} bytes");
        }
    }
}

#[test]
fn vectors_and_norms_stay_and_metadata_name_the_recipe() {
    let file = File::golden("gemma3.gguf");
    let new = file.quantized(&mixed(Recipe::Q8_0));
    assert_eq!(new.gguf.metadata.u64("general.file_type").unwrap(), Some(7));
    assert_eq!(new.gguf.metadata.u64("general.quantization_version").unwrap(), Some(2));
    assert_eq!(new.gguf.tensors.len(), file.gguf.tensors.len());
    for (old, new_info) in file.gguf.tensors.iter().zip(&new.gguf.tensors) {
        assert_eq!((&old.name, &old.shape), (&new_info.name, &new_info.shape));
        if old.shape.len() < 2 {
            assert_eq!(old.tensor_type, new_info.tensor_type, "{}", old.name);
            assert_eq!(old.data(&file.bytes).unwrap(), new_info.data(&new.bytes).unwrap(), "{}", old.name);
        } else {
            assert_eq!(new_info.tensor_type, TensorType::Quantized(QuantType::Q8_0), "{}", old.name);
        }
    }
    for (key, value) in file.gguf.metadata.iter().filter(|(key, _)| !key.starts_with("general.")) {
        assert_eq!(new.gguf.metadata.get(key), Some(value), "{key}");
    }
}

/// One matrix of 64 rows; the file's other tensors do not matter.
fn one_matrix(name: &str, columns: usize) -> File {
    let mut random = 1_u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<u8> = (0..64 * columns).flat_map(|_| next().to_le_bytes()).collect();
    let mut bytes = Vec::new();
    GgufWriter::new()
        .metadata("general.architecture", "llama")
        .tensor(name, &[columns as u64, 64], DType::F32, values)
        .write_to(&mut bytes)
        .unwrap();
    File::new(bytes)
}

#[test]
fn rows_that_fit_no_block_get_a_type_that_fits() {
    let name = "blk.0.attn_q.weight";
    for (columns, recipe, expected) in [
        (512, Recipe::Q4_K_M, "Q4_K"),
        (160, Recipe::Q4_K_M, "Q5_0"),
        (160, Recipe::Q5_K_M, "Q5_1"),
        (160, Recipe::Q6_K, "Q8_0"),
        (160, Recipe::IQ4_XS, "IQ4_NL"),
        (160, Recipe::Q2_K, "Q4_0"),
        (33, Recipe::Q4_K_M, "F16"),
        (33, Recipe::Q8_0, "F16"),
        (33, Recipe::BF16, "BF16"),
    ] {
        let new = one_matrix(name, columns).quantized(&mixed(recipe));
        let found = new.gguf.require_tensor(name).unwrap().tensor_type.name();
        assert_eq!(found, expected, "{recipe} with {columns} columns");
    }
}

/// Every recipe keeps the values to what its bits allow; weights move the error to the columns that do not matter.
#[test]
fn errors_are_those_of_the_bits_and_follow_the_importance() {
    let name = "blk.0.attn_q.weight";
    let columns = 512;
    // Some in every block.
    let important = |column: usize| column % 4 == 1;
    let file = one_matrix(name, columns);
    let old = file.values(name);
    let mut inputs = vec![0.1; columns];
    inputs.iter_mut().enumerate().filter(|(column, _)| important(*column)).for_each(|(_, input)| *input = 3.0);
    // An importance matrix is written and read back on its way.
    let mut written = Vec::new();
    {
        let mut gguf = GgufWriter::new().metadata("general.type", "imatrix");
        let squares: Vec<u8> = inputs.iter().flat_map(|x: &f32| (x * x).to_le_bytes()).collect();
        gguf = gguf.tensor(format!("{name}.in_sum2"), &[columns as u64, 1], DType::F32, squares);
        gguf = gguf.tensor(format!("{name}.counts"), &[1, 1], DType::F32, 1_f32.to_le_bytes().to_vec());
        gguf.write_to(&mut written).unwrap();
    }
    let importance = ImportanceMatrix::parse(&written).unwrap();
    let square_error = |new: &[f32], counts: fn(usize) -> bool| -> f64 {
        let pairs = old.iter().zip(new).enumerate().filter(|(index, _)| counts(index % columns));
        pairs.map(|(_, (a, b))| f64::from(a - b).powi(2)).sum()
    };
    for (recipe, bits) in [
        (Recipe::Q4_0, 4),
        (Recipe::Q4_1, 4),
        (Recipe::Q5_0, 5),
        (Recipe::Q5_1, 5),
        (Recipe::IQ4_NL, 4),
        (Recipe::IQ4_XS, 4),
        (Recipe::Q2_K, 2),
        (Recipe::Q3_K_S, 3),
        (Recipe::Q4_K_S, 4),
        (Recipe::Q5_K_S, 5),
        (Recipe::Q6_K, 6),
    ] {
        let plain = QuantizeOptions { recipe, mixing: Mixing::Pure, importance: None };
        let weighted = QuantizeOptions { importance: Some(&importance), ..plain };
        let (plain, weighted) = (file.quantized(&plain).values(name), file.quantized(&weighted).values(name));
        let total = square_error(&plain, |_| true) / old.len() as f64;
        // Values are spread evenly over one unit: steps of `1 / 2^bits` have this error, with room for coarse scales.
        let step = 1.0 / f64::from(1 << bits);
        assert!(total < 2.0 * step * step / 12.0, "{recipe}: {total}");
        let (before, after) = (square_error(&plain, important), square_error(&weighted, important));
        println!("{recipe}: mean squared error {total:.3e}; of important columns {before:.3e}, weighted {after:.3e}");
        assert!(after < before, "{recipe}: the error of important columns is {before}, weighted {after}");
    }
}

#[test]
fn a_quantised_model_predicts_as_the_original() {
    let device = MlxDevice::cpu().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models");
    let goldens = Golden::load_all(&directory).unwrap();
    let golden = goldens.iter().find(|golden| golden.name == "gemma3").expect("the golden is committed");
    let file = File::golden("gemma3.gguf");
    let logits = |path: &Path| {
        let model = Model::open(path, &device).unwrap();
        all_logits(&model, &golden.tokens, EXACT)
    };
    for (recipe, allowed) in [(Recipe::Q8_0, 0.2), (Recipe::Q4_0, 2.5)] {
        let path = folder.path().join("new.gguf");
        std::fs::write(&path, file.quantized(&mixed(recipe)).bytes).unwrap();
        anymlx_testing::assert_close(recipe.name(), &logits(&path), &golden.logits_f64(), &golden.tolerance(allowed));
    }
}

#[test]
fn importance_is_collected_for_every_matrix_of_the_layers() {
    let device = MlxDevice::cpu().unwrap();
    let model = Model::open(golden_model("gemma3.gguf"), &device).unwrap();
    let ids: Vec<u32> = (0..70).map(|id| id % 50).collect();
    let matrix_with = |chunk: usize| {
        let mut session =
            Session::new(&model, SessionOptions { context: Some(32), chunk: Some(chunk), ..EXACT }).unwrap();
        let mut heard = Vec::new();
        let matrix = importance_matrix(&mut session, &ids, 32, None, |done, total| heard.push((done, total))).unwrap();
        assert_eq!(heard, [(1, 2), (2, 2)]);
        matrix
    };
    let (whole, parts) = (matrix_with(32), matrix_with(5));
    let file = File::golden("gemma3.gguf");
    let matrices = file.gguf.tensors.iter().filter(|info| info.name.starts_with("blk.") && info.shape.len() == 2);
    let mut count = 0;
    for info in matrices {
        let columns = info.row_len() as usize;
        let weights = whole.weights(&info.name, columns).unwrap().unwrap_or_else(|| panic!("{}", info.name));
        assert!(weights.iter().any(|&weight| weight > 0.0), "{}", info.name);
        let in_parts: Vec<f32> = parts.weights(&info.name, columns).unwrap().unwrap();
        for (a, b) in weights.iter().zip(&in_parts) {
            assert!((a - b).abs() <= 1e-3 * a.max(1e-3), "{}: {a} and {b}", info.name);
        }
        count += 1;
    }
    assert_eq!(count, whole.names().count());
    // Inputs of queries are normed: the mean square of a column times weight^-2 averages to one.
    let norm = file.values("blk.0.attn_norm.weight");
    let weights = whole.weights("blk.0.attn_q.weight", norm.len()).unwrap().unwrap();
    let mean = weights.iter().zip(&norm).map(|(w, n)| f64::from(w / (n * n))).sum::<f64>() / norm.len() as f64;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
}

/// Matrices of a model with these layers, as `goldens/recipes/make.py` makes them.
fn matrices(layers: u64, [heads, kv_heads]: [u64; 2], hidden: u64, feed_forward: u64, tied: bool) -> Vec<TensorInfo> {
    let matrix = |name: String, rows: u64, columns: u64| TensorInfo {
        name: format!("{name}.weight"),
        shape: vec![columns, rows],
        tensor_type: DType::F16.into(),
        offset: 0,
        byte_len: 2 * rows * columns,
    };
    let mut tensors = vec![matrix("token_embd".to_owned(), 32, hidden)];
    if !tied {
        tensors.push(matrix("output".to_owned(), 32, hidden));
    }
    for layer in 0..layers {
        for (name, rows, columns) in [
            ("attn_q", hidden, hidden),
            ("attn_k", hidden * kv_heads / heads, hidden),
            ("attn_v", hidden * kv_heads / heads, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_gate", feed_forward, hidden),
            ("ffn_up", feed_forward, hidden),
            ("ffn_down", hidden, feed_forward),
        ] {
            tensors.push(matrix(format!("blk.{layer}.{name}"), rows, columns));
        }
    }
    tensors
}

#[test]
fn types_are_those_that_llama_cpp_chooses() {
    let models = [
        ("separate", matrices(17, [8, 8], 256, 512, false), [17_u32, 8, 8]),
        ("grouped", matrices(24, [8, 2], 256, 256, false), [24, 8, 2]),
        ("tied", matrices(18, [4, 1], 256, 512, true), [18, 4, 1]),
        ("odd", matrices(9, [4, 1], 160, 512, true), [9, 4, 1]),
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/recipes/types.txt");
    let mut compared = 0;
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [model, recipe, expected, names @ ..] = words.as_slice() else { panic!("{line}") };
        let (_, tensors, [layers, heads, kv_heads]) = models.iter().find(|(name, ..)| name == model).unwrap();
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", "llama");
        metadata.insert("llama.block_count", *layers);
        metadata.insert("llama.attention.head_count", *heads);
        metadata.insert("llama.attention.head_count_kv", *kv_heads);
        let sources = tensors.iter().map(|info| SourceTensor { info, data: &[] }).collect();
        let plan = QuantizePlan::new(&metadata, sources, &mixed(recipe.parse().unwrap())).unwrap();
        for name in names {
            let name = format!("{name}.weight");
            let planned = plan.tensors().iter().find(|tensor| tensor.source.info.name == name).unwrap();
            assert_eq!(planned.to.name(), *expected, "{model} {recipe} {name}");
            compared += 1;
        }
    }
    assert!(compared > 5_000, "{compared}");
}
