//! Tiny models on every GPU present, beside the processor and what Hugging Face `transformers` computes.

mod support;

use std::{path::Path, time::Instant};

use anymlx::{MlxDevice, ops::SampleParams};
use anymlx_lm::{CacheType, GenerateOptions, Model, Session, SessionOptions, generate};
use anymlx_testing::golden::Golden;
use support::{EXACT, all_logits};

fn goldens() -> Vec<Golden> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models");
    Golden::load_all(&directory).expect("the goldens are committed")
}

fn gpus() -> Vec<MlxDevice> {
    let mut devices = Vec::new();
    for (name, opened) in [("cuda", MlxDevice::cuda(0)), ("metal", MlxDevice::metal())] {
        match opened {
            Ok(device) => devices.push(device),
            Err(error) => eprintln!("skipped: {name}: {error}"),
        }
    }
    devices
}

#[test]
fn logits_agree_with_transformers() {
    for device in gpus() {
        for golden in goldens() {
            let model = Model::open(&golden.model, &device).unwrap();
            let name = format!("{} exact on {}", golden.name, device.name());
            let logits = all_logits(&model, &golden.tokens, EXACT);
            anymlx_testing::assert_close(&name, &logits, &golden.logits_f64(), &golden.tolerance(1e-4));
            let name = format!("{} default on {}", golden.name, device.name());
            let logits = all_logits(&model, &golden.tokens, SessionOptions::default());
            anymlx_testing::assert_close(&name, &logits, &golden.logits_f64(), &golden.tolerance(0.3));
        }
    }
}

#[test]
fn greedy_text_is_the_processors() {
    let cpu = MlxDevice::cpu().unwrap();
    for device in gpus() {
        for golden in goldens() {
            let text = |device: &MlxDevice| {
                let model = Model::open(&golden.model, device).unwrap();
                let options = GenerateOptions { max_tokens: 32, sampling: SampleParams::default(), ignore_end: true };
                let mut session = Session::new(&model, EXACT).unwrap();
                generate(&mut session, &golden.tokens, &options, |_| std::ops::ControlFlow::Continue(()))
                    .unwrap()
                    .tokens
            };
            let found = text(&device);
            assert_eq!(found.len(), 32);
            assert_eq!(found, text(&cpu), "{} on {}", golden.name, device.name());
        }
    }
}

/// 100,000 replays of a recorded token, with sampling on the device, take no memory.
#[test]
fn a_hundred_thousand_tokens_leave_memory_flat() {
    /// Bytes that others may take or give back meanwhile.
    const NOISE: u64 = 64 << 20;
    for device in gpus() {
        let golden = goldens().swap_remove(0);
        let model = Model::open(&golden.model, &device).unwrap();
        let options = SessionOptions { cache_type: CacheType::F16, ..SessionOptions::default() };
        let mut session = Session::new(&model, options).unwrap();
        let sampling = SampleParams { temperature: 1.0, top_k: 40, seed: 3, ..SampleParams::default() };
        let mut draw = |tokens: usize| {
            let mut drawn = 0;
            while drawn < tokens {
                session.truncate(0).unwrap();
                session.feed(&golden.tokens[..4]).unwrap();
                session.first(sampling).unwrap();
                let count = (session.capacity() - session.used()).min(tokens - drawn);
                for _ in 0..count {
                    session.decode().unwrap();
                }
                drawn += count;
            }
        };
        draw(1000);
        device.synchronize();
        let before = device.info();
        let started = Instant::now();
        draw(100_000);
        device.synchronize();
        println!("{}: {:?} for each token", device.name(), started.elapsed() / 100_000);
        let after = device.info();
        assert_eq!(after.memory_in_use, before.memory_in_use);
        let gone = before.memory_free.saturating_sub(after.memory_free);
        assert!(gone < NOISE, "{gone} bytes are gone");
    }
}
