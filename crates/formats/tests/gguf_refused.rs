//! Files that break a rule are refused with one line that names the place.

use anymlx_formats::gguf::{Gguf, GgufWriter};
use anymlx_formats::{DType, FormatError, QuantType};

/// A header built by hand, so that it may say anything.
#[derive(Clone)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(tensors: u64, pairs: u64) -> Self {
        Raw(b"GGUF".to_vec()).u32(3).u64(tensors).u64(pairs)
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn string(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }
    fn pair_u32(self, key: &str, value: u32) -> Self {
        self.string(key).u32(4).u32(value)
    }
    fn tensor(self, name: &str, shape: &[u64], type_id: u32, offset: u64) -> Self {
        let named = self.string(name).u32(shape.len() as u32);
        shape.iter().fold(named, |raw, &extent| raw.u64(extent)).u32(type_id).u64(offset)
    }
    fn data(mut self, bytes: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + bytes, 0);
        self
    }
    fn parse(&self) -> Result<Gguf, FormatError> {
        Gguf::parse(&self.0)
    }
    /// The message of the refusal.
    #[track_caller]
    fn refused(&self) -> String {
        let message = self.parse().expect_err("this file must be refused").to_string();
        assert!(message.starts_with("gguf: ") && !message.contains('\n'), "{message}");
        message
    }
}

fn with_tensor(shape: &[u64], type_id: u32, offset: u64) -> Raw {
    Raw::new(1, 0).tensor("w", shape, type_id, offset).data(64)
}

#[test]
fn the_builder_makes_good_files() {
    let gguf = Raw::new(2, 1).pair_u32("a", 7).tensor("x", &[4], 0, 0).tensor("y", &[4, 2], 0, 32).data(64).parse();
    assert_eq!(gguf.unwrap().tensors.len(), 2);
    assert!(with_tensor(&[16], 0, 0).parse().is_ok());
}

#[test]
fn magic_and_version() {
    assert_eq!(Raw(vec![]).refused(), "gguf: magic of 4 bytes at offset 0, file has 0 bytes left");
    let mut raw = Raw::new(0, 0);
    raw.0[..4].copy_from_slice(b"GG\xff\n");
    assert_eq!(raw.refused(), "gguf: file begins with `GG\\xff\\n`, `GGUF` is needed");
    for (version, expected) in [
        (99u32, "version 99, 2 or 3 is needed"),
        (0, "version 0, 2 or 3 is needed"),
        (1, "version 1, 2 or 3 is needed"),
        (4, "version 4, 2 or 3 is needed"),
        (u32::MAX, "version 4294967295, 2 or 3 is needed"),
        (3u32.swap_bytes(), "file is big-endian (version 3 in that order), little-endian is needed"),
    ] {
        let mut raw = Raw::new(0, 0);
        raw.0[4..8].copy_from_slice(&version.to_le_bytes());
        assert_eq!(raw.refused(), format!("gguf: {expected}"));
    }
}

#[test]
fn counts_beyond_the_file() {
    for count in [1 << 63, u64::MAX, 1 << 32, 1] {
        assert!(Raw::new(count, 0).refused().contains(&format!("{count} tensors announced")), "{count}");
        assert!(Raw::new(0, count).refused().contains(&format!("{count} metadata pairs announced")), "{count}");
        for element in 0..=12 {
            let raw = Raw::new(0, 1).string("k").u32(9).u32(element).u64(count);
            assert!(raw.refused().starts_with("gguf: metadata key `k`: "), "{}", raw.refused());
        }
        let raw = Raw::new(0, 1).string("k").u32(9).u32(8).u64(count);
        assert!(raw.refused().contains(&format!("{count} strings announced")), "{}", raw.refused());
    }
    assert_eq!(
        Raw::new(1 << 63, 0).refused(),
        "gguf: 9223372036854775808 tensors announced before offset 24, they need at least 230584300921369395200 bytes, \
         file has 0 bytes left"
    );
}

#[test]
fn strings() {
    let raw = Raw::new(0, 1).u64(u64::from(u32::MAX)).bytes(&[b'x'; 96 - 8]);
    assert_eq!(raw.refused(), "gguf: string of 4294967295 bytes at offset 32, file has 88 bytes left");
    assert!(Raw::new(0, 1).u64(u64::MAX).data(20).refused().contains("string of 18446744073709551615 bytes"));
    assert!(Raw::new(0, 1).string("").u32(4).data(64).refused().contains("key at offset 24 has 0 bytes"));
    let long = "k".repeat(65_536);
    assert!(Raw::new(0, 1).pair_u32(&long, 1).refused().contains("has 65536 bytes, 1 to 65535 are needed"));
    let raw = Raw::new(0, 1).u64(3).bytes(b"a\xff\xff").u32(4).u32(1);
    assert_eq!(raw.refused(), "gguf: string at offset 32 is not UTF-8 from its byte 1");
    // Two halves of one character, valid only when joined.
    let raw = Raw::new(0, 1).string("k").u32(9).u32(8).u64(3).string("a").u64(1).bytes(b"\xc3").u64(1).bytes(b"\xa9");
    assert_eq!(raw.refused(), "gguf: metadata key `k`: element 1: string at offset 66 is not UTF-8 from its byte 0");
}

#[test]
fn values() {
    for value_type in [13, 99, u32::MAX] {
        let raw = Raw::new(0, 1).string("k").u32(value_type).u64(0);
        assert!(raw.refused().contains(&format!("unknown value type {value_type}")), "{}", raw.refused());
        let raw = Raw::new(0, 1).string("k").u32(9).u32(value_type).u64(0);
        assert!(raw.refused().contains(&format!("unknown array element type {value_type}")), "{}", raw.refused());
    }
    let raw = Raw::new(0, 1).string("k").u32(7).bytes(&[2]);
    assert_eq!(raw.refused(), "gguf: metadata key `k`: bool at offset 37 is 2, 0 or 1 is needed");
    assert!(
        Raw::new(0, 1).string("k").u32(9).u32(7).u64(2).bytes(&[1, 3]).refused().contains("bool at offset 50 is 3")
    );
    let nested = |depth: usize| {
        let raw = Raw::new(0, 1).string("k").u32(9);
        (1..depth).fold(raw, |raw, _| raw.u32(9).u64(1)).u32(0).u64(0)
    };
    assert!(nested(4).parse().is_ok());
    assert!(nested(5).refused().contains("nested deeper than 4"));
    assert!(nested(10_000).refused().contains("nested deeper than 4"));
}

#[test]
fn duplicates() {
    let raw = Raw::new(0, 3).pair_u32("a", 1).pair_u32("b", 1).pair_u32("a", 2);
    assert_eq!(raw.refused(), "gguf: metadata key `a` appears twice");
    let raw = Raw::new(2, 0).tensor("w", &[4], 0, 0).tensor("w", &[4], 0, 32).data(64);
    assert_eq!(raw.refused(), "gguf: tensor `w` appears twice");
}

#[test]
fn alignments() {
    for alignment in [0, 3, 24, u32::MAX] {
        let message = Raw::new(0, 1).pair_u32("general.alignment", alignment).refused();
        assert_eq!(message, format!("gguf: general.alignment is {alignment}, a power of two is needed"));
    }
    let message = Raw::new(0, 1).string("general.alignment").u32(10).u64(32).refused();
    assert_eq!(message, "gguf: metadata key `general.alignment` is u64, needed a u32");
    let raw = Raw::new(1, 1).pair_u32("general.alignment", 1 << 31).tensor("w", &[4], 0, 0).data(64);
    assert!(raw.refused().contains("begins at 2147483648"), "{}", raw.refused());
    assert!(with_tensor(&[4], 0, 8).refused().contains("offset 8, a multiple of the alignment 32"));
    assert!(with_tensor(&[4], 0, u64::MAX).refused().contains("multiple of the alignment"));
}

#[test]
fn shapes() {
    assert!(with_tensor(&[1; 5], 0, 0).refused().contains("`w` has 5 dimensions"));
    let raw = Raw::new(1, 0).string("w").u32(u32::MAX).data(64);
    assert!(raw.refused().contains("has 4294967295 dimensions"), "{}", raw.refused());
    assert!(with_tensor(&[0], 0, 0).refused().contains("has shape [0], extent 0 is 0"));
    assert!(with_tensor(&[4, 0, 2], 0, 0).refused().contains("extent 1 is 0"));
    for shape in [&[1 << 32, 1 << 32][..], &[1 << 63], &[u64::MAX], &[1 << 16, 1 << 16, 1 << 16, 1 << 16]] {
        assert!(with_tensor(shape, 24, 0).refused().contains("element count passes 2^63"), "{shape:?}");
    }
    assert!(with_tensor(&[1 << 62], 0, 0).refused().contains("its bytes pass 2^64"));
    assert_eq!(
        with_tensor(&[100, 2], 12, 0).refused(),
        "gguf: tensor `w` has rows of 100 elements, Q4_K needs a multiple of 256"
    );
    // A scalar, as in llama.cpp.
    assert_eq!(with_tensor(&[], 0, 0).parse().unwrap().tensors[0].byte_len, 4);
    assert!(Raw::new(1, 0).tensor("", &[4], 0, 0).data(64).refused().contains("tensor name at offset 24 is empty"));
}

#[test]
fn types_are_named() {
    for (id, name) in [(4, "Q4_2"), (9, "Q8_1"), (31, "Q4_0_4_4"), (38, "IQ4_NL_8_8"), (77, "number 77")] {
        let error = with_tensor(&[256], id, 0).parse().unwrap_err();
        assert!(matches!(error, FormatError::UnsupportedType { .. }));
        assert_eq!(error.to_string(), format!("gguf: tensor `w` has type {name}, which is not supported"));
    }
    assert!(with_tensor(&[256], u32::MAX, 0).refused().contains("number 4294967295"));
}

#[test]
fn places() {
    assert_eq!(
        with_tensor(&[17], 0, 0).refused(),
        "gguf: tensor `w` has 68 bytes at 0 of the data section, which begins at 64 of the 128 bytes in the file"
    );
    assert!(with_tensor(&[4], 0, 64).refused().contains("has 16 bytes at 64 of the data section"));
    assert!(with_tensor(&[4], 0, u64::MAX - 31).refused().contains("of the data section"));
    assert!(with_tensor(&[1 << 60], 0, 1 << 63).refused().contains("of the data section"));
    let overlap = Raw::new(2, 0).tensor("a", &[9], 0, 0).tensor("b", &[4], 0, 32).data(64);
    assert_eq!(overlap.refused(), "gguf: tensors `a` (36 bytes at offset 96) and `b` (at offset 128) overlap");
    let same = Raw::new(2, 0).tensor("a", &[4], 0, 0).tensor("b", &[4], 0, 0).data(64);
    assert!(same.refused().contains("overlap"));
    let backwards = Raw::new(2, 0).tensor("a", &[4], 0, 32).tensor("b", &[8], 0, 0).data(64);
    assert!(backwards.parse().is_ok(), "order and gaps are free");
}

#[test]
fn every_truncation_is_refused() {
    let mut file = Vec::new();
    GgufWriter::new()
        .metadata("general.architecture", "llama")
        .metadata("scores", vec![0.5f32, 1.5])
        .metadata("flag", true)
        .metadata("general.alignment", 16u32)
        .tensor("a", &[3], DType::F16, vec![1u8; 6])
        .tensor("b", &[32, 2], QuantType::Q4_0, vec![2u8; 36])
        .write_to(&mut file)
        .unwrap();
    let end = {
        let gguf = Gguf::parse(&file).unwrap();
        let last = gguf.require_tensor("b").unwrap();
        (last.offset + last.byte_len) as usize
    };
    for length in 0..end {
        Raw(file[..length].to_vec()).refused();
    }
    // Only the padding after the last tensor may be missing.
    for length in end..=file.len() {
        assert!(Gguf::parse(&file[..length]).is_ok(), "{length}");
    }
}
