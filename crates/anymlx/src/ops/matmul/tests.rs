use anymlx_formats::quant::{self, QuantType};
use anymlx_testing::{QuantizedActivations, Random, Tolerance, assert_close, reference};

use super::*;
use crate::{
    CpuDeviceOptions, CpuLevel, MlxDevice, Sanitizer,
    env::{self, EmulatorMode},
    ops::{
        quantize_activations, quantize_activations_refined, quantized_activation_bytes,
        test_data::{weight_of, with_small_scales},
        test_devices::{devices, metal_devices},
    },
};

const DENSE: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The block-quantised encodings that kernels multiply.
fn quantized() -> impl Iterator<Item = QuantType> {
    QuantType::ALL.iter().copied().filter(|&quant| can_multiply(TensorType::Quantized(quant)))
}

fn encodings() -> impl Iterator<Item = TensorType> {
    DENSE.into_iter().map(TensorType::Dense).chain(quantized().map(TensorType::Quantized))
}

/// A product with everything that a test needs to run it anywhere.
struct Case {
    tokens: usize,
    rows: usize,
    columns: usize,
    encoding: TensorType,
    input: Vec<f32>,
    bytes: Vec<u8>,
    /// What `bytes` stands for.
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Case {
    fn new(encoding: TensorType, tokens: usize, rows: usize, columns: usize) -> Self {
        let mut random = Random::new((tokens * 1000 + rows) as u64);
        let input = random.normal_vec(tokens * columns);
        let values = random.normal_vec(rows * columns);
        let mut bytes = vec![0; encoding.byte_len(values.len() as u64).unwrap() as usize];
        match encoding {
            TensorType::Quantized(quant) if !quant.can_quantize() => {
                bytes = random.bytes(bytes.len());
                with_small_scales(quant, &mut bytes);
            }
            _ => quant::quantize(encoding, &values, &mut bytes).unwrap(),
        }
        let mut weights = vec![0.0; values.len()];
        quant::dequantize(encoding, &bytes, &mut weights).unwrap();
        Self { tokens, rows, columns, encoding, input, bytes, weights, bias: None }
    }

    fn with_bias(mut self) -> Self {
        self.bias = Some(Random::new(8).normal_vec(self.rows));
        self
    }

    fn weight(&self, device: &MlxDevice) -> Weight {
        weight_of(device, self.encoding, &self.bytes, self.rows, self.columns)
    }

    fn run(&self, device: &MlxDevice, form: Form) -> Vec<f32> {
        let input = device.buffer_from_slice(&self.input, DType::F32, [self.tokens, self.columns]).unwrap();
        let output = device.zeros(DType::F32, [self.tokens, self.rows]).unwrap();
        let bias = self.bias.as_ref().map(|bias| device.buffer_from_slice(bias, DType::F32, [self.rows]).unwrap());
        let mut encoder = device.command_encoder().unwrap();
        let bytes = quantized_activation_bytes(1, self.columns);
        let room = |rows: usize| device.zeros(DType::U8, [rows, bytes.unwrap()]).unwrap();
        let quantized = match form {
            Form::Values => None,
            Form::Quantized => {
                let quantized = room(self.tokens);
                quantize_activations(&mut encoder, &input, &quantized).unwrap();
                Some(quantized)
            }
            Form::Refined => {
                let quantized = room(2 * self.tokens);
                quantize_activations_refined(&mut encoder, &input, &quantized).unwrap();
                Some(quantized)
            }
        };
        let input = MatmulInput { values: &input, quantized: quantized.as_ref() };
        matmul(&mut encoder, input, &self.weight(device), &output, bias.as_ref()).unwrap();
        encoder.commit_and_wait().unwrap();
        output.to_vec().unwrap()
    }

    fn expected(&self) -> Vec<f64> {
        let shape = reference::MatmulShape { m: self.tokens, n: self.rows, k: self.columns };
        let mut expected = reference::matmul(&self.input, &self.weights, shape);
        if let Some(bias) = &self.bias {
            expected
                .chunks_mut(self.rows)
                .for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += f64::from(*b)));
        }
        expected
    }

    /// 1 where weights are normal numbers, the largest weight where they are random blocks.
    fn magnitude(&self) -> f64 {
        match self.encoding {
            TensorType::Quantized(quant) if !quant.can_quantize() => {
                self.weights.iter().fold(1.0, |most, weight| f64::from(weight.abs()).max(most))
            }
            _ => 1.0,
        }
    }

    fn check(&self, device: &MlxDevice, form: Form) {
        let Self { tokens, rows, columns, encoding, .. } = self;
        let name = format!("{encoding} {form:?} {tokens}x{rows}x{columns} {}", device.cpu_level());
        let tolerance = match form {
            Form::Values => Tolerance::for_dtype(DType::F32).reduced_over(*columns).with_magnitude(self.magnitude()),
            Form::Quantized | Form::Refined => {
                let bits = if form == Form::Quantized { 8 } else { 15 };
                let measured = QuantizedActivations::measure(bits, *columns, &self.input, &self.weights);
                Tolerance::for_quantized_activations(&measured)
            }
        };
        assert_close(&name, &self.run(device, form), &self.expected(), &tolerance);
    }
}

/// Which form of the input a product reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Values,
    Quantized,
    Refined,
}

fn columns_of(encoding: TensorType) -> &'static [usize] {
    match encoding.block_len() {
        1 => &[1, 11, 64, 300],
        32 => &[32, 64, 96, 640],
        _ => &[256, 512, 1280],
    }
}

/// Tiles by the matrix units of Apple's GPUs: partly filled ones, and more than one of each kind.
#[test]
fn simdgroup_products_agree_with_the_reference() {
    // Compiling takes long under a sanitizer; the formats' own code runs there in the other tests.
    let all = matches!(env::emulator(), Ok(Some(EmulatorMode::Every(Sanitizer::None) | EmulatorMode::Watched)));
    for device in metal_devices() {
        for encoding in encodings().filter(|encoding| all || ["F16", "BF16", "Q4_K"].contains(&encoding.name())) {
            let &columns = columns_of(encoding).last().expect("a list");
            let columns = if encoding.block_len() == 1 { 45 } else { columns };
            for (tokens, rows) in [(9, 3), (33, 70)] {
                Case::new(encoding, tokens, rows, columns).with_bias().check(&device, Form::Values);
            }
            if matches!(encoding, TensorType::Quantized(_)) {
                Case::new(encoding, 35, 9, columns).check(&device, Form::Quantized);
                Case::new(encoding, 9, 9, columns).check(&device, Form::Refined);
            }
        }
        Case::new(TensorType::Dense(DType::F16), 32, 64, 64).check(&device, Form::Values);
    }
}

#[test]
fn exact_products_agree_with_the_reference() {
    for device in devices() {
        for encoding in encodings() {
            for &columns in columns_of(encoding) {
                for (tokens, rows) in [(1, 1), (1, 33), (2, 7), (3, 17), (4, 16), (5, 33), (7, 33), (33, 7)] {
                    Case::new(encoding, tokens, rows, columns).check(&device, Form::Values);
                }
            }
        }
    }
}

#[test]
fn products_of_8_bit_activations_agree_with_the_reference() {
    for device in devices() {
        for quant in quantized() {
            for &columns in columns_of(quant.into()) {
                for (tokens, rows) in [(1, 1), (1, 33), (2, 7), (3, 17), (4, 16), (5, 33), (7, 33), (33, 7)] {
                    Case::new(quant.into(), tokens, rows, columns).check(&device, Form::Quantized);
                }
            }
        }
    }
}

#[test]
fn products_of_activations_in_two_steps_are_nearly_exact() {
    for device in &devices() {
        for quant in quantized() {
            for &columns in columns_of(quant.into()) {
                for (tokens, rows) in [(1, 33), (2, 7), (3, 17), (8, 16), (200, 33)] {
                    Case::new(quant.into(), tokens, rows, columns).check(device, Form::Refined);
                }
            }
        }
    }
}

#[test]
fn many_tokens_and_rows() {
    for device in devices() {
        for encoding in encodings() {
            let columns = if encoding.block_len() > 32 { 256 } else { 96 };
            for (tokens, rows) in [(130, 257), (257, 33)] {
                let case = Case::new(encoding, tokens, rows, columns).with_bias();
                case.check(&device, Form::Values);
                if matches!(encoding, TensorType::Quantized(_)) {
                    case.check(&device, Form::Quantized);
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for encoding in [TensorType::from(QuantType::Q4_K), QuantType::Q8_0.into(), DType::BF16.into()] {
        for tokens in [1, 3, 40] {
            let case = Case::new(encoding, tokens, 257, 512).with_bias();
            let results = [1, 2, 5].map(|threads| {
                let options = CpuDeviceOptions { threads: Some(threads), ..CpuDeviceOptions::default() };
                let device = MlxDevice::cpu_with(&options).unwrap();
                [Form::Values, Form::Quantized].map(|form| case.run(&device, form))
            });
            assert!(results.iter().all(|result| result == &results[0]), "{encoding} {tokens}");
        }
    }
}

/// Levels multiply the same integers: only the order of `f32` additions may differ.
#[test]
fn levels_agree_to_rounding() {
    let device = |level| {
        let options = CpuDeviceOptions { threads: Some(1), level: Some(level), ..CpuDeviceOptions::default() };
        MlxDevice::cpu_with(&options).unwrap()
    };
    for level in CpuLevel::ALL.into_iter().filter(|level| level.is_supported()) {
        for quant in quantized() {
            for tokens in [1, 2, 3, 4, 9, 32] {
                let case = Case::new(quant.into(), tokens, 33, 512);
                let plain: Vec<f64> =
                    case.run(&device(CpuLevel::Scalar), Form::Quantized).iter().map(|&y| y.into()).collect();
                let largest = case.weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
                let tolerance =
                    Tolerance::for_dtype(DType::F32).reduced_over(512 / 16).with_magnitude(4.0 * f64::from(largest));
                let name = format!("{quant} {level} beside scalar, {tokens} tokens");
                assert_close(&name, &case.run(&device(level), Form::Quantized), &plain, &tolerance);
            }
        }
    }
}

/// The extreme codes and quants, where 16-bit sums would saturate.
#[test]
fn extreme_values_do_not_saturate() {
    for device in devices() {
        for quant in quantized().filter(|quant| quant.can_quantize()) {
            for tokens in [1, 5] {
                let mut case = Case::new(quant.into(), tokens, 17, 256);
                case.input.fill(1.0);
                for negative in [false, true] {
                    let values: Vec<f32> = (0..17 * 256)
                        .map(|i| {
                            if i % 16 == 15 {
                                0.001
                            } else if negative {
                                -1.0
                            } else {
                                1.0
                            }
                        })
                        .collect();
                    quant::quantize(quant, &values, &mut case.bytes).unwrap();
                    quant::dequantize(quant, &case.bytes, &mut case.weights).unwrap();
                    let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(256).with_magnitude(2.0);
                    let name = format!("{quant} extremes {} {tokens}", device.cpu_level());
                    assert_close(&name, &case.run(&device, Form::Quantized), &case.expected(), &tolerance);
                }
            }
        }
    }
}

/// Every byte pattern of a block is legal: codes of -128, negative scales, all bits set.
#[test]
fn any_bits_agree_with_the_reference() {
    for device in devices() {
        for quant in quantized() {
            for tokens in [1, 4, 6] {
                let mut case = Case::new(quant.into(), tokens, 19, 512);
                let mut random = Random::new(77);
                case.bytes = random.bytes(case.bytes.len());
                with_small_scales(quant, &mut case.bytes);
                quant::dequantize(quant, &case.bytes, &mut case.weights).unwrap();
                case.check(&device, Form::Quantized);
                let largest = case.weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
                let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(512).with_magnitude(largest.into());
                assert_close("any bits, exact", &case.run(&device, Form::Values), &case.expected(), &tolerance);
            }
        }
    }
}

#[test]
fn a_nan_in_the_input_shows_in_its_row_only() {
    for device in devices() {
        let mut case = Case::new(QuantType::Q5_0.into(), 3, 5, 64);
        case.input[64 + 40] = f32::NAN;
        for form in [Form::Values, Form::Quantized] {
            let result = case.run(&device, form);
            assert!(result[5..10].iter().all(|value| value.is_nan()));
            assert!(result[..5].iter().chain(&result[10..]).all(|value| value.is_finite()));
        }
    }
}

#[test]
fn errors_show_both_shapes() {
    let device = MlxDevice::cpu().unwrap();
    let mut encoder = device.command_encoder().unwrap();
    let weight = Case::new(DType::F32.into(), 1, 64, 256).weight(&device);
    let input = device.zeros(DType::F32, [4, 128]).unwrap();
    let output = device.zeros(DType::F32, [4, 64]).unwrap();
    let error = matmul(&mut encoder, (&input).into(), &weight, &output, None).unwrap_err().to_string();
    assert_eq!(error, "matmul: input [4, 128] x weight [64, 256]: inner dimensions differ (128 vs 256)");
    let input = device.zeros(DType::F32, [4, 256]).unwrap();
    let short = device.zeros(DType::F32, [3, 64]).unwrap();
    let error = matmul(&mut encoder, (&input).into(), &weight, &short, None).unwrap_err().to_string();
    assert_eq!(error, "matmul: output is [3, 64], needed [4, 64]");
    let bias = device.zeros(DType::F32, [63]).unwrap();
    let error = matmul(&mut encoder, (&input).into(), &weight, &output, Some(&bias)).unwrap_err().to_string();
    assert_eq!(error, "matmul: bias is [63], needed [64]");
    let quantized = device.zeros(DType::U8, [4, 8]).unwrap();
    let form = MatmulInput { values: &input, quantized: Some(&quantized) };
    let weight = Case::new(QuantType::Q4_K.into(), 1, 64, 256).weight(&device);
    let error = matmul(&mut encoder, form, &weight, &output, None).unwrap_err().to_string();
    assert_eq!(error, "matmul: quantized input is [4, 8], needed [4, 320] for 256 columns");
    let square = Case::new(DType::F32.into(), 1, 256, 256).weight(&device);
    let aliased = matmul(&mut encoder, (&input).into(), &square, &input, None).unwrap_err().to_string();
    assert!(aliased.contains("overlap"), "{aliased}");
}
