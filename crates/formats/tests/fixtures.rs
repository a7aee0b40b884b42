//! Agreement, bit for bit, with PyPI `gguf` 0.19.0. The files are made by `fixtures/make.py`.

use anymlx_formats::gguf::{Array, Gguf, Value};
use anymlx_formats::quant::{dequantize, quantize};
use anymlx_formats::{DType, QuantType, TensorType};

macro_rules! fixture {
    ($name:expr) => {
        include_bytes!(concat!("fixtures/", $name)).as_slice()
    };
}

macro_rules! of_each_type {
    ($suffix:literal) => {
        [
            (QuantType::Q4_0, fixture!(concat!("q4_0.", $suffix))),
            (QuantType::Q4_1, fixture!(concat!("q4_1.", $suffix))),
            (QuantType::Q5_0, fixture!(concat!("q5_0.", $suffix))),
            (QuantType::Q5_1, fixture!(concat!("q5_1.", $suffix))),
            (QuantType::Q8_0, fixture!(concat!("q8_0.", $suffix))),
            (QuantType::Q2_K, fixture!(concat!("q2_k.", $suffix))),
            (QuantType::Q3_K, fixture!(concat!("q3_k.", $suffix))),
            (QuantType::Q4_K, fixture!(concat!("q4_k.", $suffix))),
            (QuantType::Q5_K, fixture!(concat!("q5_k.", $suffix))),
            (QuantType::Q6_K, fixture!(concat!("q6_k.", $suffix))),
            (QuantType::Q8_K, fixture!(concat!("q8_k.", $suffix))),
            (QuantType::IQ2_XXS, fixture!(concat!("iq2_xxs.", $suffix))),
            (QuantType::IQ2_XS, fixture!(concat!("iq2_xs.", $suffix))),
            (QuantType::IQ3_XXS, fixture!(concat!("iq3_xxs.", $suffix))),
            (QuantType::IQ1_S, fixture!(concat!("iq1_s.", $suffix))),
            (QuantType::IQ4_NL, fixture!(concat!("iq4_nl.", $suffix))),
            (QuantType::IQ3_S, fixture!(concat!("iq3_s.", $suffix))),
            (QuantType::IQ2_S, fixture!(concat!("iq2_s.", $suffix))),
            (QuantType::IQ4_XS, fixture!(concat!("iq4_xs.", $suffix))),
            (QuantType::IQ1_M, fixture!(concat!("iq1_m.", $suffix))),
            (QuantType::TQ1_0, fixture!(concat!("tq1_0.", $suffix))),
            (QuantType::TQ2_0, fixture!(concat!("tq2_0.", $suffix))),
            (QuantType::MXFP4, fixture!(concat!("mxfp4.", $suffix))),
            (QuantType::NVFP4, fixture!(concat!("nvfp4.", $suffix))),
            (QuantType::Q1_0, fixture!(concat!("q1_0.", $suffix))),
            (QuantType::Q2_0, fixture!(concat!("q2_0.", $suffix))),
        ]
    };
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / 4];
    dequantize(DType::F32, bytes, &mut values).unwrap();
    values
}

#[test]
fn every_type_dequantises_to_the_same_bits() {
    let blocks = of_each_type!("blocks");
    let values = of_each_type!("values");
    assert_eq!(blocks.len(), QuantType::ALL.len(), "a type has no fixture");
    for ((quant, blocks), (_, expected)) in blocks.into_iter().zip(values) {
        let expected = floats(expected);
        let mut found = vec![f32::NAN; expected.len()];
        dequantize(quant, blocks, &mut found).unwrap();
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{quant} element {index}: {found}, gguf has {expected}");
        }
    }
}

#[test]
fn simple_types_quantise_to_the_same_bytes() {
    let values = floats(fixture!("numbers.f32"));
    let types: [(TensorType, &[u8]); 10] = [
        (QuantType::Q4_0.into(), fixture!("q4_0.bytes")),
        (QuantType::Q4_1.into(), fixture!("q4_1.bytes")),
        (QuantType::Q5_0.into(), fixture!("q5_0.bytes")),
        (QuantType::Q5_1.into(), fixture!("q5_1.bytes")),
        (QuantType::Q8_0.into(), fixture!("q8_0.bytes")),
        (QuantType::TQ1_0.into(), fixture!("tq1_0.bytes")),
        (QuantType::TQ2_0.into(), fixture!("tq2_0.bytes")),
        (QuantType::MXFP4.into(), fixture!("mxfp4.bytes")),
        (DType::BF16.into(), fixture!("bf16.bytes")),
        (DType::F16.into(), fixture!("f16.bytes")),
    ];
    for (tensor_type, expected) in types {
        same_bytes(tensor_type, &values, expected);
    }
    let sixteenths: Vec<f32> = values.iter().map(|x| x / 16.0).collect();
    same_bytes(QuantType::NVFP4.into(), &sixteenths, fixture!("nvfp4.bytes"));
}

/// Compares as many whole blocks as `values` has.
fn same_bytes(tensor_type: TensorType, values: &[f32], expected: &[u8]) {
    let mut found = vec![0; expected.len()];
    let blocks = values.len() / tensor_type.block_len();
    quantize(tensor_type, &values[..blocks * tensor_type.block_len()], &mut found).unwrap();
    let blocks = found.chunks(tensor_type.block_bytes()).zip(expected.chunks(tensor_type.block_bytes()));
    for (index, (found, expected)) in blocks.enumerate() {
        assert_eq!(found, expected, "{tensor_type} block {index}");
    }
}

#[test]
fn a_file_of_the_python_writer_is_read() {
    let file = fixture!("small_gguf.bin");
    let gguf = Gguf::parse(file).unwrap();
    let metadata = &gguf.metadata;
    assert_eq!(metadata.require_string("general.architecture").unwrap(), "test");
    for (key, value) in [
        ("v.u8", Value::U8(u8::MAX)),
        ("v.i8", Value::I8(i8::MIN)),
        ("v.u16", Value::U16(u16::MAX)),
        ("v.i16", Value::I16(i16::MIN)),
        ("v.u32", Value::U32(u32::MAX)),
        ("v.i32", Value::I32(i32::MIN)),
        ("v.u64", Value::U64(u64::MAX)),
        ("v.i64", Value::I64(i64::MIN)),
        ("v.f32", Value::F32(1.5)),
        ("v.f64", Value::F64(-2.25)),
        ("v.bool", Value::Bool(true)),
        ("v.string", Value::String("Grüße".into())),
        ("v.strings", Value::Array(Array::String(["<s>", "", "日本"].into_iter().collect()))),
        ("v.ints", Value::Array(Array::I32(vec![-1, 2, 3]))),
        ("v.floats", Value::Array(Array::F32(vec![0.5, -0.25]))),
    ] {
        assert_eq!(metadata.get(key), Some(&value), "{key}");
    }
    let values = |name: &str| {
        let tensor = gguf.require_tensor(name).unwrap();
        let mut values = vec![f32::NAN; tensor.element_count() as usize];
        dequantize(tensor.tensor_type, tensor.data(file).unwrap(), &mut values).unwrap();
        (tensor.shape_row_major(), values)
    };
    assert_eq!(values("dense"), (vec![3, 7], (0..21).map(|i| i as f32).collect()));
    assert_eq!(values("half"), (vec![2], vec![1.0, -2.0]));
    let (shape, quantised) = values("quantised");
    assert_eq!(shape, [2, 32]);
    for (index, value) in quantised.iter().enumerate() {
        assert!((value - index as f32).abs() < 0.26, "element {index} is {value}");
    }
}
