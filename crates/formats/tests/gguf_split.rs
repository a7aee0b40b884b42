//! Models in several files.

use std::path::{Path, PathBuf};

use anymlx_formats::gguf::{Gguf, GgufWriter, Metadata, SplitGguf, SplitPart, Value, sibling_paths};
use anymlx_formats::{DType, FormatError};

/// A part with the given `split.*` values and one-byte-per-element tensors of 3 elements.
fn part(pairs: &[(&str, Value)], tensors: &[(&str, u8)]) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    for (key, value) in pairs {
        writer = writer.metadata(*key, value.clone());
    }
    for (name, fill) in tensors {
        writer = writer.tensor(*name, &[3], DType::I8, vec![*fill; 3]);
    }
    let mut file = Vec::new();
    writer.write_to(&mut file).unwrap();
    file
}

/// The keys with the types that llama.cpp's `gguf-split` writes.
fn keys(number: u16, count: u16, tensors: i32) -> Vec<(&'static str, Value)> {
    vec![
        ("split.no", Value::U16(number)),
        ("split.count", Value::U16(count)),
        ("split.tensors.count", Value::I32(tensors)),
    ]
}

fn three() -> [Vec<u8>; 3] {
    let mut first = keys(0, 3, 4);
    first.push(("general.architecture", Value::from("llama")));
    [part(&first, &[("a", 1), ("b", 2)]), part(&keys(1, 3, 4), &[]), part(&keys(2, 3, 4), &[("d", 4), ("c", 3)])]
}

fn parse(files: &[Vec<u8>]) -> Result<SplitGguf, FormatError> {
    SplitGguf::parse(&files.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[track_caller]
fn refused(files: &[Vec<u8>]) -> String {
    let message = parse(files).expect_err("these files must be refused").to_string();
    assert!(message.starts_with("gguf: ") && !message.contains('\n'), "{message}");
    message
}

#[test]
fn parts_become_one_model() {
    let files = three();
    let model = parse(&files).unwrap();
    assert_eq!(model.file_count(), 3);
    assert_eq!(model.metadata.require_string("general.architecture").unwrap(), "llama");
    let places: Vec<_> = model.tensors.iter().map(|tensor| (tensor.info.name.as_str(), tensor.file)).collect();
    assert_eq!(places, [("a", 0), ("b", 0), ("d", 2), ("c", 2)]);
    for (name, fill) in [("a", 1u8), ("b", 2), ("c", 3), ("d", 4)] {
        let tensor = model.require_tensor(name).unwrap();
        assert_eq!(tensor.info.data(&files[tensor.file]).unwrap(), [fill; 3]);
    }
    assert!(model.tensor("e").is_none());
    let error = model.require_tensor("ab").unwrap_err().to_string();
    assert!(error.contains("`ab` is missing (nearest: `a`)"), "{error}");
    // Each part alone is a valid file that says where it belongs.
    let last = Gguf::parse(&files[2]).unwrap();
    assert_eq!(SplitPart::of(&last.metadata).unwrap(), Some(SplitPart { number: 2, count: 3, tensors: Some(4) }));
}

/// The files are made by `fixtures/make.py` with PyPI `gguf` 0.19.0.
#[test]
fn files_of_the_python_writer_are_joined() {
    let files: [&[u8]; 3] = [
        include_bytes!("fixtures/split_1.bin"),
        include_bytes!("fixtures/split_2.bin"),
        include_bytes!("fixtures/split_3.bin"),
    ];
    let model = SplitGguf::parse(&files).unwrap();
    assert_eq!(model.metadata.require_string("general.architecture").unwrap(), "test");
    assert_eq!(model.tensors.len(), 5);
    for index in 0..5u8 {
        let tensor = model.require_tensor(&format!("tensor.{index}")).unwrap();
        assert_eq!((tensor.file, tensor.info.shape_row_major()), (usize::from(index) / 2, vec![2, 3]));
        assert_eq!(tensor.info.data(files[tensor.file]).unwrap(), f32::from(index).to_le_bytes().repeat(6));
    }
}

#[test]
fn a_single_file_is_a_model_of_one() {
    for pairs in [vec![], keys(0, 1, 1), vec![("split.count", Value::U16(0))], keys(0, 0, 0)] {
        let model = parse(&[part(&pairs, &[("a", 1)])]).unwrap();
        assert_eq!((model.file_count(), model.tensors.len(), model.tensors[0].file), (1, 1, 0));
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let [a, b, c] = three();
    let all = |files: [&Vec<u8>; 3]| files.map(Clone::clone);
    assert_eq!(refused(std::slice::from_ref(&a)), "gguf: 1 files given of a model in 3, all are needed");
    assert!(refused(&[a.clone(), b.clone()]).contains("2 files given of a model in 3"));
    assert_eq!(refused(&all([&a, &c, &b])), "gguf: part 2 of 3: `split.no` is 2, 1 is needed in its place");
    assert!(refused(&all([&b, &a, &c])).contains("part 1 of 3: `split.no` is 1, 0 is needed"));
    assert!(refused(&all([&a, &b, &b])).contains("part 3 of 3: `split.no` is 1, 2 is needed"));
    let alone = part(&[], &[("c", 3)]);
    assert_eq!(refused(&all([&a, &b, &alone])), "gguf: part 3 of 3: has no `split.count`, it is a model by itself");
    assert!(refused(&[alone.clone(), alone.clone()]).contains("2 files given of a model in 1"));
    let other = part(&keys(2, 4, 4), &[("c", 3), ("d", 4)]);
    assert!(refused(&all([&a, &b, &other])).contains("part 3 of 3: `split.count` is 4, that of the first part is 3"));
    let other = part(&keys(2, 3, 5), &[("c", 3), ("d", 4)]);
    assert!(refused(&all([&a, &b, &other])).contains("`split.tensors.count` is 5, that of the first part is 4"));
    let other = part(&keys(2, 3, 5)[..2], &[("c", 3), ("d", 4)]);
    assert!(refused(&all([&a, &b, &other])).contains("`split.tensors.count` is absent, that of the first part is 4"));
    let fewer = part(&keys(2, 3, 4), &[("c", 3)]);
    assert_eq!(refused(&all([&a, &b, &fewer])), "gguf: `split.tensors.count` is 4, the 3 files hold 3 tensors");
    let twice = part(&keys(2, 3, 4), &[("c", 3), ("a", 4)]);
    assert_eq!(refused(&all([&a, &b, &twice])), "gguf: tensor `a` appears in parts 1 and 3");
    let mut broken = b.clone();
    broken[0] = b'X';
    assert_eq!(refused(&all([&a, &broken, &c])), "gguf: part 2 of 3: file begins with `XGUF`, `GGUF` is needed");
    assert!(matches!(parse(&[]), Err(FormatError::InvalidArgument { .. })));
}

#[test]
fn hostile_keys_are_refused() {
    let with = |number: Value, count: Value| refused(&[part(&[("split.no", number), ("split.count", count)], &[])]);
    assert!(with(3u32.into(), 3u32.into()).contains("`split.no` is 3 and `split.count` is 3"));
    assert!(with(u64::MAX.into(), 2u32.into()).contains("`split.no` is 18446744073709551615"));
    assert!(with(0u32.into(), u64::MAX.into()).contains("a count of at most 65535"));
    assert!(with(0u32.into(), 65_536u32.into()).contains("a count of at most 65535"));
    assert!(with((-1i32).into(), 2u32.into()).contains("`split.no` is i32, needed an unsigned integer"));
    assert!(with("0".into(), 2u32.into()).contains("`split.no` is string"));
    assert!(with(0u32.into(), 2.0f32.into()).contains("`split.count` is f32"));
    assert!(refused(&[part(&[("split.no", 0u32.into())], &[])]).contains("`split.no` comes without `split.count`"));
    assert!(refused(&[part(&[("split.count", 2u32.into())], &[])]).contains("`split.count` comes without `split.no`"));
    let negative = part(&keys(0, 1, -1), &[]);
    assert!(refused(&[negative]).contains("`split.tensors.count` is i32, needed an unsigned integer"));
    assert_eq!(SplitPart::of(&Metadata::new()).unwrap(), None);
}

#[test]
fn names_of_siblings() {
    let paths = |path: &str| {
        let paths: Vec<PathBuf> = sibling_paths(Path::new(path));
        paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected = ["dir/m-q4-00001-of-00002.gguf", "dir/m-q4-00002-of-00002.gguf"];
    assert_eq!(paths("dir/m-q4-00001-of-00002.gguf"), expected);
    assert_eq!(paths("dir/m-q4-00002-of-00002.gguf"), expected);
    assert_eq!(paths("-00001-of-00001.gguf"), ["-00001-of-00001.gguf"]);
    assert_eq!(paths("m-00001-of-00011.gguf").len(), 11);
    assert_eq!(paths("m-00001-of-65535.gguf").len(), 65_535);
    for single in [
        "m.gguf",
        "m-00001-of-00002.bin",
        "m-00001-of-00002.gguf.part",
        "m-0001-of-0002.gguf",
        "m-000001-of-000002.gguf",
        "m-00000-of-00002.gguf",
        "m-00003-of-00002.gguf",
        "m-+0001-of-+0002.gguf",
        "m-00001-of-65536.gguf",
        "00001-of-00002.gguf",
        "m-٠٠٠٠١-of-00002.gguf",
        "dir-00001-of-00002.gguf/m",
        "..",
        "",
    ] {
        assert_eq!(paths(single), [single]);
    }
}
