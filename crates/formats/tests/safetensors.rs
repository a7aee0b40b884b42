//! safetensors headers, indices and shards.

use std::collections::HashMap;

use anymlx_formats::safetensors::{Safetensors, ShardIndex, ShardedSafetensors, StoredType};
use anymlx_formats::{DType, FormatError};
use safetensors::tensor::{Dtype, TensorView, serialize};

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 7);
    file
}

#[track_caller]
fn refused(header: &str, data: usize) -> String {
    let message = Safetensors::parse(&file(header, data)).expect_err("this file must be refused").to_string();
    assert!(message.starts_with("safetensors: ") && !message.contains('\n'), "{message}");
    message
}

fn one(shape: &str, dtype: &str, start: u64, end: u64) -> String {
    format!("{{\"w\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}}}")
}

#[test]
fn a_file_of_the_usual_writer_is_read() {
    let bytes: Vec<u8> = (0..96).collect();
    let tensors = [
        ("model.norm.weight", TensorView::new(Dtype::BF16, vec![3], &bytes[..6]).unwrap()),
        ("model.w", TensorView::new(Dtype::F32, vec![2, 1, 3], &bytes[6..30]).unwrap()),
        ("scalar", TensorView::new(Dtype::I64, vec![], &bytes[30..38]).unwrap()),
        ("empty", TensorView::new(Dtype::U8, vec![0, 5], &[]).unwrap()),
        ("mask", TensorView::new(Dtype::BOOL, vec![4], &bytes[40..44]).unwrap()),
        ("fp8", TensorView::new(Dtype::F8_E4M3, vec![2, 2], &bytes[44..48]).unwrap()),
    ];
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let written = serialize(tensors.clone(), Some(metadata.into_iter().collect())).unwrap();
    let file = Safetensors::parse(&written).unwrap();
    assert_eq!(file.metadata, [("format".to_owned(), "pt".to_owned())]);
    assert_eq!(file.tensors.len(), tensors.len());
    for (name, expected) in &tensors {
        let tensor = file.require_tensor(name).unwrap();
        assert_eq!(tensor.data(&written).unwrap(), expected.data(), "{name}");
        assert_eq!(tensor.shape.iter().map(|&extent| extent as usize).collect::<Vec<_>>(), expected.shape());
        assert_eq!(tensor.stored.name(), expected.dtype().to_string());
    }
    assert_eq!(file.tensor("model.w").unwrap().dtype().unwrap(), DType::F32);
    assert_eq!(file.tensor("model.w").unwrap().element_count(), 6);
    assert_eq!(file.tensor("empty").unwrap().element_count(), 0);
    let error = file.tensor("fp8").unwrap().dtype().unwrap_err();
    assert_eq!(error.to_string(), "safetensors: tensor `fp8` has type F8_E4M3, which is not supported");
    assert!(matches!(error, FormatError::UnsupportedType { .. }));
    let error = file.require_tensor("model.v").unwrap_err().to_string();
    assert_eq!(error, "safetensors: tensor `model.v` is missing (nearest: `model.w`)");
    let cut = file.tensor("model.w").unwrap().data(&written[..20]);
    assert!(matches!(cut, Err(FormatError::InvalidArgument { .. })));
}

#[test]
fn every_type_of_the_format_is_known() {
    use Dtype::*;
    for dtype in [
        BOOL,
        F4,
        F6_E2M3,
        F6_E3M2,
        U8,
        I8,
        F8_E5M2,
        F8_E4M3,
        F8_E8M0,
        F8_E4M3FNUZ,
        F8_E5M2FNUZ,
        I16,
        U16,
        F16,
        BF16,
        I32,
        U32,
        F32,
        C64,
        F64,
        I64,
        U64,
    ] {
        let stored = StoredType::from_name(&dtype.to_string()).expect("a name of the format");
        assert_eq!(stored.byte_len(8), Some(dtype.bitsize() as u64), "{dtype}");
    }
}

#[test]
fn header_lengths() {
    for length in 0..8 {
        let error = Safetensors::parse(&vec![0; length]).unwrap_err().to_string();
        assert_eq!(error, format!("safetensors: {length} bytes, at least 8 are needed"));
    }
    for announced in [3, 100_000_001, 1 << 63, u64::MAX] {
        let mut bytes = announced.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        let error = Safetensors::parse(&bytes).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("safetensors: header of {announced} bytes announced, at most 100000000 are read and 2 follow")
        );
    }
    assert!(Safetensors::parse(&file("{}", 0)).unwrap().tensors.is_empty());
    assert!(Safetensors::parse(&file("{ }   \n", 0)).unwrap().tensors.is_empty());
}

#[test]
fn json() {
    for header in ["", "[]", "null", "{", "{}x", "{\"a\"}", "{\"a\":1}", "\u{feff}{}", "{\"a\":{}}", "{\"a\":[]}"] {
        assert!(refused(header, 0).starts_with("safetensors: header: "), "{header}");
    }
    let mut bytes = file("{\"\u{e9}\":0}", 0);
    bytes[10] = 0xff;
    assert!(Safetensors::parse(&bytes).is_err(), "not UTF-8");
    assert!(refused(&"[".repeat(100_000), 0).contains("header"));
    assert!(refused(&"{\"a\":".repeat(100_000), 0).contains("EOF"));
    assert!(refused("{\"__metadata__\":{\"k\":1}}", 0).contains("`__metadata__`: `k`: invalid type: integer"));
    assert!(refused("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0).contains("`k` appears twice"));
    assert!(refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0).contains("`__metadata__` appears twice"));
    assert!(Safetensors::parse(&file("{\"__metadata__\":null}", 0)).unwrap().metadata.is_empty());
    let twice = "{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}";
    assert_eq!(refused(twice, 2), "safetensors: tensor `w` appears twice");
    assert!(refused("{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 0).contains("duplicate field `dtype`"));
    assert!(refused("{\"w\":{\"shape\":[],\"data_offsets\":[0,1]}}", 1).contains("`w`: missing field `dtype`"));
    let more = "{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"extra\":[{}]}}";
    assert!(Safetensors::parse(&file(more, 1)).is_ok(), "further fields are ignored");
}

#[test]
fn types_shapes_and_offsets() {
    assert!(Safetensors::parse(&file(&one("[2,3]", "F16", 0, 12), 12)).is_ok());
    assert!(refused(&one("[1]", "Q4_K", 0, 1), 1).contains("tensor `w` has unknown type `Q4_K`"));
    assert!(refused(&one("[1]", "f32", 0, 4), 4).contains("unknown type `f32`"));
    assert!(refused(&one("[-1]", "U8", 0, 1), 1).contains("`w`: invalid value: integer `-1`"));
    assert!(refused(&one("[1.5]", "U8", 0, 1), 1).contains("floating point"));
    assert!(refused(&one("[18446744073709551616]", "U8", 0, 1), 1).contains("invalid type"));
    assert!(refused(&one("3", "U8", 0, 3), 3).contains("an array of extents"));
    for shape in ["[4294967296,4294967296]", "[9223372036854775807,3]", "[18446744073709551615,18446744073709551615,0]"]
    {
        assert!(refused(&one(shape, "U8", 0, 1), 1).contains("its bytes pass 2^64"), "{shape}");
    }
    assert!(refused(&one("[4611686018427387904]", "F32", 0, 0), 0).contains("its bytes pass 2^64"));
    assert!(refused(&one("[3]", "F4", 0, 1), 1).contains("or are not whole"));
    assert!(refused(&one(&format!("[{}1]", "1,".repeat(64)), "U8", 0, 1), 1).contains("more than 64 dimensions"));
    assert!(
        refused(&one("[2,3]", "F16", 0, 11), 11)
            .contains("tensor `w` has shape [2, 3] of F16, 12 bytes are needed, its offsets are 0 and 11")
    );
    assert!(refused(&one("[0]", "F16", 2, 0), 2).contains("its offsets are 2 and 0"));
    let huge = one("[18446744073709551615]", "U8", 0, u64::MAX);
    assert_eq!(
        refused(&huge, 5),
        "safetensors: tensor `w` ends at 18446744073709551615 of the data section, which has 5 bytes"
    );
    assert!(refused("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1).contains("invalid length 1"));
}

#[test]
fn the_data_section_is_covered_once() {
    let two = |a: [u64; 2], b: [u64; 2]| {
        format!(
            "{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":{a:?}}},\
             \"b\":{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":{b:?}}}}}",
            a[1] - a[0],
            b[1] - b[0]
        )
    };
    let swapped = Safetensors::parse(&file(&two([3, 5], [0, 3]), 5)).unwrap();
    assert_eq!(swapped.tensors.iter().map(|tensor| tensor.byte_len).collect::<Vec<_>>(), [2, 3]);
    assert!(Safetensors::parse(&file(&two([2, 4], [2, 2]), 4)).is_err());
    assert!(Safetensors::parse(&file(&two([0, 4], [4, 4]), 4)).is_ok());
    assert!(Safetensors::parse(&file(&two([0, 4], [0, 0]), 4)).is_ok());
    assert_eq!(
        refused(&two([0, 3], [2, 5]), 5),
        "safetensors: tensor `b` at 2 of the data section overlaps the one before it, 3 is needed"
    );
    assert!(
        refused(&two([0, 2], [3, 5]), 5).contains("`b` at 3 of the data section leaves a gap before it, 2 is needed")
    );
    assert!(refused(&two([0, 2], [2, 5]), 4).contains("`b` ends at 5 of the data section, which has 4 bytes"));
    assert_eq!(refused(&two([0, 2], [2, 5]), 6), "safetensors: the tensors cover 5 bytes, the data section has 6");
    assert!(refused("{}", 1).contains("cover 0 bytes"));
}

#[test]
fn every_truncation_is_refused() {
    let whole = file(&one("[2,3]", "F16", 0, 12), 12);
    for length in 0..whole.len() {
        assert!(Safetensors::parse(&whole[..length]).is_err(), "{length}");
    }
}

const INDEX: &str = "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"c\":\"model-2.safetensors\",\
                     \"a\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\"}}";

fn bytes(names: &[&str]) -> Safetensors {
    let tensors = names.iter().map(|name| (*name, TensorView::new(Dtype::U8, vec![1], &[9]).unwrap()));
    Safetensors::parse(&serialize(tensors, None).unwrap()).unwrap()
}

#[test]
fn shards_become_one_checkpoint() {
    let index = ShardIndex::parse(INDEX.as_bytes()).unwrap();
    assert_eq!(index.files, ["model-1.safetensors", "model-2.safetensors"]);
    assert_eq!(index.tensors, [("a".to_owned(), 0), ("b".to_owned(), 1), ("c".to_owned(), 1)]);
    let joined = ShardedSafetensors::join(&index, &[bytes(&["a", "c"]), bytes(&["b", "c", "x"])]).unwrap();
    let places: Vec<_> = joined.tensors.iter().map(|tensor| (tensor.info.name.as_str(), tensor.file)).collect();
    assert_eq!(places, [("a", 0), ("b", 1), ("c", 1)]);
    assert_eq!(joined.require_tensor("b").unwrap().file, 1);
    assert!(joined.tensor("x").is_none(), "a tensor that the index does not name");
    assert!(joined.require_tensor("ab").unwrap_err().to_string().contains("nearest: `a`"));
    let single = ShardedSafetensors::from(bytes(&["a", "z"]));
    assert_eq!((single.file_count(), single.tensor("z").unwrap().file), (1, 0));

    let error = ShardedSafetensors::join(&index, &[bytes(&["a"]), bytes(&["b"])]).unwrap_err().to_string();
    assert_eq!(error, "safetensors index: tensor `c` is not in `model-2.safetensors`");
    let error = ShardedSafetensors::join(&index, &[bytes(&["a"])]).unwrap_err();
    assert!(matches!(error, FormatError::InvalidArgument { .. }));
}

#[test]
fn hostile_indices() {
    let refused = |index: &str| {
        let error = ShardIndex::parse(index.as_bytes()).expect_err(index).to_string();
        assert!(error.starts_with("safetensors index: ") && !error.contains('\n'), "{error}");
        error
    };
    for name in ["../secret", "/etc/passwd", "a/b", "..\\\\b", "C:x", ".", "..", "", "a\\u0000b", "a\\nb"] {
        let error = refused(&format!("{{\"weight_map\":{{\"w\":\"{name}\"}}}}"));
        assert!(error.contains("is no plain file name"), "{error}");
    }
    assert!(refused("{\"weight_map\":{\"w\":\"a\",\"w\":\"b\"}}").contains("`w` appears twice"));
    assert!(refused("{\"weight_map\":{},\"weight_map\":{}}").contains("duplicate field `weight_map`"));
    assert!(refused("{\"metadata\":{}}").contains("missing field `weight_map`"));
    assert!(refused("{\"weight_map\":{\"w\":1}}").contains("`w`: invalid type: integer"));
    assert!(refused("{\"weight_map\":[]}").contains("expected an object"));
    assert!(refused("").contains("EOF"));
    assert!(refused(&"{\"metadata\":".repeat(100_000)).contains("EOF"));
    assert_eq!(ShardIndex::parse(b"{\"weight_map\":{}}").unwrap().files.len(), 0);
}
