//! Kernels that the tests of their operations do not reach.

use anymlx_testing::{Random, Tolerance, assert_close, reference};

use crate::{
    DType,
    ops::{
        AttentionParams, attention, copy,
        test_data::{floats, run},
        test_devices::devices,
    },
};

/// A key head for each query head, of each size that has a kernel.
#[test]
fn heads_of_every_size_attend() {
    let (capacity, position) = (37, 33_u32);
    for device in devices() {
        for (heads, head_dim, dtype) in [100, 200, 300]
            .into_iter()
            .zip([3, 2, 1])
            .flat_map(|(head_dim, heads)| [DType::F16, DType::F32].map(|dtype| (heads, head_dim, dtype)))
        {
            let mut random = Random::new(head_dim as u64);
            let queries = random.normal_vec(heads * head_dim);
            let cached = [0; 2].map(|_| {
                let values = random.normal_vec(heads * capacity * head_dim);
                values.into_iter().map(|value| half::f16::from_f32(value).to_f32()).collect::<Vec<_>>()
            });
            let shape = [heads, capacity, head_dim];
            let [keys, values] = cached.each_ref().map(|values| {
                let (from, to) = (floats(&device, values, shape), device.zeros(dtype, shape).unwrap());
                run(&device, |encoder| copy(encoder, &from, &to));
                to
            });
            let params = AttentionParams { scale: 1.0 / (head_dim as f32).sqrt(), window: None, softcap: None };
            let rows = floats(&device, &queries, [1, heads, head_dim]);
            let positions = device.buffer_from_slice(&[position], DType::U32, [1]).unwrap();
            let output = device.zeros(DType::F32, [1, heads * head_dim]).unwrap();
            run(&device, |encoder| attention(encoder, &rows, &keys, &values, &positions, &output, params));
            // The reference has the heads of a position side by side.
            let [keys, values] = cached.map(|values| {
                let row = |at: usize, head: usize| (head * capacity + at) * head_dim;
                let rows = (0..capacity).flat_map(|at| (0..heads).map(move |head| row(at, head)));
                rows.flat_map(|start| values[start..start + head_dim].to_vec()).collect::<Vec<f32>>()
            });
            let expected = reference::Attention {
                heads,
                kv_heads: heads,
                head_dim,
                first_position: position as usize,
                scale: params.scale.into(),
                causal: true,
                window: None,
                softcap: None,
            };
            let expected = reference::attention(&queries, &keys, &values, expected);
            let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(head_dim).times(4.0);
            let name = format!("attention {heads}x{head_dim} {dtype}");
            assert_close(&name, &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
        }
    }
}
