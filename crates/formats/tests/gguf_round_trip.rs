//! What the writer writes, the reader reads.

use anymlx_formats::gguf::{Array, Gguf, GgufWriter, Metadata, StringArray, Value, WriteError};
use anymlx_formats::{DType, FormatError, QuantType, TensorType};
use proptest::collection::vec;
use proptest::prelude::*;

fn written(writer: GgufWriter<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    let length = writer.write_to(&mut file).unwrap();
    assert_eq!(length, file.len() as u64);
    file
}

fn refused(writer: GgufWriter<'_>) -> String {
    let mut file = Vec::new();
    match writer.write_to(&mut file) {
        Err(WriteError::Format(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_value_type_comes_back() {
    let strings: StringArray = ["", "a", "日本", "\0"].into_iter().collect();
    let nested = Array::Array(vec![
        Array::Array(vec![Array::Array(vec![]), Array::F64(vec![-0.5])]),
        Array::U8(vec![1]),
        Array::String(strings.clone()),
    ]);
    let values = [
        Value::U8(u8::MAX),
        Value::I8(i8::MIN),
        Value::U16(u16::MAX),
        Value::I16(i16::MIN),
        Value::U32(u32::MAX),
        Value::I32(i32::MIN),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F32(1.5),
        Value::F64(-2.25),
        Value::Bool(true),
        Value::String("text".into()),
        Value::Array(Array::U8(vec![1, 2])),
        Value::Array(Array::I8(vec![-1, 2])),
        Value::Array(Array::U16(vec![1, 600])),
        Value::Array(Array::I16(vec![-1, 600])),
        Value::Array(Array::U32(vec![1, 70_000])),
        Value::Array(Array::I32(vec![-1, 70_000])),
        Value::Array(Array::U64(vec![1 << 40])),
        Value::Array(Array::I64(vec![-1 << 40])),
        Value::Array(Array::F32(vec![0.25])),
        Value::Array(Array::F64(vec![0.125, 3.0])),
        Value::Array(Array::Bool(vec![true, false, true])),
        Value::Array(Array::String(strings)),
        Value::Array(Array::U32(vec![])),
        Value::Array(nested),
    ];
    let mut writer = GgufWriter::new();
    for (index, value) in values.iter().enumerate() {
        writer = writer.metadata(format!("key.{}", 99 - index), value.clone());
    }
    let file = written(writer);
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!((gguf.version, gguf.alignment, gguf.tensors.len()), (3, 32, 0));
    let found: Vec<&Value> = gguf.metadata.iter().map(|(_, value)| value).collect();
    assert_eq!(found, values.iter().collect::<Vec<_>>());
    assert_eq!(gguf.metadata.require_u64("key.99").unwrap(), 255);
    let error = gguf.metadata.require_u64("kay.99").unwrap_err().to_string();
    assert_eq!(error, "gguf: metadata key `kay.99` is missing (nearest: `key.99`)");
}

#[test]
fn tensors_lie_where_they_are_said_to() {
    let matrix: Vec<u8> = (0..7 * 33 * 11 * 4).map(|i| i as u8).collect();
    let blocks: Vec<u8> = (0..210 * 6).map(|i| (i * 7) as u8).collect();
    for alignment in [1u32, 8, 32, 4096] {
        let file = written(
            GgufWriter::new()
                .metadata("general.alignment", alignment)
                .tensor("scalar", &[], DType::I8, &[5u8][..])
                .tensor("dense", &[7, 33, 11], DType::F32, &matrix[..])
                .tensor_with("blocks", &[512, 3], QuantType::Q6_K, |out| {
                    blocks.chunks(100).try_for_each(|chunk| out.write_all(chunk))
                })
                .tensor("one", &[1, 1, 1, 1], DType::BF16, vec![1u8, 2]),
        );
        let gguf = Gguf::parse(&file).unwrap();
        assert_eq!(gguf.alignment, u64::from(alignment));
        assert!(gguf.tensors.iter().all(|tensor| tensor.offset % u64::from(alignment) == 0));
        let data = |name: &str| gguf.require_tensor(name).unwrap().data(&file).unwrap();
        assert_eq!(data("scalar"), [5]);
        assert_eq!(data("dense"), matrix);
        assert_eq!(data("blocks"), blocks);
        assert_eq!(data("one"), [1, 2]);

        let dense = gguf.tensor("dense").unwrap();
        assert_eq!(dense.shape, [7, 33, 11]);
        assert_eq!(dense.shape_row_major(), [11, 33, 7]);
        assert_eq!((dense.row_len(), dense.rows(), dense.element_count()), (7, 363, 2541));
        let scalar = gguf.tensor("scalar").unwrap();
        assert_eq!((scalar.row_len(), scalar.rows(), scalar.element_count()), (1, 1, 1));
        assert_eq!(gguf.tensor("blocks").unwrap().tensor_type, TensorType::Quantized(QuantType::Q6_K));
        assert!(gguf.tensor("absent").is_none());
        let error = gguf.require_tensor("block").unwrap_err();
        assert_eq!(error.to_string(), "gguf: tensor `block` is missing (nearest: `blocks`)");
        assert!(matches!(dense.data(&file[..100]), Err(FormatError::InvalidArgument { .. })));
    }
}

#[test]
fn version_2_reads_the_same() {
    let mut file = written(GgufWriter::new().metadata("a", 1u32).tensor("t", &[2], DType::I8, &[1u8, 2][..]));
    file[4] = 2;
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!((gguf.version, gguf.tensors.len()), (2, 1));
}

#[test]
fn unwritable_files_are_refused() {
    let one = || vec![0u8; 4];
    let new = GgufWriter::new;
    assert!(refused(new().metadata("", 1u32)).contains("key of 0 bytes"));
    assert!(refused(new().metadata("k".repeat(65_536), 1u32)).contains("key of 65536 bytes"));
    assert!(refused(new().metadata("general.alignment", 24u32)).contains("power of two"));
    assert!(refused(new().metadata("general.alignment", 32u64)).contains("needed a u32"));
    let deep = (0..5).fold(Array::U8(vec![]), |inner, _| Array::Array(vec![inner]));
    assert!(refused(new().metadata("deep", deep)).contains("nested too deep"));
    assert!(refused(new().tensor("", &[1], DType::F32, one())).contains("empty name"));
    let twice = new().tensor("t", &[1], DType::F32, one()).tensor("t", &[1], DType::F32, one());
    assert!(refused(twice).contains("`t` given twice"));
    assert!(refused(new().tensor("t", &[1; 5], DType::F32, one())).contains("5 dimensions"));
    assert!(refused(new().tensor("t", &[2, 0], DType::F32, one())).contains("extent 1 is 0"));
    assert!(refused(new().tensor("t", &[1 << 32, 1 << 32], DType::F32, one())).contains("2^63"));
    assert!(refused(new().tensor("t", &[100], QuantType::Q4_K, one())).contains("multiple of 256"));
    assert!(refused(new().tensor("t", &[4], DType::U8, one())).contains("type with a GGUF number"));
    let error = refused(new().tensor("t", &[3], DType::F16, one()));
    assert_eq!(error, "gguf: write: tensor `t` with shape [3] of F16 needs 6 bytes, 4 given");
    assert!(refused(new().tensor_with("t", &[3], DType::F16, |out| out.write_all(&[0; 5]))).contains("5 given"));
    assert!(refused(new().tensor_with("t", &[3], DType::F16, |out| out.write_all(&[0; 7]))).contains("more given"));
    let failing = new().tensor_with("t", &[3], DType::F16, |_| Err(std::io::Error::other("disk")));
    assert!(matches!(failing.write_to(Vec::new()), Err(WriteError::Io(error)) if error.to_string() == "disk"));
}

/// The order of insertion survives replacement, and every key is found.
#[test]
fn metadata_keeps_order() {
    let mut metadata = Metadata::new();
    for key in ["z", "a", "m", "b"] {
        metadata.insert(key, key);
    }
    metadata.insert("a", 7u32);
    let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["z", "a", "m", "b"]);
    assert_eq!(metadata.get("a"), Some(&Value::U32(7)));
    assert_eq!(metadata.string("m").unwrap(), Some("m"));
    assert!(!metadata.contains("c"));
}

fn any_array() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(-1e9f32..1e9, 0..9).prop_map(Array::F32),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(".{0,12}", 0..9).prop_map(|v| Array::String(v.iter().map(String::as_str).collect())),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i8>().prop_map(Value::I8),
        any::<u32>().prop_map(Value::U32),
        (-1e300f64..1e300).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,40}".prop_map(Value::String),
        any_array().prop_map(Value::Array),
    ]
}

fn any_tensor() -> impl Strategy<Value = (Vec<u64>, TensorType)> {
    let types: Vec<TensorType> = (0..40).filter_map(TensorType::from_ggml_id).collect();
    (vec(1u64..4, 0..=4), proptest::sample::select(types)).prop_map(|(mut shape, tensor_type)| {
        match shape.first_mut() {
            Some(first) => *first *= tensor_type.block_len() as u64,
            None if tensor_type.block_len() > 1 => shape.push(tensor_type.block_len() as u64),
            None => {}
        }
        (shape, tensor_type)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn any_file_comes_back(
        pairs in proptest::collection::btree_map("[a-z.]{1,20}", any_value(), 0..12),
        tensors in proptest::collection::btree_map(".{1,20}", any_tensor(), 0..8),
        shift in 0u32..10,
    ) {
        let mut metadata = Metadata::new();
        for (key, value) in &pairs {
            metadata.insert(key.as_str(), value.clone());
        }
        metadata.insert("general.alignment", 1u32 << shift);
        let mut writer = GgufWriter::new().metadata_from(&metadata);
        for (index, (name, (shape, tensor_type))) in tensors.iter().enumerate() {
            let bytes = tensor_type.byte_len(shape.iter().product()).unwrap();
            writer = writer.tensor(name.as_str(), shape, *tensor_type, vec![index as u8; bytes as usize]);
        }
        let file = written(writer);
        let gguf = Gguf::parse(&file).unwrap();
        prop_assert_eq!(&gguf.metadata, &metadata);
        prop_assert_eq!(gguf.tensors.len(), tensors.len());
        for (index, (name, (shape, tensor_type))) in tensors.iter().enumerate() {
            let tensor = gguf.require_tensor(name).unwrap();
            prop_assert_eq!(&tensor.shape, shape);
            prop_assert_eq!(tensor.tensor_type, *tensor_type);
            prop_assert!(tensor.data(&file).unwrap().iter().all(|&byte| byte == index as u8));
        }
    }
}
