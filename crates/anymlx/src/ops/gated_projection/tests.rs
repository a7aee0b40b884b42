use anymlx_formats::quant::QuantType;
use anymlx_testing::{QuantizedActivations, Tolerance, assert_close, reference};

use super::*;
use crate::{
    DType,
    ops::{
        test_data::run,
        test_devices::devices,
        test_layers::{Matrix, Rows, activation_bits, encodings},
    },
};

#[test]
fn every_encoding_and_activation() {
    let activations = [
        (Activation::Silu, reference::Activation::Silu),
        (Activation::GeluTanh, reference::Activation::GeluTanh),
        (Activation::GeluErf, reference::Activation::GeluErf),
    ];
    for device in devices() {
        for encoding in encodings() {
            for (tokens, rows, columns) in [(1, 33, 512), (1, 1, 2304), (3, 17, 256)] {
                let [gate, up] = [2, 4].map(|seed| Matrix::new(&device, encoding, rows, columns, seed));
                let input = Rows::new(&device, tokens, columns, 3);
                for (activation, plain) in activations {
                    let output = device.zeros(DType::F32, [tokens, rows]).unwrap();
                    run(&device, |encoder| {
                        gated_projection(encoder, input.normed(), &gate.weight, &up.weight, &output, activation)
                    });
                    let (gates, ups) = (gate.project(&input.normed), up.project(&input.normed));
                    let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
                    let expected = reference::gated(plain, &gates, &ups);
                    let bits = activation_bits(&device, tokens);
                    let measured = QuantizedActivations::measure(bits, columns, &narrow(&input.normed), &gate.values);
                    // The error of one side is multiplied by the other side.
                    let largest = gates.iter().chain(&ups).fold(1.0_f64, |largest, value| largest.max(value.abs()));
                    let tolerance = Tolerance::for_quantized_activations(&measured).times(3.0 * largest);
                    let name = format!("gated {encoding:?} {activation:?} {tokens}x{rows}x{columns}");
                    assert_close(&name, &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
                }
            }
        }
    }
}

#[test]
fn different_encodings() {
    for device in devices() {
        let gate = Matrix::new(&device, QuantType::Q4_K.into(), 9, 256, 2);
        let up = Matrix::new(&device, QuantType::Q6_K.into(), 9, 256, 4);
        let input = Rows::new(&device, 1, 256, 3);
        let output = device.zeros(DType::F32, [1, 9]).unwrap();
        run(&device, |encoder| {
            gated_projection(encoder, input.plain(), &gate.weight, &up.weight, &output, Activation::Silu)
        });
        let expected =
            reference::gated(reference::Activation::Silu, &gate.project(&input.plain), &up.project(&input.plain));
        let plain: Vec<f32> = input.plain.iter().map(|&value| value as f32).collect();
        // The plain operations of GPUs take activations of 8 bits.
        let measured = QuantizedActivations::measure(8, 256, &plain, &gate.values);
        let tolerance = Tolerance::for_quantized_activations(&measured).times(8.0);
        assert_close("gated of two encodings", &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
    }
}
