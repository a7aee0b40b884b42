use anymlx_testing::{Random, Tolerance, assert_close, reference};

use super::*;
use crate::ops::{
    test_data::{floats, refusal, run, zeros},
    test_devices::devices,
};

#[test]
fn agrees_with_the_reference() {
    for device in devices() {
        for [rows, columns] in [[1, 1], [7, 33], [3, 640], [2, 20_011]] {
            let mut x: Vec<f32> = Random::new(4).normal_vec(rows * columns).iter().map(|x| x * 5.0).collect();
            if columns > 1 {
                x[1] = f32::NEG_INFINITY;
            }
            let input = floats(&device, &x, [rows, columns]);
            let output = device.zeros(DType::F32, [rows, columns]).unwrap();
            run(&device, |encoder| softmax(encoder, &input, &output));
            // Terms are at most 1 in sum: one of them is about 1 / columns.
            let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(columns).with_magnitude(1.0 / columns as f64);
            assert_close("softmax", &output.to_vec::<f32>().unwrap(), &reference::softmax(&x, columns), &tolerance);
        }
    }
}

#[test]
fn large_values_do_not_overflow_and_nothing_gives_nan() {
    for device in devices() {
        let input = floats(&device, &[3e38, 3e38, -3e38, 1.0], [2, 2]);
        let output = device.zeros(DType::F32, [2, 2]).unwrap();
        run(&device, |encoder| softmax(encoder, &input, &output));
        assert_eq!(output.to_vec::<f32>().unwrap(), [0.5, 0.5, 0.0, 1.0]);
        let input = floats(&device, &[f32::NEG_INFINITY; 4], [2, 2]);
        run(&device, |encoder| softmax(encoder, &input, &output));
        assert!(output.to_vec::<f32>().unwrap().iter().all(|value| value.is_nan()));
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (input, output) = (zeros(DType::F32, [7, 33]), zeros(DType::F32, [33, 7]));
    assert_eq!(refusal(|e| softmax(e, &input, &output)), "softmax: output is [33, 7], needed [7, 33]");
    assert!(refusal(|e| softmax(e, &input, &input)).contains("overlap"));
}
