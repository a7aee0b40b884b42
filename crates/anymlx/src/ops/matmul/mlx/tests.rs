use anymlx_formats::mlx::{self, PackedMatrix};
use anymlx_testing::{QuantizedActivations, Random, Tolerance, assert_close, reference};

use super::*;
use crate::{
    DType, MlxDevice, MlxMatrix,
    ops::{
        Activation, MatmulInput, gated_matmul, gather_rows, gpu::mlx_layouts, quantize_activations,
        quantize_activations_refined, quantized_activation_bytes, test_devices::devices,
    },
};

/// A matrix of random codes and factors.
pub(in crate::ops) struct Matrix {
    layout: MlxType,
    rows: usize,
    columns: usize,
    packed: Vec<u8>,
    scales: Vec<u8>,
    biases: Option<Vec<u8>>,
    /// What they stand for.
    pub(in crate::ops) values: Vec<f32>,
}

impl Matrix {
    pub(in crate::ops) fn new(layout: MlxType, rows: usize, columns: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let groups = rows * columns / layout.group_len();
        let mut packed = random.bytes(groups * layout.group_bytes());
        let dtype = layout.scales();
        let floats = |values: Vec<f32>| {
            let mut bytes = vec![0; values.len() * dtype.size_of()];
            anymlx_formats::quant::quantize(dtype, &values, &mut bytes).unwrap();
            bytes
        };
        // Of the size of the codes' reciprocal, so that weights have the size of one.
        let step = 2.0 / (1_u32 << layout.quantization().bits()) as f32;
        let (scales, biases) = match layout.quantization().mode() {
            Mode::Affine => {
                let scales = random.normal_vec(groups).iter().map(|value| value * step).collect();
                (floats(scales), Some(floats(random.normal_vec(groups))))
            }
            Mode::Mxfp4 => (random.bytes(groups).iter().map(|byte| 123 + byte % 4).collect(), None),
            Mode::Nvfp4 => (random.bytes(groups).iter().map(|byte| byte % 0x38).collect(), None),
            Mode::Mxfp8 => {
                // Not a number is no weight.
                packed.iter_mut().filter(|code| **code & 0x7f == 0x7f).for_each(|code| *code ^= 1);
                (random.bytes(groups).iter().map(|byte| 117 + byte % 4).collect(), None)
            }
        };
        let mut values = vec![0.0; rows * columns];
        let matrix = PackedMatrix {
            quantization: layout.quantization(),
            columns,
            packed: &packed,
            scales: &scales,
            scale_type: dtype,
            biases: biases.as_deref(),
        };
        mlx::dequantize(&matrix, &mut values).unwrap();
        Self { layout, rows, columns, packed, scales, biases, values }
    }

    pub(in crate::ops) fn weight(&self, device: &MlxDevice) -> Weight {
        let buffer = |bytes: &[u8], dtype: DType| {
            device.buffer_from_slice(bytes, dtype, [bytes.len() / dtype.size_of()]).unwrap()
        };
        let matrix = MlxMatrix {
            packed: buffer(&self.packed, DType::U32),
            scales: buffer(&self.scales, self.layout.scales()),
            biases: self.biases.as_deref().map(|bytes| buffer(bytes, self.layout.scales())),
            quantization: self.layout.quantization(),
        };
        Weight::mlx(matrix, self.rows, self.columns).unwrap()
    }

    fn largest(&self) -> f64 {
        self.values.iter().fold(1.0, |most, value| f64::from(value.abs()).max(most))
    }
}

/// Rows of 8-bit activations for each token; 0 for `f32` activations.
fn product(device: &MlxDevice, matrix: &Matrix, input: &[f32], terms: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let tokens = input.len() / matrix.columns;
    let input = device.buffer_from_slice(input, DType::F32, [tokens, matrix.columns]).unwrap();
    let output = device.zeros(DType::F32, [tokens, matrix.rows]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    let row_bytes = quantized_activation_bytes(1, matrix.columns).unwrap();
    let quantized = device.zeros(DType::U8, [terms.max(1) * tokens, row_bytes]).unwrap();
    match terms {
        0 => {}
        1 => quantize_activations(&mut encoder, &input, &quantized).unwrap(),
        _ => quantize_activations_refined(&mut encoder, &input, &quantized).unwrap(),
    }
    let bias = bias.map(|bias| device.buffer_from_slice(bias, DType::F32, [matrix.rows]).unwrap());
    let form = MatmulInput { values: &input, quantized: (terms > 0).then_some(&quantized) };
    crate::ops::matmul(&mut encoder, form, &matrix.weight(device), &output, bias.as_ref()).unwrap();
    encoder.commit_and_wait().unwrap();
    output.to_vec().unwrap()
}

#[test]
fn products_agree_with_the_reference() {
    for device in devices() {
        let on_host = matches!(device.info().backend, crate::BackendKind::Cpu | crate::BackendKind::Trace);
        for layout in mlx_layouts() {
            for (tokens, rows, columns) in
                [(1, 1, 128), (1, 33, 256), (2, 17, 640), (3, 16, 128), (9, 33, 384), (40, 19, 256)]
            {
                let matrix = Matrix::new(layout, rows, columns, (rows + columns) as u64);
                let input = Random::new(tokens as u64).normal_vec(tokens * columns);
                let bias = Random::new(5).normal_vec(rows);
                let shape = reference::MatmulShape { m: tokens, n: rows, k: columns };
                let mut expected = reference::matmul(&input, &matrix.values, shape);
                for row in expected.chunks_mut(rows) {
                    row.iter_mut().zip(&bias).for_each(|(value, bias)| *value += f64::from(*bias));
                }
                for terms in [0, 1, 2] {
                    // GPUs quantise activations in one step.
                    if terms == 2 && !on_host {
                        continue;
                    }
                    let bits = if terms == 1 { 8 } else { 15 };
                    let tolerance = if terms == 0 || !has_integer_codes(layout) {
                        Tolerance::for_dtype(DType::F32).reduced_over(columns).with_magnitude(matrix.largest())
                    } else {
                        let measured = QuantizedActivations::measure(bits, columns, &input, &matrix.values);
                        Tolerance::for_quantized_activations(&measured)
                    };
                    let name = format!("{layout} {tokens}x{rows}x{columns} in {terms} steps, {}", device.name());
                    assert_close(&name, &product(&device, &matrix, &input, terms, Some(&bias)), &expected, &tolerance);
                }
            }
        }
    }
}

#[test]
fn rows_of_a_table_are_those_of_the_reference() {
    for device in devices() {
        for layout in mlx_layouts() {
            let matrix = Matrix::new(layout, 7, 256, 3);
            let chosen = [6_u32, 0, 3, 3, 5];
            let ids = device.buffer_from_slice(&chosen, DType::U32, [5]).unwrap();
            let output = device.zeros(DType::F32, [5, 256]).unwrap();
            let mut encoder = device.command_encoder().unwrap();
            gather_rows(&mut encoder, &matrix.weight(&device), &ids, &output, 1.5).unwrap();
            encoder.commit_and_wait().unwrap();
            let expected = reference::gather(&matrix.values, 256, &chosen, 1.5);
            let tolerance = Tolerance::for_dtype(DType::F32).with_magnitude(matrix.largest());
            assert_close(&format!("{layout}"), &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
        }
    }
}

#[test]
fn gated_products_are_the_plain_ones_and_the_activation() {
    for device in devices() {
        let layout = mlx_layouts()[3];
        let (gate, up) = (Matrix::new(layout, 33, 128, 1), Matrix::new(layout, 33, 128, 2));
        let input = Random::new(4).normal_vec(2 * 128);
        let buffer = device.buffer_from_slice(&input, DType::F32, [2, 128]).unwrap();
        let output = device.zeros(DType::F32, [2, 33]).unwrap();
        let mut encoder = device.command_encoder().unwrap();
        let weights = [gate.weight(&device), up.weight(&device)];
        gated_matmul(&mut encoder, (&buffer).into(), &weights[0], &weights[1], &output, Activation::Silu).unwrap();
        encoder.commit_and_wait().unwrap();
        let shape = reference::MatmulShape { m: 2, n: 33, k: 128 };
        let [gate, up] = [&gate, &up].map(|matrix| reference::matmul(&input, &matrix.values, shape));
        let expected: Vec<f64> = gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
        let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(128).with_magnitude(30.0);
        assert_close("gated", &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
    }
}

#[test]
fn buffers_that_do_not_fit_are_refused_with_what_is_needed() {
    let device = MlxDevice::cpu().unwrap();
    let matrix = Matrix::new(mlx_layouts()[3], 4, 128, 1);
    let good = matrix.weight(&device);
    let parts = |scales: usize, biases: bool| MlxMatrix {
        packed: good.data().clone(),
        scales: device.zeros(DType::BF16, [scales]).unwrap(),
        biases: biases.then(|| device.zeros(DType::BF16, [8]).unwrap()),
        quantization: matrix.layout.quantization(),
    };
    let error = Weight::mlx(parts(7, true), 4, 128).unwrap_err().to_string();
    assert!(error.contains("scales need 16 bytes of bf16, given 14 of bf16"), "{error}");
    let error = Weight::mlx(parts(8, false), 4, 128).unwrap_err().to_string();
    assert!(error.contains("the mode needs them, biases are not given"), "{error}");
    let error = Weight::mlx(parts(8, true), 4, 100).unwrap_err().to_string();
    assert!(error.contains("come in blocks of 64"), "{error}");
}
