use anymlx_testing::Random;
use half::f16;

use super::*;
use crate::ops::{
    test_data::{floats, refusal, run, try_run, zeros},
    test_devices::devices,
};

#[test]
fn rows_land_where_the_positions_say() {
    for device in devices() {
        for [tokens, kv_heads, head_dim, capacity] in [[1, 1, 1, 1], [7, 3, 33, 11], [5, 2, 256, 64], [3, 8, 64, 9]] {
            let v = Random::new(9).normal_vec(tokens * kv_heads * head_dim);
            let mut p: Vec<u32> = (0..tokens).map(|t| ((t * 5 + 3) % capacity) as u32).collect();
            if tokens > 3 {
                p[1] = p[3];
            }
            let values = floats(&device, &v, [tokens, kv_heads, head_dim]);
            let positions = device.buffer_from_slice(&p, DType::U32, [tokens]).unwrap();
            let cache = device.zeros(DType::F32, [kv_heads, capacity, head_dim]).unwrap();
            let half_cache = device.zeros(DType::F16, [kv_heads, capacity, head_dim]).unwrap();
            run(&device, |encoder| {
                kv_cache_write(encoder, &values, &cache, &positions)?;
                kv_cache_write(encoder, &values, &half_cache, &positions)
            });
            let mut expected = vec![0.0; kv_heads * capacity * head_dim];
            for (t, &position) in p.iter().enumerate() {
                for h in 0..kv_heads {
                    for d in 0..head_dim {
                        let at = (h * capacity + position as usize) * head_dim + d;
                        expected[at] = v[(t * kv_heads + h) * head_dim + d];
                    }
                }
            }
            assert_eq!(cache.to_vec::<f32>().unwrap(), expected);
            let expected: Vec<f16> = expected.iter().map(|&value| f16::from_f32(value)).collect();
            assert_eq!(half_cache.to_vec::<f16>().unwrap(), expected);
        }
    }
}

#[test]
fn a_position_outside_fails_and_writes_nothing() {
    for device in devices() {
        let values = floats(&device, &[1.0; 2 * 33], [2, 1, 33]);
        let positions = device.buffer_from_slice(&[0_u32, 4], DType::U32, [2]).unwrap();
        let whole = device.zeros(DType::F32, [8 * 33]).unwrap();
        let cache = whole.slice_view(0, 4 * 33).with_shape([1, 4, 33]).unwrap();
        let failed = try_run(&device, |encoder| kv_cache_write(encoder, &values, &cache, &positions)).unwrap_err();
        assert!(failed.to_string().contains("position 4 is outside the cache of 4 tokens"), "{failed}");
        assert!(cache.to_vec::<f32>().is_err(), "what failed work would have written cannot be read");
        let beyond = whole.slice_view(4 * 33 * 4, 4 * 33);
        assert_eq!(beyond.to_vec::<f32>().unwrap(), [0.0; 4 * 33]);
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (values, positions) = (zeros(DType::F32, [7, 3, 33]), zeros(DType::U32, [7]));
    let cache = zeros(DType::F16, [3, 9, 11]);
    assert_eq!(
        refusal(|e| kv_cache_write(e, &values, &cache, &positions)),
        "kv_cache_write: cache is [3, 9, 11], needed [3, 9, 33]"
    );
    let cache = zeros(DType::BF16, [3, 9, 33]);
    assert_eq!(
        refusal(|e| kv_cache_write(e, &values, &cache, &positions)),
        "kv_cache_write: cache is bf16, needed f16 or f32"
    );
    let cache = zeros(DType::F32, [3, 7, 33]);
    assert_eq!(
        refusal(|e| kv_cache_write(e, &values, &cache, &zeros(DType::U32, [6]))),
        "kv_cache_write: positions is [6], needed [7]"
    );
    assert!(
        refusal(|e| kv_cache_write(e, &cache.with_shape([3, 7, 33]).unwrap(), &cache, &zeros(DType::U32, [3])))
            .contains("needed")
    );
}
