//! Wrong input gets one clear line and a non-zero exit.

use std::ffi::OsStr;

use super::{Folder, anymlx, refusal, run, tiny_model};

fn generate_from(path: &std::path::Path) -> String {
    let arguments: [&OsStr; 4] = ["generate".as_ref(), "x".as_ref(), "--model".as_ref(), path.as_os_str()];
    refusal(&run(arguments))
}

#[test]
fn a_file_cut_anywhere_in_its_header_is_refused() {
    let bytes = std::fs::read(tiny_model()).unwrap();
    let folder = Folder::new("truncated");
    for len in (0..bytes.len().min(16 * 1024)).step_by(1024) {
        let path = folder.write("cut.gguf", &bytes[..len]);
        let message = generate_from(&path);
        assert!(message.contains("cut.gguf"), "{len} bytes: {message}");
        let inspected = refusal(&run(["inspect".as_ref(), path.as_os_str()]));
        assert!(inspected.contains("cut.gguf"), "{len} bytes: {inspected}");
    }
}

#[test]
fn a_header_that_lies_is_refused() {
    let bytes = std::fs::read(tiny_model()).unwrap();
    let folder = Folder::new("header");
    let changed = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("magic", changed(0, b"ABCD"), "magic"),
        ("version", changed(4, &99_u32.to_le_bytes()), "version 99"),
        ("tensors", changed(8, &(1_u64 << 63).to_le_bytes()), "9223372036854775808"),
        ("pairs", changed(16, &(1_u64 << 63).to_le_bytes()), "9223372036854775808"),
    ];
    for (name, bytes, expected) in cases {
        let message = generate_from(&folder.write(name, &bytes));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_path_that_does_not_exist_is_named_with_what_is_near() {
    let folder = Folder::new("near");
    folder.write("model-a.gguf", b"x");
    let message = generate_from(&folder.0.join("model-b.gguf"));
    assert!(message.contains("model-b.gguf") && message.contains("model-a.gguf"), "{message}");
    let message = refusal(&run(["generate", "x", "--model", "gemma3-270n"]));
    assert!(message.contains("gemma3-270m"), "{message}");
}

#[test]
fn a_device_that_is_absent_is_an_error_and_never_a_fallback() {
    let tiny = tiny_model();
    let tiny = tiny.to_str().unwrap();
    for device in ["cuda:97", "metal:3", "gpu"] {
        let message = refusal(&run(["generate", "x", "--model", tiny, "--device", device]));
        assert!(message.contains(device), "{message}");
    }
    let output = anymlx(["generate", "x", "--model", tiny]).env("ANYMLX_DEVICE", "cuda:97").output().unwrap();
    assert!(refusal(&output).contains("cuda:97"));
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let folder = Folder::new("cache");
    let file = folder.write("occupied", b"not a folder");
    let output = anymlx(["generate", "x"]).env("ANYMLX_CACHE", &file).output().unwrap();
    let message = refusal(&output);
    assert!(message.contains("occupied") && message.contains("ANYMLX_CACHE"), "{message}");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let tiny = tiny_model();
    let tiny = tiny.to_str().unwrap();
    let message = refusal(&run(["bench", "-p", "0", "-n", "0", "--model", tiny]));
    assert!(message.contains("nothing to measure"), "{message}");
    let message = refusal(&run(["bench", "-p", "8", "-n", "8", "--threads", "0", "--model", tiny]));
    assert!(message.contains("0 threads"), "{message}");
    let message = refusal(&run(["bench", "-p", "100000", "-n", "0", "--model", tiny]));
    assert!(message.contains("100000") && message.contains("512"), "{message}");
    let output = run(["generate", "--no-such-option"]);
    assert_eq!(output.status.code(), Some(2), "usage errors have a status of their own");
}

#[test]
fn a_model_without_a_vocabulary_cannot_read_text() {
    let message = generate_from(&tiny_model());
    assert!(message.contains("no_vocab") || message.contains("ids"), "{message}");
}

#[test]
fn bench_prints_one_json_object() {
    let tiny = tiny_model();
    let text =
        super::succeeds(["bench", "-p", "16", "-n", "4", "-r", "2", "--json", "--model", tiny.to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tests: Vec<_> = report["results"].as_array().unwrap().iter().map(|result| result["test"].clone()).collect();
    assert_eq!(tests, ["pp16", "tg4"]);
    for result in report["results"].as_array().unwrap() {
        let rate = |name: &str| result["tokens_per_s"][name].as_f64().unwrap();
        assert!(0.0 < rate("min") && rate("min") <= rate("median") && rate("median") <= rate("max"), "{result}");
    }
    assert_eq!(report["model"], "gemma3.gguf");
    assert!(report["threads"].as_u64().unwrap() > 0 && report["device"].is_string());
}
