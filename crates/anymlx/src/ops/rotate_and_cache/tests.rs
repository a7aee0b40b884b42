use anymlx_testing::{Random, Tolerance, assert_close, reference};
use half::f16;

use super::*;
use crate::{
    DType, MlxDevice,
    ops::{
        RopeLayout, rope,
        test_data::{floats, run, try_run},
        test_devices::devices,
        test_layers::rotate,
    },
};

#[derive(Debug, Clone, Copy)]
struct Case {
    tokens: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotary_dims: usize,
    layout: RopeLayout,
    normed: bool,
    cache: DType,
}

const CAPACITY: usize = 40;

/// Runs the fused operation and the plain ones on the reference's side.
fn check(device: &MlxDevice, case: Case) {
    let Case { tokens, heads, kv_heads, head_dim, rotary_dims, layout, normed, cache } = case;
    let mut random = Random::new(7);
    let [queries, keys, values] = [heads, kv_heads, kv_heads].map(|heads| random.normal_vec(tokens * heads * head_dim));
    let [query_norm, key_norm] = [0; 2].map(|_| random.normal_vec(head_dim));
    let positions: Vec<u32> = (0..tokens as u32).map(|token| (token * 7 + 3) % CAPACITY as u32).collect();
    let frequencies = rope::frequencies(10_000.0, rotary_dims, &rope::RopeScaling::None);
    let params = RmsNormParams { epsilon: 1e-6, weight_offset: 1.0 };
    let buffers = [(&queries, heads), (&keys, kv_heads), (&values, kv_heads)]
        .map(|(values, heads)| floats(device, values, [tokens, heads, head_dim]));
    let norms = [&query_norm, &key_norm].map(|norm| floats(device, norm, [head_dim]));
    let caches = [0; 2].map(|_| device.zeros(cache, [kv_heads, CAPACITY, head_dim]).unwrap());
    let position_buffer = device.buffer_from_slice(&positions, DType::U32, [tokens]).unwrap();
    let frequency_buffer = floats(device, &frequencies, [rotary_dims / 2]);
    let operands = RotateAndCache {
        queries: &buffers[0],
        keys: &buffers[1],
        values: &buffers[2],
        norms: normed.then_some(HeadNorms { query: &norms[0], key: &norms[1], params }),
        positions: &position_buffer,
        frequencies: &frequency_buffer,
        rope: RopeParams { layout, rotary_dims, magnitude: 1.25 },
        key_cache: &caches[0],
        value_cache: &caches[1],
    };
    run(device, |encoder| rotate_and_cache(encoder, operands));

    let rotated = |rows: &[f32], heads: usize, norm: &[f32]| {
        let plain = reference::RmsNorm { eps: 1e-6, weight_offset: 1.0 };
        let rows: Vec<f64> = match normed {
            true => reference::head_rms_norm(rows, heads, norm, plain),
            false => rows.iter().copied().map(f64::from).collect(),
        };
        rotate(&rows, heads, head_dim, &positions, &frequencies, layout, 1.25)
    };
    let name = format!("{case:?} {}", device.info().backend.name());
    let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(head_dim).times(4.0);
    let expected = rotated(&queries, heads, &query_norm);
    assert_close(&format!("queries {name}"), &buffers[0].to_vec::<f32>().unwrap(), &expected, &tolerance);
    let cached = |buffer: &MlxBuffer| -> Vec<f32> {
        match cache {
            DType::F16 => buffer.to_vec::<f16>().unwrap().into_iter().map(f32::from).collect(),
            _ => buffer.to_vec::<f32>().unwrap(),
        }
    };
    let expected_values: Vec<f64> = values.iter().copied().map(f64::from).collect();
    let tolerance = if cache == DType::F16 { Tolerance::for_dtype(DType::F16).times(2.0) } else { tolerance };
    for (rows, buffer) in [(rotated(&keys, kv_heads, &key_norm), &caches[0]), (expected_values, &caches[1])] {
        let mut expected = vec![0.0; kv_heads * CAPACITY * head_dim];
        for (token, &position) in positions.iter().enumerate() {
            for head in 0..kv_heads {
                let from = (token * kv_heads + head) * head_dim;
                let to = (head * CAPACITY + position as usize) * head_dim;
                expected[to..to + head_dim].copy_from_slice(&rows[from..from + head_dim]);
            }
        }
        assert_close(&format!("cache {name}"), &cached(buffer), &expected, &tolerance);
    }
}

#[test]
fn agrees_with_the_reference() {
    for device in devices() {
        for layout in [RopeLayout::NeoX, RopeLayout::Interleaved] {
            for normed in [false, true] {
                for cache in [DType::F16, DType::F32] {
                    for (tokens, heads, kv_heads, head_dim, rotary_dims) in
                        [(1, 4, 1, 64, 64), (1, 3, 3, 34, 20), (5, 4, 2, 16, 16), (3, 2, 1, 256, 128)]
                    {
                        let case = Case { tokens, heads, kv_heads, head_dim, rotary_dims, layout, normed, cache };
                        check(&device, case);
                    }
                }
            }
        }
    }
}

#[test]
fn a_position_past_the_cache_fails_the_submission() {
    for device in devices() {
        let [queries, keys, values] = [0; 3].map(|_| device.zeros(DType::F32, [1, 1, 16]).unwrap());
        let caches = [0; 2].map(|_| device.zeros(DType::F16, [1, 4, 16]).unwrap());
        let positions = device.buffer_from_slice(&[4_u32], DType::U32, [1]).unwrap();
        let frequencies = floats(&device, &[1.0; 8], [8]);
        let operands = RotateAndCache {
            queries: &queries,
            keys: &keys,
            values: &values,
            norms: None,
            positions: &positions,
            frequencies: &frequencies,
            rope: RopeParams { layout: RopeLayout::NeoX, rotary_dims: 16, magnitude: 1.0 },
            key_cache: &caches[0],
            value_cache: &caches[1],
        };
        let error = try_run(&device, |encoder| rotate_and_cache(encoder, operands)).unwrap_err();
        assert!(error.to_string().contains('4'), "{error}");
    }
}
