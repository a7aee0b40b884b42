//! Tiny models against what Hugging Face `transformers` computes for them.

mod support;

use anymlx::{MlxDevice, ops::SampleParams};
use anymlx_lm::{GenerateOptions, Model, Session, SessionOptions, generate};
use support::{EXACT, all_logits, goldens, greedy, logits_agree};

#[test]
fn logits_agree_with_transformers() {
    let device = MlxDevice::cpu().unwrap();
    for golden in goldens() {
        logits_agree(&golden, &device, 5);
    }
}

#[test]
fn greedy_text_agrees_with_transformers() {
    let device = MlxDevice::cpu().unwrap();
    for golden in goldens() {
        let tokens = greedy(&golden, &device, golden.continuation.len());
        assert_eq!(tokens, golden.continuation, "{}", golden.name);
    }
}

#[test]
fn chunks_of_any_length_give_the_same_logits() {
    let device = MlxDevice::cpu().unwrap();
    for golden in goldens() {
        let model = Model::open(&golden.model, &device).unwrap();
        let whole: Vec<f64> = all_logits(&model, &golden.tokens, EXACT).iter().map(|&x| x.into()).collect();
        for chunk in [1, 7, 64] {
            let logits = all_logits(&model, &golden.tokens, SessionOptions { chunk: Some(chunk), ..EXACT });
            let name = format!("{} in chunks of {chunk}", golden.name);
            anymlx_testing::assert_close(&name, &logits, &whole, &golden.tolerance(1e-4));
        }
    }
}

#[test]
fn decoding_token_by_token_agrees_with_reading_the_whole_text() {
    let device = MlxDevice::cpu().unwrap();
    for golden in goldens() {
        let model = Model::open(&golden.model, &device).unwrap();
        let mut session = Session::new(&model, EXACT).unwrap();
        session.feed(&golden.tokens).unwrap();
        let mut drawn = vec![session.first(SampleParams::default()).unwrap()];
        for _ in 0..7 {
            drawn.push(session.decode().unwrap());
        }
        let mut text = golden.tokens.clone();
        for &id in &drawn {
            let mut fresh = Session::new(&model, EXACT).unwrap();
            let logits = fresh.prefill(&text).unwrap();
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            assert_eq!(best as u32, id, "{}", golden.name);
            text.push(id);
        }
    }
}

#[test]
fn a_seed_fixes_the_text_for_any_thread_count() {
    let golden = &goldens()[0];
    let sampling = SampleParams { temperature: 1.0, top_k: 40, top_p: 0.95, min_p: 0.01, seed: 42 };
    let text = |threads: usize, seed: u64| {
        let options = anymlx::CpuDeviceOptions { threads: Some(threads), ..Default::default() };
        let device = MlxDevice::cpu_with(&options).unwrap();
        let model = Model::open(&golden.model, &device).unwrap();
        let mut session = Session::new(&model, SessionOptions::default()).unwrap();
        let options = GenerateOptions { max_tokens: 24, sampling: SampleParams { seed, ..sampling }, ignore_end: true };
        generate(&mut session, &golden.tokens, &options, |_| std::ops::ControlFlow::Continue(())).unwrap().tokens
    };
    let one = text(1, 42);
    assert_eq!(one, text(2, 42));
    assert_eq!(one, text(5, 42));
    assert_ne!(one, text(2, 43), "another seed draws another text");
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let golden = &goldens()[0];
    let device = MlxDevice::cpu().unwrap();
    let model = Model::open(&golden.model, &device).unwrap();
    let trained = model.config().context_length;
    let longer = SessionOptions { context: Some(trained + 1), ..SessionOptions::default() };
    let error = Session::new(&model, longer).err().unwrap().to_string();
    assert!(error.contains(&format!("{}", trained + 1)) && error.contains(&format!("{trained}")), "{error}");
    let mut session = Session::new(&model, SessionOptions { context: Some(8), ..SessionOptions::default() }).unwrap();
    let error = session.prefill(&golden.tokens[..9]).unwrap_err().to_string();
    assert!(error.contains("9 tokens given after 0 in the context, which holds 8"), "{error}");
    let error = session.prefill(&[u32::MAX]).unwrap_err().to_string();
    assert!(error.contains("token id 4294967295 is out of range, the vocabulary has 160"), "{error}");
    session.feed(&golden.tokens[..8]).unwrap();
    session.first(SampleParams::default()).unwrap();
    assert!(matches!(session.decode(), Err(anymlx_lm::LmError::ContextExceeded { .. })));
}
