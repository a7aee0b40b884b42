use anymlx_testing::{Random, Tolerance, assert_close, reference};

use super::*;
use crate::{
    MlxDevice,
    ops::{
        copy,
        test_data::{floats, refusal, run, try_run, zeros},
        test_devices::{devices, metal_devices},
    },
};

struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    positions: Vec<u32>,
    params: AttentionParams,
    dtype: DType,
}

struct Data {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    /// Queries, and caches filled to the end; `f16` caches hold what `f16` can.
    fn data(&self) -> Data {
        let mut random = Random::new(11);
        let cached = self.kv_heads * self.capacity * self.head_dim;
        let mut rounded = |count| match self.dtype {
            DType::F16 => reference::to_f32(&random.normal_f16(count)),
            _ => random.normal_vec(count),
        };
        let (keys, values) = (rounded(cached), rounded(cached));
        Data { queries: random.normal_vec(self.positions.len() * self.heads * self.head_dim), keys, values }
    }

    fn cache(&self, device: &MlxDevice, values: &[f32]) -> MlxBuffer {
        let shape = [self.kv_heads, self.capacity, self.head_dim];
        let (from, to) = (floats(device, values, shape), device.zeros(self.dtype, shape).unwrap());
        run(device, |encoder| copy(encoder, &from, &to));
        to
    }

    fn compute(&self, device: &MlxDevice, data: &Data) -> Vec<f32> {
        let (keys, values) = (self.cache(device, &data.keys), self.cache(device, &data.values));
        let tokens = self.positions.len();
        let queries = floats(device, &data.queries, [tokens, self.heads, self.head_dim]);
        let positions = device.buffer_from_slice(&self.positions, DType::U32, [tokens]).unwrap();
        let output = device.zeros(DType::F32, [tokens, self.heads * self.head_dim]).unwrap();
        run(device, |encoder| attention(encoder, &queries, &keys, &values, &positions, &output, self.params));
        output.to_vec().unwrap()
    }

    /// `[kv_heads, capacity, head_dim]` as `[capacity, kv_heads, head_dim]`.
    fn by_position(&self, cache: &[f32]) -> Vec<f32> {
        let mut result = Vec::new();
        for position in 0..self.capacity {
            for head in 0..self.kv_heads {
                let at = (head * self.capacity + position) * self.head_dim;
                result.extend_from_slice(&cache[at..at + self.head_dim]);
            }
        }
        result
    }

    fn expected(&self, data: &Data) -> Vec<f64> {
        let (keys, values) = (self.by_position(&data.keys), self.by_position(&data.values));
        let token_len = self.heads * self.head_dim;
        let mut result = Vec::new();
        for (query, &position) in data.queries.chunks_exact(token_len).zip(&self.positions) {
            let params = reference::Attention {
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                first_position: position as usize,
                scale: self.params.scale.into(),
                causal: true,
                window: self.params.window,
                softcap: self.params.softcap.map(f64::from),
            };
            result.extend(reference::attention(query, &keys, &values, params));
        }
        result
    }

    /// Errors of the scores, of magnitude `scale * sqrt(head_dim)` and larger by some deviations,
    /// turn up in the weights; the values are of magnitude 1 and the weights sum to 1.
    fn tolerance(&self) -> Tolerance {
        let scores =
            Tolerance::for_dtype(DType::F32).reduced_over(self.head_dim).with_magnitude(f64::from(self.params.scale));
        scores.times(4.0) + Tolerance::for_dtype(DType::F32).reduced_over(64)
    }

    /// Matrix units take queries and weights rounded to `f16`.
    fn tolerance_on(&self, device: &MlxDevice) -> Tolerance {
        match (self.dtype, has_tiles(device)) {
            (DType::F16, true) => self.tolerance() + Tolerance::for_dtype(DType::F16).times(2.0),
            _ => self.tolerance(),
        }
    }

    fn check(&self) {
        self.check_on(&devices());
    }

    fn check_on(&self, devices: &[MlxDevice]) {
        let data = self.data();
        let expected = self.expected(&data);
        for device in devices {
            assert_close("attention", &self.compute(device, &data), &expected, &self.tolerance_on(device));
        }
    }
}

/// Many tokens by the matrix units of Apple's GPUs: heads of each size, the last simdgroup partly filled, windows, caps,
/// caches whose end is no multiple of 8, positions in any order.
#[test]
fn simdgroup_attention_agrees_with_the_reference() {
    let devices = metal_devices();
    for dtype in [DType::F32, DType::F16] {
        for ([heads, kv_heads, head_dim], tokens, first, capacity) in
            [([2, 1, 8], 17, 0, 17), ([4, 2, 64], 33, 5, 70), ([1, 1, 72], 16, 30, 47), ([2, 2, 256], 19, 40, 61)]
        {
            let positions: Vec<u32> = (first..first + tokens).collect();
            let params = plain(heads, kv_heads, head_dim, capacity, positions);
            Case { dtype, ..params }.check_on(&devices);
        }
        let mut windowed = plain(2, 1, 16, 50, (9..41).rev().collect());
        windowed.params = AttentionParams { window: Some(7), softcap: Some(3.0), ..windowed.params };
        Case { dtype, ..windowed }.check_on(&devices);
    }
}

#[test]
fn simdgroup_attention_refuses_positions_outside_the_cache() {
    for device in metal_devices() {
        let case = plain(1, 1, 8, 20, (1..21).collect());
        let (data, shape) = (case.data(), [1, 20, 8]);
        let cache = floats(&device, &data.keys, shape);
        let queries = floats(&device, &data.queries, [20, 1, 8]);
        let positions = device.buffer_from_slice(&case.positions, DType::U32, [20]).unwrap();
        let output = device.zeros(DType::F32, [20, 8]).unwrap();
        let result =
            try_run(&device, |encoder| attention(encoder, &queries, &cache, &cache, &positions, &output, case.params));
        let message = result.unwrap_err().to_string();
        assert!(message.contains("position 20 is outside the cache of 20 tokens"), "{message}");
    }
}

fn plain(heads: usize, kv_heads: usize, head_dim: usize, capacity: usize, positions: Vec<u32>) -> Case {
    let scale = 1.0 / (head_dim as f32).sqrt();
    let params = AttentionParams { scale, window: None, softcap: None };
    Case { heads, kv_heads, head_dim, capacity, positions, params, dtype: DType::F32 }
}

#[test]
fn one_token_agrees_with_the_reference() {
    for [heads, kv_heads, head_dim] in
        [[1, 1, 1], [3, 1, 33], [4, 1, 256], [9, 3, 64], [12, 2, 80], [5, 5, 11], [3, 3, 100], [2, 2, 200], [1, 1, 300]]
    {
        for (capacity, position) in [(1, 0), (7, 6), (300, 0), (300, 130), (700, 699)] {
            for dtype in [DType::F32, DType::F16] {
                Case { dtype, ..plain(heads, kv_heads, head_dim, capacity, vec![position]) }.check();
            }
        }
    }
}

#[test]
fn many_tokens_agree_with_the_reference() {
    for [heads, kv_heads, head_dim] in [[1, 1, 1], [3, 1, 33], [4, 1, 256], [4, 2, 64], [14, 2, 24], [5, 5, 11]] {
        for (first, tokens) in [(0, 7), (3, 33), (0, 70), (150, 130)] {
            for dtype in [DType::F32, DType::F16] {
                let positions = (first..first + tokens).collect();
                Case { dtype, ..plain(heads, kv_heads, head_dim, 300, positions) }.check();
            }
        }
    }
}

#[test]
fn windows_and_caps_agree_with_the_reference() {
    for positions in [vec![0], vec![299], (0..70).collect(), (200..300).collect::<Vec<u32>>()] {
        for window in [Some(1), Some(7), Some(64), Some(129), Some(1000), None] {
            for softcap in [None, Some(0.5)] {
                let params = AttentionParams { scale: 0.2, window, softcap };
                Case { params, dtype: DType::F16, ..plain(6, 2, 40, 300, positions.clone()) }.check();
            }
        }
    }
}

fn has_tiles(device: &MlxDevice) -> bool {
    device.native_texts().is_exactly_cuda(tiles::ARCHITECTURE)
}

/// The first GPU with the kernels for matrix units.
fn device_with_tiles() -> Option<MlxDevice> {
    let device = MlxDevice::cuda(0).ok().filter(has_tiles);
    if device.is_none() {
        eprintln!("skipped: no GPU of architecture {}", tiles::ARCHITECTURE);
    }
    device
}

#[test]
fn matrix_units_agree_with_the_reference() {
    let Some(device) = device_with_tiles() else { return };
    for (heads, kv_heads, head_dim) in [(1, 1, 64), (8, 2, 64), (4, 1, 128), (3, 3, 128), (4, 2, 256)] {
        let unordered = (0..400).map(|t| t * 37 % 500).collect();
        for positions in [(0..16).collect(), (0..200).collect(), (250..463).collect::<Vec<u32>>(), unordered] {
            for (window, softcap) in [(None, None), (Some(1), None), (Some(70), None), (Some(300), Some(0.5))] {
                let params = AttentionParams { scale: 0.1, window, softcap };
                let dtype = DType::F16;
                let case = Case { params, dtype, ..plain(heads, kv_heads, head_dim, 500, positions.clone()) };
                let data = case.data();
                let actual = case.compute(&device, &data);
                assert_close("attention", &actual, &case.expected(&data), &case.tolerance_on(&device));
            }
        }
    }
}

#[test]
fn matrix_units_look_at_nothing_else() {
    let Some(device) = device_with_tiles() else { return };
    let params = AttentionParams { scale: 0.1, window: Some(30), softcap: None };
    let case = Case { params, dtype: DType::F16, ..plain(4, 2, 64, 300, (200..240).collect()) };
    let data = case.data();
    let mut poisoned = Data { queries: data.queries.clone(), ..case.data() };
    for (index, value) in poisoned.keys.iter_mut().chain(&mut poisoned.values).enumerate() {
        if !(171..240).contains(&(index / 64 % 300)) {
            *value = f32::NAN;
        }
    }
    assert_eq!(case.compute(&device, &poisoned), case.compute(&device, &data));
}

#[test]
fn positions_may_be_in_any_order() {
    let mut positions: Vec<u32> = (0..90).map(|t| t * 37 % 300).collect();
    positions[4] = positions[5];
    Case { params: AttentionParams { scale: 0.2, window: Some(50), softcap: None }, ..plain(4, 2, 24, 300, positions) }
        .check();
}

/// Keys outside the window are not even looked at.
#[test]
fn what_lies_outside_does_not_count() {
    for tokens in [1, 40] {
        let positions: Vec<u32> = (200..200 + tokens).collect();
        let params = AttentionParams { scale: 0.2, window: Some(30), softcap: None };
        let case = Case { params, ..plain(4, 2, 24, 300, positions) };
        let data = case.data();
        let mut poisoned = Data { queries: data.queries.clone(), ..case.data() };
        let seen = 200 - 29..200 + tokens as usize;
        for (index, value) in poisoned.keys.iter_mut().chain(&mut poisoned.values).enumerate() {
            if !seen.contains(&(index / 24 % 300)) {
                *value = f32::NAN;
            }
        }
        for device in devices() {
            assert_eq!(case.compute(&device, &poisoned), case.compute(&device, &data));
        }
    }
}

/// The number of threads and the cutting of a prompt into calls change how work is spread.
#[test]
fn threads_and_chunks_do_not_matter() {
    let case = Case { dtype: DType::F16, ..plain(4, 1, 64, 300, (0..300).collect()) };
    let data = case.data();
    let results = [1, 2, 3].map(|threads| {
        let options = crate::CpuDeviceOptions { threads: Some(threads), ..Default::default() };
        case.compute(&MlxDevice::cpu_with(&options).unwrap(), &data)
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
    let device = MlxDevice::cpu().unwrap();
    for chunk in [1, 7, 64] {
        let mut pieces = Vec::new();
        for (positions, queries) in case.positions.chunks(chunk).zip(data.queries.chunks(chunk * 4 * 64)) {
            let piece = Case { dtype: DType::F16, ..plain(4, 1, 64, 300, positions.to_vec()) };
            let data = Data { queries: queries.to_vec(), keys: data.keys.clone(), values: data.values.clone() };
            pieces.extend(piece.compute(&device, &data));
        }
        let whole: Vec<f64> = reference::to_f64(&results[0]);
        assert_close("attention in chunks", &pieces, &whole, &case.tolerance());
    }
}

/// Scores so far apart that only one key counts, and so large that their exponentials overflow.
#[test]
fn large_scores_do_not_overflow() {
    for tokens in [1, 20] {
        let case = plain(2, 1, 16, 200, vec![199; tokens]);
        let mut data = case.data();
        data.keys.iter_mut().chain(&mut data.queries).for_each(|value| *value *= 100.0);
        let expected = case.expected(&data);
        for device in devices() {
            let actual = case.compute(&device, &data);
            let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(16).with_magnitude(1e4).times(4.0);
            assert_close("attention", &actual, &expected, &tolerance);
        }
    }
}

#[test]
fn a_position_outside_fails() {
    for tokens in [1, 20] {
        let case = plain(2, 1, 16, 200, vec![0; tokens]);
        let data = case.data();
        for device in devices() {
            let (keys, values) = (case.cache(&device, &data.keys), case.cache(&device, &data.values));
            let queries = floats(&device, &data.queries, [tokens, 2, 16]);
            let mut positions = vec![3; tokens];
            positions[tokens - 1] = 200_u32;
            let positions = device.buffer_from_slice(&positions, DType::U32, [tokens]).unwrap();
            let output = device.zeros(DType::F32, [tokens, 32]).unwrap();
            let failed = try_run(&device, |encoder| {
                attention(encoder, &queries, &keys, &values, &positions, &output, case.params)
            });
            let message = failed.unwrap_err().to_string();
            assert!(message.contains("position 200 is outside the cache of 200 tokens"), "{message}");
        }
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let queries = zeros(DType::F32, [7, 4, 33]);
    let cache = || zeros(DType::F16, [2, 9, 33]);
    let (keys, values, positions) = (cache(), cache(), zeros(DType::U32, [7]));
    let output = zeros(DType::F32, [7, 132]);
    let params = AttentionParams { scale: 1.0, window: None, softcap: None };
    let record = |keys: &MlxBuffer, values: &MlxBuffer, output: &MlxBuffer, params| {
        refusal(|e| attention(e, &queries, keys, values, &positions, output, params))
    };
    let wrong = zeros(DType::F16, [2, 9, 11]);
    assert_eq!(record(&wrong, &values, &output, params), "attention: key_cache is [2, 9, 11], needed [2, 9, 33]");
    assert_eq!(
        record(&keys, &zeros(DType::F32, [2, 9, 33]), &output, params),
        "attention: value_cache is f32, needed f16"
    );
    let three = zeros(DType::F16, [3, 9, 33]);
    assert_eq!(
        record(&three, &three, &output, params),
        "attention: 4 query heads, needed a multiple of the 3 key heads"
    );
    assert_eq!(record(&keys, &values, &queries, params), "attention: output is [7, 4, 33], needed [7, 132]");
    assert_eq!(
        record(&keys, &values, &output, AttentionParams { window: Some(0), ..params }),
        "attention: the window is 0, needed at least 1 (the token itself)"
    );
    assert!(record(&keys, &values, &output, AttentionParams { softcap: Some(0.0), ..params }).contains("positive"));
    let flat = queries.with_shape([7, 132]).unwrap();
    assert!(record(&keys, &values, &flat, params).contains("overlap"));
}
