//! The fused operations on the tensor cores beside plain operations in full precision on the same device.

use anymlx_formats::quant::{self, QuantType};
use anymlx_testing::{Limits, Random, Tolerance, assert_close};

use super::*;
use crate::{
    MlxDevice,
    ops::{
        FeedForward, PostNorm, RmsNormParams, add_in_place, feed_forward, gated_activation, gated_projection, matmul,
        project, project_add, quantized_activation_bytes, rms_norm,
        test_data::{floats, run, weight_of},
    },
};

fn tensor_cores() -> Option<MlxDevice> {
    let exact = |device: &MlxDevice| device.native_texts().is_exactly_cuda(ARCHITECTURE);
    let device = MlxDevice::cuda(0).ok().filter(exact);
    if device.is_none() {
        eprintln!("skipped: no GPU of architecture {ARCHITECTURE}");
    }
    device
}

/// Rounding the factors of a product to bf16 is an error of at most 2^-8 of each; of their sum, relative to its own
/// deviation, about a third of that, and less than all of it after a chain of three products. Twelve of those: a gated
/// product multiplies the error of one factor by the other, which may be some deviations large. It is in error in
/// proportion to itself, too.
fn assert_near(name: &str, actual: &MlxBuffer, expected: &MlxBuffer) {
    let expected: Vec<f64> = expected.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    let rms = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    let tolerance = Tolerance::explicit(Limits { abs: 12.0 * rms / 256.0, rel: 4.0 / 256.0 });
    assert_close(name, &actual.to_vec::<f32>().unwrap(), &expected, &tolerance);
}

struct Maker {
    device: MlxDevice,
    random: Random,
}

impl Maker {
    fn floats<const N: usize>(&mut self, shape: [usize; N]) -> MlxBuffer {
        let values = self.random.normal_vec(shape.iter().product());
        floats(&self.device, &values, shape)
    }

    fn room<const N: usize>(&self, shape: [usize; N]) -> MlxBuffer {
        let values = vec![f32::NAN; shape.iter().product()];
        floats(&self.device, &values, shape)
    }

    fn copy(&self, buffer: &MlxBuffer) -> MlxBuffer {
        self.device.buffer_from_slice(&buffer.to_vec::<f32>().unwrap(), DType::F32, buffer.shape()).unwrap()
    }

    fn weight(&mut self, encoding: TensorType, rows: usize, columns: usize) -> Weight {
        let mut values = self.random.normal_vec(rows * columns);
        values.iter_mut().for_each(|value| *value /= (columns as f32).sqrt());
        let mut bytes = vec![0; encoding.byte_len(values.len() as u64).unwrap() as usize];
        quant::quantize(encoding, &values, &mut bytes).unwrap();
        weight_of(&self.device, encoding, &bytes, rows, columns)
    }

    /// A place for the 8-bit form, which allows for rounding.
    fn quantized(&self, tokens: usize, columns: usize) -> MlxBuffer {
        self.device.zeros(DType::U8, [tokens, quantized_activation_bytes(1, columns).unwrap()]).unwrap()
    }
}

fn maker() -> Option<Maker> {
    Some(Maker { device: tensor_cores()?, random: Random::new(5) })
}

const NORM: RmsNormParams = RmsNormParams { epsilon: 1e-5, weight_offset: 1.0 };
const TOKENS: [usize; 4] = [9, 77, 256, 300];
/// Rows and columns.
const SHAPES: [(usize, usize); 4] = [(1, 256), (33, 512), (520, 256), (301, 768)];

#[test]
fn projections_agree() {
    let Some(mut make) = maker() else { return };
    let encodings = [
        QuantType::Q4_K.into(),
        QuantType::Q6_K.into(),
        DType::F16.into(),
        QuantType::Q8_0.into(),
        QuantType::IQ4_XS.into(),
        DType::BF16.into(),
        QuantType::MXFP4.into(),
    ];
    for tokens in TOKENS {
        for (rows, columns) in SHAPES {
            for count in 1..=3 {
                let rows_of = |index: usize| if index == 0 { rows } else { 16 * index };
                let weights: Vec<Weight> = (0..count)
                    .map(|i| make.weight(encodings[(i + tokens) % encodings.len()], rows_of(i), columns))
                    .collect();
                let biases: Vec<MlxBuffer> = (0..count).map(|i| make.floats([rows_of(i)])).collect();
                let bias_of = |index: usize| (index != 1).then_some(&biases[index]);
                let room = |make: &Maker, i: usize| make.room([tokens, rows_of(i)]);
                let outputs: Vec<MlxBuffer> = (0..count).map(|i| room(&make, i)).collect();
                let expected: Vec<MlxBuffer> = (0..count).map(|i| room(&make, i)).collect();
                let (values, norm) = (make.floats([tokens, columns]), make.floats([columns]));
                let (normed, quantized) = (make.room([tokens, columns]), make.quantized(tokens, columns));
                let place = MatmulInput { values: &normed, quantized: Some(&quantized) };
                let input = LayerInput::Normed { rows: &values, weight: &norm, params: NORM, normed: place };
                let list: Vec<Projection<'_>> = (0..count)
                    .map(|i| Projection { weight: &weights[i], bias: bias_of(i), output: &outputs[i] })
                    .collect();
                run(&make.device, |encoder| {
                    assert!(Products::new(encoder, "test", input, &weights.iter().collect::<Vec<_>>()).is_some());
                    project(encoder, input, &list)
                });
                run(&make.device, |encoder| {
                    rms_norm(encoder, &values, &norm, &normed, NORM)?;
                    (0..count)
                        .try_for_each(|i| matmul(encoder, (&normed).into(), &weights[i], &expected[i], bias_of(i)))
                });
                for (output, expected) in outputs.iter().zip(&expected) {
                    assert_near(&format!("project {tokens}x{rows}x{columns} of {count}"), output, expected);
                }
            }
        }
    }
}

#[test]
fn sums_agree() {
    let Some(mut make) = maker() else { return };
    for tokens in TOKENS {
        for (rows, columns) in SHAPES {
            for (with_norm, with_bias) in [(false, false), (false, true), (true, false)] {
                if with_norm && rows == 1 {
                    continue; // the norm of one value is its sign, or what its rounding makes of it
                }
                let (weight, values) =
                    (make.weight(QuantType::Q4_K.into(), rows, columns), make.floats([tokens, columns]));
                let (norm, bias) = (make.floats([rows]), make.floats([rows]));
                let bias = with_bias.then_some(&bias);
                let residual = make.floats([tokens, rows]);
                let expected = make.copy(&residual);
                let (product, normed) = (make.room([tokens, rows]), make.room([tokens, rows]));
                let quantized = make.quantized(tokens, columns);
                let input = LayerInput::Rows(MatmulInput { values: &values, quantized: Some(&quantized) });
                let projection = Projection { weight: &weight, bias, output: &product };
                let post_norm = with_norm.then_some(PostNorm { weight: &norm, params: NORM, normed: &normed });
                run(&make.device, |encoder| project_add(encoder, input, projection, post_norm, &residual));
                run(&make.device, |encoder| {
                    matmul(encoder, (&values).into(), &weight, &product, bias)?;
                    if !with_norm {
                        return add_in_place(encoder, &expected, &product);
                    }
                    rms_norm(encoder, &product, &norm, &normed, NORM)?;
                    add_in_place(encoder, &expected, &normed)
                });
                assert_near(&format!("project_add {tokens}x{rows}x{columns}"), &residual, &expected);
            }
        }
    }
}

#[test]
fn feed_forward_layers_agree() {
    let Some(mut make) = maker() else { return };
    for tokens in TOKENS {
        for (features, columns) in [(256, 512), (320, 256), (1056, 256)] {
            for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
                let gate = make.weight(QuantType::Q5_0.into(), features, columns);
                let up = make.weight(QuantType::Q8_0.into(), features, columns);
                let down = make.weight(QuantType::Q4_0.into(), columns, features);
                let (values, norm) = (make.floats([tokens, columns]), make.floats([columns]));
                let residual = make.floats([tokens, columns]);
                let expected = make.copy(&residual);
                let wide = |make: &Maker| make.room([tokens, features]);
                let (gated, gates, ups, expected_gated) = (wide(&make), wide(&make), wide(&make), wide(&make));
                let (normed, product) = (make.room([tokens, columns]), make.room([tokens, columns]));
                let (quantized, wide) = (make.quantized(tokens, columns), make.quantized(tokens, features));
                let place = MatmulInput { values: &normed, quantized: Some(&quantized) };
                let input = LayerInput::Normed { rows: &values, weight: &norm, params: NORM, normed: place };
                run(&make.device, |encoder| {
                    rms_norm(encoder, &values, &norm, &normed, NORM)?;
                    matmul(encoder, (&normed).into(), &gate, &gates, None)?;
                    matmul(encoder, (&normed).into(), &up, &ups, None)?;
                    gated_activation(encoder, &gates, &ups, &expected_gated, activation)?;
                    matmul(encoder, (&expected_gated).into(), &down, &product, None)?;
                    add_in_place(encoder, &expected, &product)
                });
                let name = format!("{tokens}x{features}x{columns} {activation:?}");
                run(&make.device, |encoder| gated_projection(encoder, input, &gate, &up, &gated, activation));
                assert_near(&format!("gated_projection {name}"), &gated, &expected_gated);
                let operands = FeedForward {
                    input,
                    gate: &gate,
                    up: &up,
                    activation,
                    gated: MatmulInput { values: &gated, quantized: Some(&wide) },
                    down: Projection { weight: &down, bias: None, output: &product },
                    post_norm: None,
                    residual: &residual,
                };
                run(&make.device, |encoder| feed_forward(encoder, operands));
                assert_near(&format!("feed_forward {name}"), &residual, &expected);
            }
        }
    }
}

/// Without a place for the 8-bit form no rounding is allowed for.
#[test]
fn full_precision_stays() {
    let Some(mut make) = maker() else { return };
    let (weight, values) = (make.weight(QuantType::Q4_K.into(), 64, 256), make.floats([64, 256]));
    let input = LayerInput::Rows((&values).into());
    run(&make.device, |encoder| {
        assert!(Products::new(encoder, "test", input, &[&weight]).is_none());
        Ok(())
    });
}
