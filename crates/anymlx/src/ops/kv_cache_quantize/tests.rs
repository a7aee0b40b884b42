use anymlx_formats::quant;
use anymlx_testing::Random;
use half::f16;

use super::*;
use crate::ops::{
    kv_cache_expand,
    test_data::{refusal, run, try_run, zeros},
    test_devices::devices,
};

/// What a cache of `encoding` makes of 32 values, in `f64`: the nearest of its levels.
fn rounded(encoding: QuantType, values: &[f64]) -> Vec<f64> {
    let extreme = values.iter().copied().fold(0.0, |most: f64, x| if x.abs() > most.abs() { x } else { most });
    let (scale, low, high) = match encoding {
        QuantType::Q8_0 => (extreme.abs() / 127.0, -127.0, 127.0),
        _ => (extreme / -8.0, -8.0, 7.0),
    };
    let level = |x: f64| if scale == 0.0 { 0.0 } else { (x / scale).round().clamp(low, high) };
    values.iter().map(|&x| level(x) * scale).collect()
}

#[test]
fn new_rows_are_quantised_and_rounded_and_old_ones_come_back() {
    for device in devices() {
        for encoding in ENCODINGS {
            for [kv_heads, capacity, head_dim] in [[1, 1, 32], [3, 11, 96], [2, 130, 256]] {
                let elements = kv_heads * capacity * head_dim;
                let v: Vec<f16> = Random::new(5).normal_vec(elements).into_iter().map(f16::from_f32).collect();
                let row_bytes = quantized_cache_row_bytes(encoding, head_dim).unwrap();
                let rows = device.buffer_from_slice(&v, DType::F16, [kv_heads, capacity, head_dim]).unwrap();
                let cache = device.zeros(DType::U8, [kv_heads, capacity, row_bytes]).unwrap();
                // Two of three rows, in two submissions.
                let (first, second): (Vec<u32>, Vec<u32>) =
                    (0..capacity as u32).filter(|p| p % 3 != 1).partition(|p| p % 2 == 0);
                for p in [&first, &second].into_iter().filter(|p| !p.is_empty()) {
                    let positions = device.buffer_from_slice(p, DType::U32, [p.len()]).unwrap();
                    run(&device, |encoder| kv_cache_quantize(encoder, &rows, &cache, encoding, &positions));
                }
                let found = rows.to_vec::<f16>().unwrap();
                let blocks = cache.to_vec::<u8>().unwrap();
                let mut stored = vec![0.0; elements];
                quant::dequantize(encoding, &blocks, &mut stored).unwrap();
                for row in 0..kv_heads * capacity {
                    let range = row * head_dim..(row + 1) * head_dim;
                    if row % capacity % 3 == 1 {
                        assert_eq!(found[range.clone()], v[range.clone()], "rows elsewhere stay");
                        assert!(stored[range].iter().all(|&x| x == 0.0), "blocks elsewhere stay");
                        continue;
                    }
                    for block in range.step_by(32).map(|first| first..first + 32) {
                        let exact: Vec<f64> = v[block.clone()].iter().map(|x| f64::from(x.to_f32())).collect();
                        let extreme = exact.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
                        let expected = rounded(encoding, &exact);
                        let step = if encoding == QuantType::Q8_0 { extreme / 127.0 } else { extreme / 8.0 };
                        for (at, expected) in block.zip(expected) {
                            // The scale is rounded to 16 bits; an element halfway between two levels may take either.
                            let slack = extreme / 1024.0;
                            let difference = (f64::from(stored[at]) - expected).abs();
                            let exact = f64::from(v[at].to_f32());
                            let tie = (f64::from(stored[at]) - exact).abs() <= step / 2.0 + slack;
                            assert!(difference <= slack || tie, "{encoding}: {} for {exact}, {expected}", stored[at]);
                            assert_eq!(found[at], f16::from_f32(stored[at]), "rows hold what the cache holds");
                        }
                    }
                }
                // Expanded into a fresh buffer, all that lies before a position comes back.
                let last = capacity as u32 - 1;
                let fresh = device.zeros(DType::F16, [kv_heads, capacity, head_dim]).unwrap();
                let positions = device.buffer_from_slice(&[last], DType::U32, [1]).unwrap();
                run(&device, |encoder| kv_cache_expand(encoder, &cache, &fresh, encoding, &positions, None));
                let expanded = fresh.to_vec::<f16>().unwrap();
                for (at, &value) in expanded.iter().enumerate() {
                    let position = at / head_dim % capacity;
                    let expected = if position < last as usize { stored[at] } else { 0.0 };
                    assert_eq!(value, f16::from_f32(expected), "position {position}");
                }
            }
        }
    }
}

#[test]
fn values_that_are_no_numbers_stay_recognisable() {
    for device in devices() {
        for encoding in ENCODINGS {
            let mut v = vec![f16::from_f32(1.0); 64];
            v[3] = f16::NAN;
            v[33] = f16::INFINITY;
            let rows = device.buffer_from_slice(&v, DType::F16, [1, 1, 64]).unwrap();
            let bytes = quantized_cache_row_bytes(encoding, 64).unwrap();
            let cache = device.zeros(DType::U8, [1, 1, bytes]).unwrap();
            let positions = device.buffer_from_slice(&[0_u32], DType::U32, [1]).unwrap();
            run(&device, |encoder| kv_cache_quantize(encoder, &rows, &cache, encoding, &positions));
            let rows = rows.to_vec::<f16>().unwrap();
            for block in rows.chunks(32) {
                assert!(block.iter().any(|x| !x.is_finite()), "{encoding}: {block:?}");
            }
        }
    }
}

#[test]
fn a_position_outside_fails() {
    for device in devices() {
        let rows = device.zeros(DType::F16, [1, 4, 32]).unwrap();
        let cache = device.zeros(DType::U8, [1, 4, 34]).unwrap();
        let positions = device.buffer_from_slice(&[0_u32, 4], DType::U32, [2]).unwrap();
        let failed = try_run(&device, |encoder| kv_cache_quantize(encoder, &rows, &cache, QuantType::Q8_0, &positions))
            .unwrap_err();
        assert!(failed.to_string().contains("position 4 is outside the cache of 4 tokens"), "{failed}");
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (rows, cache, positions) =
        (zeros(DType::F16, [2, 8, 64]), zeros(DType::U8, [2, 8, 68]), zeros(DType::U32, [3]));
    let refused = |rows: &MlxBuffer, cache: &MlxBuffer, encoding: QuantType| {
        refusal(|encoder| kv_cache_quantize(encoder, rows, cache, encoding, &positions))
    };
    assert_eq!(refused(&rows, &cache, QuantType::Q4_0), "kv_cache_quantize: cache is [2, 8, 68], needed [2, 8, 36]");
    assert_eq!(
        refused(&rows, &cache, QuantType::Q4_K),
        "kv_cache_quantize: heads of 64 dimensions in Q4_K, needed a multiple of 32 in Q8_0 or Q4_0"
    );
    assert_eq!(
        refused(&zeros(DType::F16, [2, 8, 33]), &cache, QuantType::Q8_0),
        "kv_cache_quantize: heads of 33 dimensions in Q8_0, needed a multiple of 32 in Q8_0 or Q4_0"
    );
    assert!(refused(&zeros(DType::F32, [2, 8, 64]), &cache, QuantType::Q8_0).contains("rows is f32, needed f16"));
}
