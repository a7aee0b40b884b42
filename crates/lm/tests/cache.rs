//! Quantised key-value caches, on the processor and every GPU present.

mod support;

use anymlx::ops::SampleParams;
use anymlx_lm::{CacheType, Model, Session, SessionOptions};
use support::{EXACT, all_logits, devices, goldens};

fn options(cache_type: CacheType, chunk: usize) -> SessionOptions {
    SessionOptions { chunk: Some(chunk), cache_type, ..EXACT }
}

#[test]
// Four bits move the logits of so small a model by whole deviations: operations and chunks are tested for them instead.
fn logits_move_by_no_more_than_the_rounding() {
    for device in devices() {
        for golden in goldens() {
            let model = Model::open(&golden.model, &device).unwrap();
            for (cache_type, allowed) in [(CacheType::F16, 0.01), (CacheType::Q8_0, 0.4)] {
                let name = format!("{} {cache_type} on {}", golden.name, device.name());
                if !model.config().head_dim.is_multiple_of(32)
                    && matches!(cache_type, CacheType::Q8_0 | CacheType::Q4_0)
                {
                    let error = Session::new(&model, options(cache_type, 512)).err().unwrap().to_string();
                    assert!(error.contains("multiple of 32"), "{name}: {error}");
                    continue;
                }
                let found = all_logits(&model, &golden.tokens, options(cache_type, 512));
                anymlx_testing::assert_close(&name, &found, &golden.logits_f64(), &golden.tolerance(allowed));
            }
        }
    }
}

/// Later tokens see what the cache holds, whether it was stored in their own chunk or an earlier one. A sum in another order
/// may still tip an element over the edge between two codes.
#[test]
fn chunks_do_not_change_what_is_seen() {
    for device in devices() {
        let golden = goldens().into_iter().find(|golden| golden.name == "gemma3").expect("the golden is committed");
        let model = Model::open(&golden.model, &device).unwrap();
        for (cache_type, allowed) in [(CacheType::Q8_0, 0.02), (CacheType::Q4_0, 0.3)] {
            let whole: Vec<f64> =
                all_logits(&model, &golden.tokens, options(cache_type, 512)).into_iter().map(f64::from).collect();
            for chunk in [1, 7] {
                let found = all_logits(&model, &golden.tokens, options(cache_type, chunk));
                let name = format!("{cache_type} in chunks of {chunk} on {}", device.name());
                anymlx_testing::assert_close(&name, &found, &whole, &golden.tolerance(allowed));
            }
        }
    }
}

#[test]
fn tokens_are_drawn_from_a_quantised_cache() {
    for device in devices() {
        let golden = goldens().into_iter().find(|golden| golden.name == "gemma3").expect("the golden is committed");
        let model = Model::open(&golden.model, &device).unwrap();
        let mut session = Session::new(&model, options(CacheType::Q8_0, 512)).unwrap();
        session.feed(&golden.tokens).unwrap();
        let mut drawn = vec![session.first(SampleParams::default()).unwrap()];
        for _ in 1..golden.continuation.len().min(8) {
            drawn.push(session.decode().unwrap());
        }
        assert_eq!(drawn, golden.continuation[..drawn.len()], "on {}", device.name());
    }
}
