//! What several tests of models need.

// Each test program uses some of it.
#![allow(dead_code)]

use std::{ops::ControlFlow, path::Path};

use anymlx::{EmulatorOptions, MlxDevice, env, ops::SampleParams};
use anymlx_lm::{ActivationPrecision, CacheType, GenerateOptions, Model, Session, SessionOptions, generate};
use anymlx_testing::golden::Golden;

/// Every GPU present; reasons are printed for the others.
pub fn gpus() -> Vec<MlxDevice> {
    let mut devices = Vec::new();
    for (name, opened) in [("cuda", MlxDevice::cuda(0)), ("metal", MlxDevice::metal())] {
        match opened {
            Ok(device) => devices.push(device),
            Err(error) => eprintln!("skipped: {name}: {error}"),
        }
    }
    devices
}

/// The emulator of kernel texts; `None` with a printed reason where it cannot run.
pub fn emulator() -> Option<MlxDevice> {
    let options = EmulatorOptions::new(env::cache_dir().expect("a place for compiled texts").join("emulator"));
    MlxDevice::emulator(&options).inspect_err(|error| eprintln!("skipped: emulator: {error}")).ok()
}

/// The processor and every GPU present.
pub fn devices() -> impl Iterator<Item = MlxDevice> {
    gpus().into_iter().chain(MlxDevice::cpu().ok())
}

/// The tiny models and what `transformers` computes for them.
pub fn goldens() -> Vec<Golden> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models");
    Golden::load_all(&directory).expect("the goldens are committed")
}

/// The tiny checkpoints of MLX and of Hugging Face and what MLX computes for them.
pub fn mlx_goldens() -> Vec<Golden> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mlx");
    Golden::load_all(&directory).expect("the goldens are committed")
}

/// On `device` the model computes the logits of `golden`, whether it reads the text at once or `chunk` tokens at a time.
pub fn logits_agree(golden: &Golden, device: &MlxDevice, chunk: usize) {
    let model = Model::open(&golden.model, device).unwrap();
    assert_eq!(model.config().architecture, golden.architecture, "{}", golden.name);
    for chunk in [512, chunk].map(Some) {
        // Eight-bit activations and a half-precision cache round; features that are wrong move logits further, and are caught
        // where nothing is rounded.
        let precisions = [("exact", EXACT, 1e-4), ("default", SessionOptions::default(), 0.3)];
        for (precision, options, allowed) in precisions {
            let name = format!("{} {precision} in chunks of {chunk:?} on {}", golden.name, device.name());
            let logits = all_logits(&model, &golden.tokens, SessionOptions { chunk, ..options });
            anymlx_testing::assert_close(&name, &logits, &golden.logits_f64(), &golden.tolerance(allowed));
        }
    }
}

/// The `count` most likely tokens after the golden's, one after the other.
pub fn greedy(golden: &Golden, device: &MlxDevice, count: usize) -> Vec<u32> {
    let model = Model::open(&golden.model, device).unwrap();
    let mut session = Session::new(&model, EXACT).unwrap();
    let options = GenerateOptions { max_tokens: count, sampling: SampleParams::default(), ignore_end: true };
    generate(&mut session, &golden.tokens, &options, |_| ControlFlow::Continue(())).unwrap().tokens
}

/// Nothing is rounded but sums.
pub const EXACT: SessionOptions = SessionOptions {
    context: None,
    chunk: Some(512),
    cache_type: CacheType::F32,
    precision: ActivationPrecision::Full,
};

/// The logits after each of `ids`, one row after the other.
pub fn all_logits(model: &Model, ids: &[u32], options: SessionOptions) -> Vec<f32> {
    let mut session = Session::new(model, options).unwrap();
    let mut logits = Vec::new();
    session
        .logits_from(ids, 0, |position, row| {
            assert_eq!(position * model.config().vocabulary, logits.len());
            logits.extend_from_slice(row);
            Ok(())
        })
        .unwrap();
    logits
}
