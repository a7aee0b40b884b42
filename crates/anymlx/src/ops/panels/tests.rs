use anymlx_formats::quant;
use anymlx_testing::Random;
use half::bf16;

use super::*;
use crate::{
    MlxDevice,
    ops::{
        gpu,
        matmul::mlx::tests::Matrix,
        test_data::{floats, run, stored_weights, weight_of},
        test_devices::devices,
    },
};

/// The devices whose kernels run from their texts.
fn gpus() -> impl Iterator<Item = MlxDevice> {
    devices().into_iter().filter(MlxDevice::runs_gpu_kernels)
}

/// Element (`row`, `column`) of panels, found by the layout's description.
fn element(panels: &[u8], shape: PanelShape, row: usize, column: usize) -> f32 {
    let (panel, within) = (column / WIDTH, column % WIDTH);
    let place = (within / 8) ^ (row % 8);
    let at = (panel * shape.stride + row) * 2 * WIDTH + 16 * place + 2 * (within % 8);
    bf16::from_le_bytes([panels[at], panels[at + 1]]).to_f32()
}

/// Panels full of what no test expects.
fn room(device: &MlxDevice, shape: PanelShape) -> MlxBuffer {
    let bytes = vec![0x7f_u8; shape.byte_len().unwrap()];
    device.buffer_from_slice(&bytes, DType::U8, [bytes.len()]).unwrap()
}

/// The weight as the product sees it: `q d - m` in `f32`, rounded to bf16. The scale and minimum of a block may be
/// rounded once more on the way.
fn near(actual: f32, expected: f32) -> bool {
    let size = expected.abs().max(0.05);
    (actual - expected).abs() <= size / 128.0
}

#[test]
fn every_encoding_is_unpacked() {
    for encoding in gpu::file_encodings() {
        let block = encoding.block_len();
        for (rows, columns) in [(1, block), (7, 3 * block), (33, 1024 + block)] {
            let bytes = stored_weights(encoding, rows * columns, 1.0, rows as u64);
            let mut expected = vec![0.0; rows * columns];
            quant::dequantize(encoding, &bytes, &mut expected).unwrap();
            for device in gpus() {
                let weight = weight_of(&device, encoding, &bytes, rows, columns);
                check_weight(&device, &weight, &expected);
            }
        }
    }
}

#[test]
fn every_layout_of_mlx_is_unpacked() {
    for layout in gpu::mlx_layouts() {
        for (rows, columns) in [(1, 128), (7, 384), (33, 1024 + 128)] {
            let matrix = Matrix::new(layout, rows, columns, rows as u64);
            for device in gpus() {
                check_weight(&device, &matrix.weight(&device), &matrix.values);
            }
        }
    }
}

/// The panels of `weight`, which stands for `expected`.
fn check_weight(device: &MlxDevice, weight: &Weight, expected: &[f32]) {
    let (check, encoding, rows, columns) = (Check::new("panels"), weight.encoding(), weight.rows(), weight.columns());
    // Alone, and as the second of two interleaved matrices.
    for (interleaved, first) in [(1, 0), (2, 8)] {
        let shape = PanelShape::of(interleaved * rows.next_multiple_of(GROUP), columns);
        let panels = room(device, shape);
        let place = PanelPlace { first, interleaved };
        run(device, |encoder| write_weight(encoder, check, weight, &panels, shape, place));
        let panels: Vec<u8> = panels.to_vec().unwrap();
        for row in 0..rows.next_multiple_of(GROUP) {
            let to = row / GROUP * GROUP * interleaved + first + row % GROUP;
            for column in 0..columns.next_multiple_of(WIDTH) {
                let inside = row < rows && column < columns;
                let expected = if inside { expected[row * columns + column] } else { 0.0 };
                let actual = element(&panels, shape, to, column);
                assert!(near(actual, expected), "{encoding} ({row}, {column}): {actual} for {expected}");
            }
        }
    }
}

#[test]
fn rows_are_rounded_and_normed() {
    let check = Check::new("panels");
    for (rows, columns) in [(1, 1), (7, 33), (9, 64), (33, 520)] {
        let mut random = Random::new(columns as u64);
        let (values, weight) = (random.normal_vec(rows * columns), random.normal_vec(columns));
        let params = RmsNormParams { epsilon: 1e-5, weight_offset: 1.0 };
        for device in gpus() {
            let input = floats(&device, &values, [rows, columns]);
            let weights = floats(&device, &weight, [columns]);
            for normed in [false, true] {
                let shape = PanelShape::of(rows, columns);
                let panels = room(&device, shape);
                let norm = normed.then_some(PanelNorm { weight: &weights, params });
                run(&device, |encoder| write_rows(encoder, check, &input, norm, &panels, shape));
                let panels: Vec<u8> = panels.to_vec().unwrap();
                for row in 0..rows {
                    let own = &values[row * columns..(row + 1) * columns];
                    let mean = own.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / columns as f64;
                    let factor = 1.0 / (mean + 1e-5).sqrt();
                    for column in 0..columns.next_multiple_of(WIDTH) {
                        let expected = match own.get(column).zip(weight.get(column)) {
                            None => 0.0,
                            Some((&x, &w)) if normed => (f64::from(x) * factor * (f64::from(w) + 1.0)) as f32,
                            Some((&x, _)) => x,
                        };
                        let actual = element(&panels, shape, row, column);
                        assert!(near(actual, expected), "({row}, {column}): {actual} for {expected}");
                    }
                }
            }
        }
    }
}
