use anymlx_formats::quant::{QuantType, TensorType};
use anymlx_testing::{QuantizedActivations, Tolerance, assert_close};

use super::*;
use crate::{
    DType, MlxDevice,
    ops::{
        test_data::{run, try_run},
        test_devices::devices,
        test_layers::{Matrix, Rows, activation_bits, encodings, odd_columns},
    },
};

fn tolerance(device: &MlxDevice, tokens: usize, input: &[f64], matrix: &Matrix) -> Tolerance {
    let input: Vec<f32> = input.iter().map(|&value| value as f32).collect();
    let columns = matrix.weight.columns();
    let bits = activation_bits(device, tokens);
    Tolerance::for_quantized_activations(&QuantizedActivations::measure(bits, columns, &input, &matrix.values))
}

/// Projects on the device and compares every output with the reference.
fn check(device: &MlxDevice, encodings: &[TensorType], rows: &[usize], tokens: usize, columns: usize) {
    let matrices: Vec<Matrix> = encodings
        .iter()
        .zip(rows)
        .enumerate()
        .map(|(index, (&encoding, &rows))| Matrix::new(device, encoding, rows, columns, 10 + index as u64))
        .collect();
    let input = Rows::new(device, tokens, columns, 3);
    for (form, values) in [(input.normed(), &input.normed), (input.plain(), &input.plain)] {
        let outputs: Vec<_> = rows.iter().map(|&rows| device.zeros(DType::F32, [tokens, rows]).unwrap()).collect();
        let projections: Vec<_> = matrices
            .iter()
            .zip(&outputs)
            .map(|(matrix, output)| Projection {
                weight: &matrix.weight,
                bias: matrix.bias.as_ref().map(|(buffer, _)| buffer),
                output,
            })
            .collect();
        run(device, |encoder| project(encoder, form, &projections));
        for (matrix, output) in matrices.iter().zip(&outputs) {
            let name = format!(
                "project {:?} {tokens}x{rows:?}x{columns} {}",
                matrix.weight.encoding(),
                device.info().backend.name()
            );
            let allowed = tolerance(device, tokens, values, matrix);
            assert_close(&name, &output.to_vec::<f32>().unwrap(), &matrix.project(values), &allowed);
        }
    }
}

#[test]
fn one_matrix_of_every_encoding() {
    for device in devices() {
        for encoding in encodings() {
            for &columns in odd_columns(encoding) {
                for rows in [1, 2, 33] {
                    check(&device, &[encoding], &[rows], 1, columns);
                }
            }
        }
    }
}

#[test]
fn three_matrices_of_the_same_and_of_different_encodings() {
    use QuantType::{Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};
    let sets: [[QuantType; 3]; 5] =
        [[Q4_K, Q4_K, Q4_K], [Q4_K, Q4_K, Q6_K], [Q5_0, Q5_0, Q8_0], [Q5_K, Q5_K, Q4_K], [Q6_K, Q4_K, Q8_0]];
    for device in devices() {
        for set in sets {
            for tokens in [1, 3] {
                check(&device, &set.map(TensorType::Quantized), &[67, 18, 17], tokens, 512);
            }
        }
    }
}

/// Each kernel of three matrices.
#[test]
fn three_matrices_of_every_encoding() {
    for device in devices() {
        for first in encodings() {
            for third in [first, QuantType::Q6_K.into(), QuantType::Q8_0.into()] {
                check(&device, &[first, first, third], &[3, 2, 1], 1, 256);
            }
        }
    }
}

#[test]
fn more_columns_than_a_threadgroup_holds_take_plain_operations() {
    for device in devices() {
        check(&device, &[QuantType::Q4_K.into()], &[5], 1, 8192 + 256);
    }
}

#[test]
fn the_sizes_must_fit() {
    for device in devices() {
        let matrix = Matrix::new(&device, QuantType::Q4_K.into(), 8, 256, 2);
        let input = Rows::new(&device, 1, 512, 3);
        let output = device.zeros(DType::F32, [1, 8]).unwrap();
        let projection = Projection { weight: &matrix.weight, bias: None, output: &output };
        let error = try_run(&device, |encoder| project(encoder, input.plain(), &[projection])).unwrap_err();
        assert!(error.to_string().contains("inner dimensions differ (512 vs 256)"), "{error}");
    }
}
