//! Gemma 3 270M, where it is in the cache: against llama.cpp as packed in llama-cpp-python 0.3.36.

use std::path::PathBuf;

use super::{anymlx, refusal, run, succeeds};

/// The model's file, or `None` with a printed reason.
fn model() -> Option<PathBuf> {
    let file = anymlx::env::cache_dir().unwrap().join("models/gemma3-270m/gemma-3-270m-q4_k_m.gguf");
    if file.is_file() {
        return Some(file);
    }
    eprintln!("skipped: gemma3-270m: not in the cache; `anymlx pull gemma3-270m` fetches it");
    None
}

/// The first 15 tokens after `The capital of France is`. Activations are rounded differently there, so that later ones
/// may differ.
const GREEDY: &str = " the capital of the country of France. It is the largest city in France";

/// Cumulative perplexity of the text after each chunk of 512.
const PERPLEXITY: [f64; 14] = [
    12.9953, 13.9358, 13.8492, 15.1904, 14.9197, 14.5455, 14.8115, 14.9498, 15.1861, 14.9820, 14.8794, 14.7634,
    14.0483, 13.8844,
];

#[test]
fn greedy_text_is_llama_cpps() {
    if model().is_none() {
        return;
    }
    for threads in ["1", "2"] {
        let text = succeeds(["generate", "The capital of France is", "-n", "15", "--threads", threads]);
        assert_eq!(text.trim_end_matches('\n'), GREEDY);
    }
}

#[test]
fn perplexity_is_llama_cpps() {
    if model().is_none() {
        return;
    }
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/gpl3.txt");
    let output = succeeds(["perplexity", text, "--context", "512"]);
    let line = output.lines().find_map(|line| line.strip_prefix("cumulative: ")).unwrap();
    let values: Vec<f64> = line.split(' ').map(|value| value.parse().unwrap()).collect();
    assert_eq!(values.len(), PERPLEXITY.len());
    for (chunk, (value, expected)) in values.iter().zip(PERPLEXITY).enumerate() {
        let allowed = if chunk + 1 == PERPLEXITY.len() { 0.005 } else { 0.01 };
        let difference = (value - expected).abs() / expected;
        println!("chunk {chunk}: {value} for {expected}, {:.0} % of what is allowed", 100.0 * difference / allowed);
        assert!(difference <= allowed, "chunk {chunk}: {value}, needed {expected}");
    }
}

#[test]
fn a_seed_fixes_the_text() {
    if model().is_none() {
        return;
    }
    let text = |seed: &str, threads: &str| {
        let sampling = ["--temperature", "1", "--top-k", "50", "--top-p", "0.95", "--seed", seed, "--threads", threads];
        succeeds(["generate", "Once upon a time", "-n", "24"].into_iter().chain(sampling))
    };
    let first = text("7", "1");
    assert_eq!(first, text("7", "2"));
    assert_ne!(first, text("8", "2"));
}

#[test]
fn a_prompt_longer_than_the_context_is_refused() {
    if model().is_none() {
        return;
    }
    let message = refusal(&run(["generate", "The capital of France is", "--context", "3"]));
    assert!(message.contains("the prompt has 6 tokens, the context holds 3"), "{message}");
}

#[test]
fn tokens_are_llama_cpps() {
    if model().is_none() {
        return;
    }
    assert_eq!(succeeds(["tokenize", "Hello, world!", "--ids"]), "[2, 9259, 236764, 1902, 236888]\n");
    assert_eq!(succeeds(["tokenize", "Hello, world!", "--ids", "--no-bos"]), "[9259, 236764, 1902, 236888]\n");
}

#[cfg(target_os = "linux")]
#[test]
fn weights_are_mapped_and_not_copied() {
    let Some(model) = model() else { return };
    let mut child = anymlx(["generate", "The capital of France is", "-n", "300", "--ignore-end"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0_u64;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high_water = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = high_water.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success());
    let file = std::fs::metadata(model).unwrap().len();
    println!("peak memory {} MB for a file of {} MB", peak / 1_000_000, file / 1_000_000);
    assert!(peak > file / 2, "the peak was not seen");
    assert!(peak < file + 150_000_000, "{peak} bytes for a file of {file}");
}
