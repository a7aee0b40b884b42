//! What tests of the fused steps of a layer share: operands of one kind on a device, and the plain reference.

use anymlx_formats::quant::{self, TensorType};
use anymlx_testing::{Random, reference};

use super::{
    LayerInput, MatmulInput, RmsNormParams, RopeLayout, gpu,
    matmul::mlx,
    quantized_activation_bytes,
    test_data::{floats, stored_weights, weight_of},
};
use crate::{DType, MlxBuffer, MlxDevice, Weight};

pub(crate) const NORM: RmsNormParams = RmsNormParams { epsilon: 1e-5, weight_offset: 1.0 };

/// A matrix and what it stands for.
pub(crate) struct Matrix {
    pub(crate) weight: Weight,
    pub(crate) values: Vec<f32>,
    pub(crate) bias: Option<(MlxBuffer, Vec<f32>)>,
}

impl Matrix {
    pub(crate) fn new(device: &MlxDevice, encoding: TensorType, rows: usize, columns: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (weight, values) = match encoding {
            TensorType::Mlx(layout) => {
                let matrix = mlx::tests::Matrix::new(layout, rows, columns, seed);
                (matrix.weight(device), matrix.values)
            }
            _ => {
                let bytes = stored_weights(encoding, rows * columns, 1.0 / (columns as f32).sqrt(), seed);
                let mut values = vec![0.0; rows * columns];
                quant::dequantize(encoding, &bytes, &mut values).unwrap();
                (weight_of(device, encoding, &bytes, rows, columns), values)
            }
        };
        let bias = (seed % 2 == 1).then(|| {
            let bias = random.normal_vec(rows);
            (floats(device, &bias, [rows]), bias)
        });
        Self { weight, values, bias }
    }

    /// `input weight^T + bias`.
    pub(crate) fn project(&self, input: &[f64]) -> Vec<f64> {
        let (n, k) = (self.weight.rows(), self.weight.columns());
        let mut output = reference::matmul(input, &self.values, reference::MatmulShape { m: input.len() / k, n, k });
        if let Some((_, bias)) = &self.bias {
            output.chunks_mut(n).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += f64::from(*b)));
        }
        output
    }
}

/// Rows of activations with places for what is made of them.
pub(crate) struct Rows {
    pub(crate) rows: MlxBuffer,
    norm: MlxBuffer,
    values: MlxBuffer,
    quantized: MlxBuffer,
    /// The rows as they are, and normed.
    pub(crate) plain: Vec<f64>,
    pub(crate) normed: Vec<f64>,
}

impl Rows {
    pub(crate) fn new(device: &MlxDevice, tokens: usize, columns: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (rows, norm) = (random.normal_vec(tokens * columns), random.normal_vec(columns));
        let params = reference::RmsNorm { eps: f64::from(NORM.epsilon), weight_offset: f64::from(NORM.weight_offset) };
        let normed = reference::rms_norm(&rows, &norm, params);
        let plain = rows.iter().copied().map(f64::from).collect();
        // In two steps where few tokens are taken so; all kernels accept it.
        let on_gpu = device.runs_gpu_kernels();
        let form_rows = if on_gpu { tokens } else { 2 * tokens };
        let bytes = quantized_activation_bytes(1, columns).unwrap();
        Self {
            rows: floats(device, &rows, [tokens, columns]),
            norm: floats(device, &norm, [columns]),
            values: device.zeros(DType::F32, [tokens, columns]).unwrap(),
            quantized: device.zeros(DType::U8, [form_rows, bytes]).unwrap(),
            plain,
            normed,
        }
    }

    pub(crate) fn normed(&self) -> LayerInput<'_> {
        let normed = MatmulInput { values: &self.values, quantized: Some(&self.quantized) };
        LayerInput::Normed { rows: &self.rows, weight: &self.norm, params: NORM, normed }
    }

    pub(crate) fn plain(&self) -> LayerInput<'_> {
        LayerInput::Rows(MatmulInput { values: &self.rows, quantized: Some(&self.quantized) })
    }
}

/// The encodings that kernels for a single token know.
pub(crate) fn encodings() -> impl Iterator<Item = TensorType> {
    let layouts = gpu::mlx_layouts().into_iter().map(TensorType::Mlx).filter(|&layout| gpu::is_streamed(layout));
    gpu::STREAMED.into_iter().map(TensorType::Quantized).chain(layouts)
}

/// Columns that a matrix of the encoding may have, some of them odd.
pub(crate) fn odd_columns(encoding: TensorType) -> &'static [usize] {
    match encoding.block_len() {
        256 => &[256, 1280, 2304],
        128 => &[128, 640],
        64 => &[64, 320, 2112],
        _ => &[32, 96, 640, 2080],
    }
}

/// Bits of activations in products of `tokens` tokens on the device.
pub(crate) fn activation_bits(device: &MlxDevice, tokens: usize) -> u32 {
    if device.runs_gpu_kernels() && tokens > 1 { 8 } else { 15 }
}

/// The plainest rotation, with frequencies as given.
pub(crate) fn rotate(
    rows: &[f64],
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    frequencies: &[f32],
    layout: RopeLayout,
    magnitude: f64,
) -> Vec<f64> {
    let mut output = rows.to_vec();
    for (index, head) in output.chunks_mut(head_dim).enumerate() {
        for (pair, &frequency) in frequencies.iter().enumerate() {
            let angle = f64::from(positions[index / heads]) * f64::from(frequency);
            let (first, second) = match layout {
                RopeLayout::NeoX => (pair, pair + frequencies.len()),
                RopeLayout::Interleaved => (2 * pair, 2 * pair + 1),
            };
            let (a, b) = (head[first], head[second]);
            head[first] = (a * angle.cos() - b * angle.sin()) * magnitude;
            head[second] = (a * angle.sin() + b * angle.cos()) * magnitude;
        }
    }
    output
}
