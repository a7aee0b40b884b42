//! What several tests of models need.

// Each test program uses some of it.
#![allow(dead_code)]

use std::{ops::ControlFlow, path::Path};

use anymlx::{MlxDevice, ops::SampleParams};
use anymlx_lm::{ActivationPrecision, CacheType, GenerateOptions, Model, Session, SessionOptions, generate};
use anymlx_testing::golden::Golden;

/// The tiny models and what `transformers` computes for them.
pub fn goldens() -> Vec<Golden> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models");
    Golden::load_all(&directory).expect("the goldens are committed")
}

/// On `device` each tiny model computes the logits that `transformers` does.
pub fn logits_agree(device: &MlxDevice) {
    for golden in goldens() {
        let model = Model::open(&golden.model, device).unwrap();
        let name = format!("{} exact on {}", golden.name, device.name());
        let logits = all_logits(&model, &golden.tokens, EXACT);
        anymlx_testing::assert_close(&name, &logits, &golden.logits_f64(), &golden.tolerance(1e-4));
        // Eight-bit activations and a half-precision cache round; features that are wrong move
        // logits further, and are caught above.
        let name = format!("{} default on {}", golden.name, device.name());
        let logits = all_logits(&model, &golden.tokens, SessionOptions::default());
        anymlx_testing::assert_close(&name, &logits, &golden.logits_f64(), &golden.tolerance(0.3));
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
