use anymlx_testing::{Random, Tolerance, assert_close, reference};

use super::*;
use crate::ops::{
    test_data::{floats, refusal, run, zeros},
    test_devices::devices,
};

const SHAPES: [[usize; 2]; 5] = [[1, 1], [7, 33], [3, 640], [33, 11], [5, 8191]];

#[test]
fn agree_with_the_reference() {
    for device in devices() {
        for [rows, columns] in SHAPES {
            let shape = [rows, columns];
            let mut random = Random::new(1);
            let (x, y) = (random.normal_vec(rows * columns), random.normal_vec(rows * columns));
            let b = random.normal_vec(columns);
            let (left, right, bias) =
                (floats(&device, &x, shape), floats(&device, &y, shape), floats(&device, &b, [columns]));
            let output = device.zeros(DType::F32, shape).unwrap();
            let close = |name: &str, buffer: &MlxBuffer, expected: Vec<f64>| {
                let tolerance = Tolerance::for_dtype(DType::F32);
                assert_close(name, &buffer.to_vec::<f32>().unwrap(), &expected, &tolerance);
            };
            run(&device, |encoder| add(encoder, &left, &right, &output));
            close("add", &output, reference::add(&x, &y));
            run(&device, |encoder| multiply(encoder, &left, &right, &output));
            close("multiply", &output, reference::multiply(&x, &y));
            let fresh = || floats(&device, &x, shape);
            let target = fresh();
            run(&device, |encoder| add_in_place(encoder, &target, &right));
            close("add_in_place", &target, reference::add(&x, &y));
            let target = fresh();
            run(&device, |encoder| add_bias(encoder, &target, &bias));
            close("add_bias", &target, reference::add_bias(&x, &b));
            let target = fresh();
            run(&device, |encoder| scale(encoder, &target, 0.3));
            close("scale", &target, reference::scale(&x, 0.3_f32.into()));
            for cap in [0.1, 1.0, 30.0] {
                let target = fresh();
                run(&device, |encoder| softcap(encoder, &target, cap));
                close("softcap", &target, reference::softcap(&x, cap.into()));
            }
        }
    }
}

#[test]
fn a_cap_holds_at_the_ends() {
    for device in devices() {
        let values = floats(&device, &[f32::INFINITY, -f32::MAX, 1e-20, -0.0, 1e9], [5]);
        run(&device, |encoder| softcap(encoder, &values, 30.0));
        assert_eq!(values.to_vec::<f32>().unwrap(), [30.0, -30.0, 1e-20, 0.0, 30.0]);
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (a, b) = (zeros(DType::F32, [7, 33]), zeros(DType::F32, [33, 7]));
    let half = zeros(DType::F16, [7, 33]);
    assert_eq!(refusal(|e| add(e, &a, &b, &a)), "add: right is [33, 7], needed [7, 33]");
    assert_eq!(refusal(|e| multiply(e, &a, &half, &a)), "multiply: right is f16, needed f32");
    assert_eq!(refusal(|e| add_bias(e, &a, &zeros(DType::F32, [7]))), "add_bias: bias is [7], needed [33]");
    assert_eq!(refusal(|e| softcap(e, &a, -1.0)), "softcap: the cap is -1, needed a positive number");
    assert!(refusal(|e| add(e, &a, &zeros(DType::F32, [7, 33]), &a)).contains("overlap"));
    assert!(refusal(|e| add_in_place(e, &a, &a)).contains("overlap"));
}
