use anymlx_formats::quant::{QuantType, TensorType};
use anymlx_testing::{QuantizedActivations, Random, Tolerance, assert_close, reference};

use super::*;
use crate::{
    DType, MlxDevice,
    ops::{
        test_data::{floats, run},
        test_devices::devices,
        test_layers::{Matrix, NORM, Rows, activation_bits, encodings, odd_columns},
    },
};

/// Adds on the device, with and without a norm, and compares with the reference.
fn check(device: &MlxDevice, encoding: TensorType, tokens: usize, rows: usize, columns: usize) {
    let matrix = Matrix::new(device, encoding, rows, columns, (rows % 2) as u64);
    let input = Rows::new(device, tokens, columns, 3);
    let mut random = Random::new(4);
    let (residual, norm_weight) = (random.normal_vec(tokens * rows), random.normal_vec(rows));
    let norm_buffer = floats(device, &norm_weight, [rows]);
    let places = [0; 2].map(|_| device.zeros(DType::F32, [tokens, rows]).unwrap());
    let product = matrix.project(&input.plain);
    let params = reference::RmsNorm { eps: f64::from(NORM.epsilon), weight_offset: f64::from(NORM.weight_offset) };
    let plain: Vec<f32> = input.plain.iter().map(|&value| value as f32).collect();
    let measured = QuantizedActivations::measure(activation_bits(device, tokens), columns, &plain, &matrix.values);
    for normed in [false, true] {
        let added = if normed {
            let product: Vec<f32> = product.iter().map(|&value| value as f32).collect();
            reference::rms_norm(&product, &norm_weight, params)
        } else {
            product.clone()
        };
        let expected: Vec<f64> = residual.iter().zip(&added).map(|(&a, b)| f64::from(a) + b).collect();
        let stream = floats(device, &residual, [tokens, rows]);
        let post_norm = normed.then_some(PostNorm { weight: &norm_buffer, params: NORM, normed: &places[1] });
        let projection = Projection {
            weight: &matrix.weight,
            bias: matrix.bias.as_ref().map(|(buffer, _)| buffer),
            output: &places[0],
        };
        run(device, |encoder| project_add(encoder, input.plain(), projection, post_norm, &stream));
        // A norm multiplies what quantising left over by its weight and the inverse of the root.
        let tolerance = Tolerance::for_quantized_activations(&measured).times(if normed { 8.0 } else { 1.0 });
        let name = format!("project_add {encoding} {tokens}x{rows}x{columns} {}", device.info().backend.name());
        assert_close(&name, &stream.to_vec::<f32>().unwrap(), &expected, &tolerance);
    }
}

#[test]
fn every_encoding() {
    for device in devices() {
        for encoding in encodings() {
            for &columns in odd_columns(encoding) {
                for (tokens, rows) in [(1, 33), (1, 64), (3, 33)] {
                    check(&device, encoding, tokens, rows, columns);
                }
            }
        }
    }
}

#[test]
fn many_columns() {
    for device in devices() {
        for encoding in [QuantType::Q4_K, QuantType::Q6_K, QuantType::Q8_0] {
            for columns in [8192, 14_336] {
                check(&device, encoding.into(), 1, 7, columns);
            }
        }
        for encoding in encodings() {
            check(&device, encoding, 1, 7, 8192 + 256);
        }
    }
}
