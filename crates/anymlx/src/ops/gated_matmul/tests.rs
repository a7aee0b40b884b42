use anymlx_formats::quant::{QuantType, TensorType};
use anymlx_testing::{Random, Tolerance, assert_close};

use super::*;
use crate::{
    DType, MlxDevice,
    ops::{
        gated_activation, gpu, matmul, quantize_activations, quantized_activation_bytes,
        test_data::{stored_weights, weight_of},
        test_devices::devices,
    },
};

fn weight(device: &MlxDevice, encoding: TensorType, rows: usize, columns: usize, seed: u64) -> Weight {
    // A gate of unit variance reaches both branches of the activation.
    let bytes = stored_weights(encoding, rows * columns, 1.0 / (columns as f32).sqrt(), seed);
    weight_of(device, encoding, &bytes, rows, columns)
}

/// What the input has beside its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Values,
    Quantized,
}

/// The fused result, and that of the plain operations.
fn both_ways(
    device: &MlxDevice,
    encodings: [TensorType; 2],
    (tokens, rows, columns): (usize, usize, usize),
    activation: Activation,
    form: Form,
) -> (Vec<f32>, Vec<f64>) {
    let gate = weight(device, encodings[0], rows, columns, 1);
    let up = weight(device, encodings[1], rows, columns, 2);
    let values = Random::new(3).normal_vec(tokens * columns);
    let values = device.buffer_from_slice(&values, DType::F32, [tokens, columns]).unwrap();
    let zeros = || device.zeros(DType::F32, [tokens, rows]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    let bytes = quantized_activation_bytes(1, columns).filter(|_| form == Form::Quantized);
    let quantized = bytes.map(|bytes| {
        let quantized = device.zeros(DType::U8, [tokens, bytes]).unwrap();
        quantize_activations(&mut encoder, &values, &quantized).unwrap();
        quantized
    });
    // A dense matrix makes both products use the values.
    let both_quantized = encodings.iter().all(|encoding| matches!(encoding, TensorType::Quantized(_)));
    let composite_form = MatmulInput { values: &values, quantized: quantized.as_ref().filter(|_| both_quantized) };
    let (gates, ups, expected, output) = (zeros(), zeros(), zeros(), zeros());
    matmul(&mut encoder, composite_form, &gate, &gates, None).unwrap();
    matmul(&mut encoder, composite_form, &up, &ups, None).unwrap();
    gated_activation(&mut encoder, &gates, &ups, &expected, activation).unwrap();
    let form = MatmulInput { values: &values, quantized: quantized.as_ref() };
    gated_matmul(&mut encoder, form, &gate, &up, &output, activation).unwrap();
    encoder.commit_and_wait().unwrap();
    let expected = expected.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    (output.to_vec().unwrap(), expected)
}

#[test]
fn agrees_with_the_plain_operations() {
    let pairs: [[TensorType; 2]; 5] = [
        [QuantType::Q5_0.into(), QuantType::Q5_0.into()],
        [QuantType::Q4_K.into(), QuantType::Q6_K.into()],
        [QuantType::Q8_0.into(), QuantType::Q4_0.into()],
        [DType::F16.into(), QuantType::Q4_K.into()],
        [DType::F32.into(), DType::BF16.into()],
    ];
    for device in devices() {
        for encodings in pairs {
            for shape in [(1, 1, 256), (1, 33, 512), (4, 17, 256), (7, 33, 512), (40, 65, 256)] {
                for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
                    let (output, expected) = both_ways(&device, encodings, shape, activation, Form::Quantized);
                    let name = format!("gated {encodings:?} {shape:?} {activation:?} {}", device.cpu_level());
                    assert_close(&name, &output, &expected, &Tolerance::for_dtype(DType::F32));
                }
            }
        }
    }
}

/// Each kernel that GPUs have: of few tokens, in both forms.
#[test]
fn every_encoding_agrees_with_the_plain_operations() {
    for device in devices() {
        for encoding in gpu::file_encodings() {
            for (tokens, form) in [1, 2, 3, 7].into_iter().flat_map(|n| [(n, Form::Values), (n, Form::Quantized)]) {
                let shape = (tokens, 5, 256);
                let (output, expected) = both_ways(&device, [encoding; 2], shape, Activation::Silu, form);
                let largest = expected.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
                let name = format!("gated {encoding:?} {tokens} {form:?} {}", device.cpu_level());
                assert_close(&name, &output, &expected, &Tolerance::for_dtype(DType::F32).times(largest));
            }
        }
    }
}

#[test]
fn columns_that_8_bit_activations_cannot_have() {
    for device in devices() {
        let encodings = [DType::F16.into(), DType::F32.into()];
        let (output, expected) = both_ways(&device, encodings, (3, 33, 11), Activation::Silu, Form::Quantized);
        assert_close("gated 3x33x11", &output, &expected, &Tolerance::for_dtype(DType::F32));
    }
}

#[test]
fn errors_show_both_shapes() {
    let device = MlxDevice::cpu().unwrap();
    let gate = weight(&device, DType::F32.into(), 64, 32, 1);
    let up = weight(&device, DType::F32.into(), 32, 32, 1);
    let input = device.zeros(DType::F32, [2, 32]).unwrap();
    let output = device.zeros(DType::F32, [2, 64]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    let error = gated_matmul(&mut encoder, (&input).into(), &gate, &up, &output, Activation::Silu).unwrap_err();
    assert_eq!(error.to_string(), "gated_matmul: up is [32, 32], gate is [64, 32]");
}
