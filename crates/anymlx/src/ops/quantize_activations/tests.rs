use anymlx_testing::Random;

use super::*;
use crate::{MlxDevice, ops::test_devices::devices};

/// The bytes that the device makes of `rows` rows.
fn quantized(device: &MlxDevice, values: &[f32], rows: usize, columns: usize) -> Vec<u8> {
    let input = device.buffer_from_slice(values, DType::F32, [rows, columns]).unwrap();
    let row_bytes = quantized_activation_bytes(1, columns).unwrap();
    let output = device.zeros(DType::U8, [rows, row_bytes]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    quantize_activations(&mut encoder, &input, &output).unwrap();
    encoder.commit_and_wait().unwrap();
    output.to_vec::<u8>().unwrap()
}

/// Aligned copies of one row's parts.
fn parts(bytes: &[u8], columns: usize, row: usize) -> (Vec<i8>, Vec<f32>, Vec<i16>) {
    let layout = QuantizedLayout::new(columns).unwrap();
    let bytes = &bytes[row * layout.row_bytes..(row + 1) * layout.row_bytes];
    let (quants, rest) = bytes.split_at(columns);
    let (scales, rest) = rest.split_at(4 * layout.groups);
    let sums = &rest[..4 * layout.groups];
    (
        quants.iter().map(|&quant| quant as i8).collect(),
        scales.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        sums.as_chunks().0.iter().map(|&bytes| i16::from_le_bytes(bytes)).collect(),
    )
}

#[test]
fn quants_are_the_nearest_and_sums_are_their_sums() {
    for device in devices() {
        for (rows, columns) in [(1, 32), (7, 96), (3, 640), (33, 256)] {
            let values = Random::new(5).normal_vec(rows * columns);
            let bytes = quantized(&device, &values, rows, columns);
            for row in 0..rows {
                let (quants, scales, sums) = parts(&bytes, columns, row);
                let values = &values[row * columns..(row + 1) * columns];
                for (group, values) in values.chunks(GROUP).enumerate() {
                    let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                    assert!((scales[group] - largest / 127.0).abs() <= f32::EPSILON * largest);
                    let quants = &quants[group * GROUP..(group + 1) * GROUP];
                    assert_eq!(quants.iter().map(|quant| quant.unsigned_abs()).max(), Some(127));
                    for (quant, value) in quants.iter().zip(values) {
                        let exact = f64::from(*value) * 127.0 / f64::from(largest);
                        assert!((f64::from(*quant) - exact).abs() <= 0.5 + 1e-5, "{quant} for {exact}");
                    }
                    for half in 0..2 {
                        let expected: i16 =
                            quants[half * 16..half * 16 + 16].iter().map(|&quant| i16::from(quant)).sum();
                        assert_eq!(sums[2 * group + half], expected);
                    }
                }
                assert!(scales[columns / GROUP..].iter().all(|scale| scale.to_bits() == 0));
                assert!(sums[columns / SUM_GROUP..].iter().all(|&sum| sum == 0));
            }
        }
    }
}

#[test]
fn every_level_makes_the_same_bytes() {
    let values = Random::new(6).uniform_vec(5 * 640, -4.0..4.0);
    let all: Vec<Vec<u8>> = devices().iter().map(|device| quantized(device, &values, 5, 640)).collect();
    assert!(all.iter().all(|bytes| bytes == &all[0]));
}

#[test]
fn halves_round_to_even() {
    let device = MlxDevice::cpu().unwrap();
    let mut values = vec![0.0; 32];
    values[..6].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]);
    let (quants, ..) = parts(&quantized(&device, &values, 1, 32), 32, 0);
    assert_eq!(&quants[..6], [127, 0, 2, 2, 0, -2]);
}

#[test]
fn unusual_values() {
    for device in devices() {
        let mut values = vec![0.0_f32; 4 * 32];
        values[32] = f32::NAN;
        values[64 + 5] = f32::NEG_INFINITY;
        values[96..].fill(1e-39);
        let (quants, scales, _) = parts(&quantized(&device, &values, 1, 128), 128, 0);
        assert!(quants[..32].iter().all(|&quant| quant == 0) && scales[0] == 0.0);
        assert!(scales[1].is_nan() && scales[2].is_nan());
        assert!(quants[96..].iter().all(|&quant| quant == 0) && scales[3] == 0.0);
    }
}

#[test]
fn bytes_are_counted_with_care() {
    assert_eq!(quantized_activation_bytes(3, 640), Some(3 * 832));
    assert_eq!(quantized_activation_bytes(1, 32), Some(192));
    assert_eq!(quantized_activation_bytes(1, 33), None);
    assert_eq!(quantized_activation_bytes(1, 0), None);
    assert_eq!(quantized_activation_bytes(usize::MAX / 64, 64), None);
    assert_eq!(quantized_activation_bytes(1, usize::MAX / 32 * 32), None);
    for columns in (32..8192).step_by(32) {
        assert_eq!(quantized_activation_bytes(1, columns).unwrap() / 64 % 2, 1);
    }
}

#[test]
fn errors_show_the_shapes() {
    let device = MlxDevice::cpu().unwrap();
    let mut encoder = device.command_encoder().unwrap();
    let input = device.zeros(DType::F32, [2, 33]).unwrap();
    let output = device.zeros(DType::U8, [2, 192]).unwrap();
    let error = quantize_activations(&mut encoder, &input, &output).unwrap_err().to_string();
    assert_eq!(error, "quantize_activations: 33 columns given, 8-bit activations need a multiple of 32");
    let input = device.zeros(DType::F32, [2, 64]).unwrap();
    let output = device.zeros(DType::U8, [2, 191]).unwrap();
    let error = quantize_activations(&mut encoder, &input, &output).unwrap_err().to_string();
    assert_eq!(error, "quantize_activations: output is [2, 191], needed [2, 192] for 64 columns");
}
