use anymlx_testing::{Random, Tolerance, assert_close, reference};

use super::*;
use crate::ops::{
    test_data::{floats, refusal, run, zeros},
    test_devices::devices,
};

fn of_reference(activation: Activation) -> reference::Activation {
    match activation {
        Activation::Silu => reference::Activation::Silu,
        Activation::GeluTanh => reference::Activation::GeluTanh,
        Activation::GeluErf => reference::Activation::GeluErf,
    }
}

#[test]
fn agrees_with_the_reference() {
    for device in devices() {
        for [rows, columns] in [[1, 1], [7, 33], [5, 2048], [3, 8191]] {
            let mut random = Random::new(2);
            let g: Vec<f32> = random.normal_vec(rows * columns).iter().map(|x| x * 3.0).collect();
            let u = random.normal_vec(rows * columns);
            let (gate, up) = (floats(&device, &g, [rows, columns]), floats(&device, &u, [rows, columns]));
            let output = device.zeros(DType::F32, [rows, columns]).unwrap();
            for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
                run(&device, |encoder| gated_activation(encoder, &gate, &up, &output, activation));
                let expected = reference::gated(of_reference(activation), &g, &u);
                let tolerance = Tolerance::for_dtype(DType::F32);
                assert_close("gated_activation", &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
            }
        }
    }
}

#[test]
fn far_from_zero_it_is_the_gate_or_nothing() {
    for device in devices() {
        let (gate, up) = (floats(&device, &[1e4, -1e4, 200.0, -200.0], [4]), floats(&device, &[1.0; 4], [4]));
        let output = device.zeros(DType::F32, [4]).unwrap();
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
            run(&device, |encoder| gated_activation(encoder, &gate, &up, &output, activation));
            assert_eq!(output.to_vec::<f32>().unwrap(), [1e4, 0.0, 200.0, 0.0], "{activation:?}");
        }
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (gate, up) = (zeros(DType::F32, [7, 33]), zeros(DType::F32, [7, 11]));
    let message = refusal(|e| gated_activation(e, &gate, &up, &gate, Activation::Silu));
    assert_eq!(message, "gated_activation: up is [7, 11], needed [7, 33]");
    let up = zeros(DType::F32, [7, 33]);
    assert!(refusal(|e| gated_activation(e, &gate, &up, &up, Activation::Silu)).contains("overlap"));
}
