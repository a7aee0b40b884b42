//! Tiny models on every GPU present, beside the processor and what Hugging Face `transformers` and MLX compute.

mod support;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anymlx::{MlxDevice, ops::SampleParams};
use anymlx_lm::{Model, Session, SessionOptions};
use support::{EXACT, devices, emulator, goldens, gpus, greedy, logits_agree, mlx_goldens};

/// One test at a time: some count the memory of their device.
static DEVICES: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn logits_agree_with_transformers() {
    let _alone = alone();
    for device in gpus() {
        for golden in goldens() {
            logits_agree(&golden, &device, 5);
        }
    }
}

#[test]
fn logits_agree_with_mlx() {
    let _alone = alone();
    let goldens = mlx_goldens();
    for device in gpus() {
        for golden in &goldens {
            logits_agree(golden, &device, 3);
        }
    }
    // Layers with different numbers of bits and groups; operations are emulated with every layout.
    let mixed = goldens.iter().find(|golden| golden.name == "gemma3-affine-mixed").expect("the golden is committed");
    if let Some(device) = emulator() {
        logits_agree(mixed, &device, 3);
    }
}

/// Of a prompt's last layer only the last row is computed, and nothing but keys and values of chunks before the last one.
#[test]
fn the_logits_after_a_prompt_are_those_of_its_last_token() {
    let _alone = alone();
    let golden = goldens().swap_remove(0);
    let row = golden.logits_f64().split_off((golden.tokens.len() - 1) * golden.vocabulary);
    for device in devices().chain(emulator()) {
        let model = Model::open(&golden.model, &device).unwrap();
        for chunk in [512, 11] {
            let mut session = Session::new(&model, SessionOptions { chunk: Some(chunk), ..EXACT }).unwrap();
            let logits = session.prefill(&golden.tokens).unwrap();
            let name = format!("{} in chunks of {chunk} on {}", golden.name, device.name());
            anymlx_testing::assert_close(&name, &logits, &row, &golden.tolerance(1e-4));
        }
    }
}

#[test]
fn greedy_text_is_the_processors() {
    let _alone = alone();
    let cpu = MlxDevice::cpu().unwrap();
    for device in gpus() {
        for golden in goldens() {
            let found = greedy(&golden, &device, 32);
            assert_eq!(found.len(), 32);
            assert_eq!(found, greedy(&golden, &cpu, 32), "{} on {}", golden.name, device.name());
        }
    }
}

/// 100,000 replays of a recorded token, with sampling on the device, take no memory.
#[test]
fn a_hundred_thousand_tokens_leave_memory_flat() {
    let _alone = alone();
    /// Bytes that others may take or give back meanwhile.
    const NOISE: u64 = 64 << 20;
    for device in gpus() {
        let golden = goldens().swap_remove(0);
        let model = Model::open(&golden.model, &device).unwrap();
        let mut session = Session::new(&model, SessionOptions::default()).unwrap();
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
