//! The golden loader on records made here, and the records of the language models.

use std::path::{Path, PathBuf};

use anymlx_testing::golden::{Golden, GoldenError};
use anymlx_testing::reference::argmax;

const JSON: &str = r#"{"description": "two tokens", "architecture": "llama", "vocabulary": 3, "tokens": [2, 0],
    "logits_deviation": 1.5, "logits_noise": 1e-6, "continuation": [1], "continuation_margin": 0.25,
    "versions": {"torch": "2", "gguf": "1"}}"#;
const LOGITS: [f32; 6] = [0.0, -1.0, 2.5, 1.0, 4.0, 3.75];

/// Writes a record into a folder of its own and loads it.
fn load(test: &str, json: &str, logits: &[u8], with_model: bool) -> Result<Golden, GoldenError> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("golden-{test}"));
    std::fs::create_dir_all(&directory).expect("a folder for the test");
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).expect("a file for the test");
    write("case.json", json.as_bytes());
    write("case.logits", logits);
    if with_model {
        write("case.gguf", b"GGUF");
    }
    Golden::load(&directory, "case")
}

fn bytes() -> Vec<u8> {
    LOGITS.iter().flat_map(|logit| logit.to_le_bytes()).collect()
}

#[test]
fn a_record_is_read_back() {
    let golden = load("whole", JSON, &bytes(), true).expect("a whole record");
    assert_eq!((golden.name.as_str(), golden.architecture.as_str()), ("case", "llama"));
    assert_eq!((golden.tokens.as_slice(), golden.continuation.as_slice()), (&[2, 0][..], &[1][..]));
    assert_eq!(golden.logits, LOGITS);
    assert_eq!(golden.logits_at(1), &LOGITS[3..]);
    assert_eq!(golden.versions, [("gguf".to_owned(), "1".to_owned()), ("torch".to_owned(), "2".to_owned())]);
    assert!(golden.model.ends_with("case.gguf"));
    assert_eq!(golden.tolerance(0.1).allowed(100.0), 0.1 * 1.5);
}

#[test]
fn a_record_that_contradicts_itself_is_an_error() {
    let short = load("short", JSON, &bytes()[4..], true).expect_err("five of six logits");
    assert_eq!(
        short.to_string(),
        "golden case: 20 bytes of logits for 2 tokens and 3 logits each: needs 24, and not 0"
    );
    let token = load("token", &JSON.replace("[2, 0]", "[3, 0]"), &bytes(), true).expect_err("token 3 of 3");
    assert!(token.to_string().contains("token 3 is not in a vocabulary of 3"), "{token}");
    let mut not_a_number = bytes();
    not_a_number[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(load("nan", JSON, &not_a_number, true), Err(GoldenError::Inconsistent { .. })));
    let empty = JSON.replace("[2, 0]", "[]");
    assert!(matches!(load("empty", &empty, &[], true), Err(GoldenError::Inconsistent { .. })));
}

#[test]
fn missing_and_malformed_files_are_named() {
    let no_model = load("no-model", JSON, &bytes(), false).expect_err("no model file");
    assert!(matches!(&no_model, GoldenError::Io { path, .. } if path.ends_with("case.gguf")), "{no_model}");
    assert!(matches!(load("json", "{", &bytes(), true), Err(GoldenError::Json { .. })));
    let unknown = JSON.replace("\"tokens\"", "\"surprise\": 1, \"tokens\"");
    assert!(matches!(load("unknown", &unknown, &bytes(), true), Err(GoldenError::Json { .. })));
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden-nowhere");
    assert!(matches!(Golden::load_all(&nowhere), Err(GoldenError::Io { .. })));
}

fn model_records() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lm/tests/goldens/models")
}

/// What the records say about themselves must be true: a test against a broken record proves nothing.
#[test]
fn the_records_of_the_language_models_are_sound() {
    let goldens = Golden::load_all(&model_records()).expect("every record loads");
    for architecture in ["gemma3", "qwen2", "llama"] {
        assert!(goldens.iter().any(|golden| golden.architecture == architecture), "no case of {architecture}");
    }
    for golden in &goldens {
        let name = &golden.name;
        let model = std::fs::read(&golden.model).expect("the model file");
        assert_eq!(&model[..4], b"GGUF", "{name}");
        assert!((20..=40).contains(&golden.tokens.len()) && golden.continuation.len() == 16, "{name}");
        let last = golden.logits_at(golden.tokens.len() - 1);
        assert_eq!(argmax(last, golden.vocabulary), golden.continuation[..1], "{name}");
        let mut sorted = last.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        assert!(f64::from(sorted[0] - sorted[1]) > 0.999 * golden.continuation_margin, "{name}");
        assert!(golden.continuation_margin > 0.05 * golden.logits_deviation, "{name}: tokens in doubt");
        assert!(golden.logits_noise < 1e-4 * golden.logits_deviation, "{name}: a noisy record");
        let mean = golden.logits_f64().iter().sum::<f64>() / golden.logits.len() as f64;
        let squares: f64 = golden.logits_f64().iter().map(|logit| (logit - mean).powi(2)).sum();
        let deviation = (squares / (golden.logits.len() - 1) as f64).sqrt();
        assert!((deviation / golden.logits_deviation - 1.0).abs() < 1e-3, "{name}: deviation {deviation}");
    }
}
