use anymlx_testing::{Random, reference};

use super::{philox::philox, *};
use crate::{
    MlxDevice,
    ops::{
        test_data::{floats, refusal, run, try_run, zeros},
        test_devices::devices,
    },
};

fn drawn(device: &MlxDevice, logits: &[f32], steps: std::ops::Range<u32>, params: SampleParams) -> Vec<u32> {
    let logits = floats(device, logits, [1, logits.len()]);
    let step = device.buffer_from_slice(&[steps.start], DType::U32, [1]).unwrap();
    let output = device.zeros(DType::U32, [1]).unwrap();
    let graph = device.record(|encoder| sample(encoder, &logits, &step, &output, params)).unwrap();
    let mut tokens = Vec::new();
    for number in steps {
        step.copy_from_slice(&[number]).unwrap();
        graph.replay().unwrap().wait().unwrap();
        tokens.push(output.to_vec::<u32>().unwrap()[0]);
    }
    tokens
}

/// Every draw falls where the reference distribution has the random number.
fn check(logits: &[f32], params: SampleParams, draws: u32) {
    let probabilities = reference::sampling_probabilities(
        logits,
        reference::Filters {
            temperature: Some(params.temperature.into()),
            top_k: Some(params.top_k).filter(|&k| k > 0),
            top_p: Some(params.top_p.into()),
            min_p: Some(params.min_p.into()),
        },
    );
    let mut sums = vec![0.0];
    for probability in &probabilities {
        sums.push(sums.last().unwrap() + probability);
    }
    for device in devices() {
        for (step, token) in drawn(&device, logits, 0..draws, params).into_iter().enumerate() {
            let [low, high, ..] = philox([step as u32, 0, 0, 0], [params.seed as u32, (params.seed >> 32) as u32]);
            let random = (f64::from(high) + f64::from(low) / 2f64.powi(32)) / 2f64.powi(32);
            let token = token as usize;
            assert!(probabilities[token] > 0.0, "{params:?}, step {step}: token {token} was filtered out");
            // Logits over temperature are rounded to f32, as are exponentials.
            let slack = 2e-6;
            assert!(
                sums[token] - slack <= random && random <= sums[token + 1] + slack,
                "{params:?}, step {step}: token {token} spans {:?}, the random number is {random}",
                &sums[token..token + 2]
            );
        }
    }
}

const OPEN: SampleParams = SampleParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 42 };

#[test]
fn draws_follow_the_reference() {
    for count in [1, 7, 33, 1000, 50_021] {
        let logits: Vec<f32> = Random::new(12).normal_vec(count).iter().map(|x| x * 3.0).collect();
        let draws = if count > 10_000 { 3 } else { 40 };
        for params in [
            OPEN,
            SampleParams { seed: u64::MAX, ..OPEN },
            SampleParams { temperature: 0.3, ..OPEN },
            SampleParams { temperature: 2.5, ..OPEN },
            SampleParams { top_k: 1, ..OPEN },
            SampleParams { top_k: 5, ..OPEN },
            SampleParams { top_k: 3000, ..OPEN },
            SampleParams { top_p: 0.0, ..OPEN },
            SampleParams { top_p: 0.6, ..OPEN },
            SampleParams { min_p: 0.1, ..OPEN },
            SampleParams { min_p: 1.0, ..OPEN },
            SampleParams { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, ..OPEN },
        ] {
            check(&logits, params, draws);
        }
    }
}

#[test]
fn ties_are_kept_or_cut_as_documented() {
    let logits: Vec<f32> = (0..200).map(|i| [1.0, -0.0, 0.0, 3.0][i % 4]).collect();
    check(&logits, SampleParams { top_k: 70, ..OPEN }, 60);
    check(&logits, SampleParams { top_p: 0.5, ..OPEN }, 60);
    check(&logits, SampleParams { top_k: 60, top_p: 0.97, min_p: 0.2, ..OPEN }, 60);
    check(&[0.5; 300], SampleParams { top_p: 0.1, ..OPEN }, 60);
    check(&[0.5; 300], SampleParams { top_k: 2, ..OPEN }, 60);
}

#[test]
fn masked_logits_are_never_drawn() {
    let mut logits = Random::new(13).normal_vec(500);
    for (index, logit) in logits.iter_mut().enumerate() {
        if index % 3 != 1 {
            *logit = if index % 3 == 0 { f32::NEG_INFINITY } else { f32::NAN };
        }
    }
    for device in devices() {
        for params in [OPEN, SampleParams { top_k: 400, ..OPEN }, SampleParams { top_p: 0.9, ..OPEN }] {
            assert!(drawn(&device, &logits, 0..30, params).iter().all(|token| token % 3 == 1));
        }
    }
}

#[test]
fn all_levels_and_threads_draw_the_same() {
    let logits: Vec<f32> = Random::new(14).normal_vec(262_144).iter().map(|x| x * 4.0).collect();
    for params in [
        SampleParams { temperature: 3.0, ..OPEN },
        SampleParams { top_p: 0.9, ..OPEN },
        SampleParams { temperature: 1.7, top_k: 64, top_p: 0.95, ..OPEN },
    ] {
        let results: Vec<_> = devices().iter().map(|device| drawn(device, &logits, 5..15, params)).collect();
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        assert!(results[0].iter().any(|token| *token != results[0][0]), "every draw gave {}", results[0][0]);
    }
}

#[test]
fn temperature_zero_is_argmax() {
    let logits = Random::new(15).normal_vec(1000);
    let params = SampleParams { temperature: 0.0, top_k: 3, ..OPEN };
    for device in devices() {
        assert_eq!(drawn(&device, &logits, 0..1, params), reference::argmax(&logits, 1000));
    }
}

#[test]
fn logits_without_a_finite_value_fail() {
    for device in devices() {
        for bad in [[f32::NAN, f32::NEG_INFINITY, f32::NAN], [0.0, f32::INFINITY, 0.0]] {
            let logits = floats(&device, &bad, [1, 3]);
            let step = device.zeros(DType::U32, [1]).unwrap();
            let output = device.zeros(DType::U32, [1]).unwrap();
            let failed = try_run(&device, |encoder| sample(encoder, &logits, &step, &output, OPEN));
            assert!(failed.unwrap_err().to_string().contains("needed a finite number"));
        }
    }
}

#[test]
fn the_step_counts_the_stream() {
    let device = MlxDevice::cpu().unwrap();
    let logits = floats(&device, &[0.0; 1000], [1, 1000]);
    let step = device.zeros(DType::U32, [1]).unwrap();
    let output = device.zeros(DType::U32, [1]).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..8 {
        run(&device, |encoder| {
            sample(encoder, &logits, &step, &output, OPEN)?;
            crate::ops::increment(encoder, &step)
        });
        tokens.push(output.to_vec::<u32>().unwrap()[0]);
    }
    assert_eq!(tokens, drawn(&device, &[0.0; 1000], 0..8, OPEN));
    assert_ne!(tokens, drawn(&device, &[0.0; 1000], 0..8, SampleParams { seed: 43, ..OPEN }));
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (logits, one, other) = (zeros(DType::F32, [2, 7]), zeros(DType::U32, [1]), zeros(DType::U32, [1]));
    assert_eq!(refusal(|e| sample(e, &logits, &one, &other, OPEN)), "sample: logits is [2, 7], needed [1, n]");
    let logits = zeros(DType::F32, [1, 14]);
    let record = |params| refusal(|e| sample(e, &logits, &one, &other, params));
    let cold = SampleParams { temperature: -1.0, ..OPEN };
    assert_eq!(record(cold), "sample: the temperature is -1, needed 0 or more");
    assert_eq!(record(SampleParams { top_p: 1.5, ..OPEN }), "sample: top_p is 1.5, needed 0 to 1");
    assert_eq!(record(SampleParams { min_p: f32::NAN, ..OPEN }), "sample: min_p is NaN, needed 0 to 1");
    assert!(refusal(|e| sample(e, &logits, &one, &one, OPEN)).contains("overlap"));
}
