use anymlx_formats::quant::{QuantType, TensorType};
use anymlx_testing::{Limits, QuantizedActivations, Tolerance, assert_close};
use half::f16;

use super::*;
use crate::{
    DType, MlxBuffer, MlxDevice,
    ops::{
        HeadNorms, RmsNormParams, RopeLayout, RopeParams, rope,
        test_data::{floats, run, try_run},
        test_devices::devices,
        test_layers::{Matrix, Rows, activation_bits, encodings, rotate},
    },
};

const CAPACITY: usize = 11;
const MAGNITUDE: f32 = 1.25;

#[derive(Debug, Clone, Copy)]
struct Case {
    encodings: [TensorType; 3],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    columns: usize,
    layout: RopeLayout,
    position: u32,
}

/// The operands on a device.
struct Operands {
    case: Case,
    matrices: [Matrix; 3],
    rows: Rows,
    outputs: [MlxBuffer; 3],
    heads: [MlxBuffer; 3],
    positions: MlxBuffer,
    frequencies: (MlxBuffer, Vec<f32>),
    caches: [MlxBuffer; 2],
}

impl Operands {
    fn new(device: &MlxDevice, case: Case) -> Self {
        let Case { encodings, heads, kv_heads, head_dim, columns, position, .. } = case;
        let counts = [heads, kv_heads, kv_heads];
        let matrix =
            |index: usize| Matrix::new(device, encodings[index], counts[index] * head_dim, columns, 20 + index as u64);
        let outputs = counts.map(|heads| device.zeros(DType::F32, [1, heads * head_dim]).unwrap());
        let frequencies = rope::frequencies(10_000.0, head_dim, &rope::RopeScaling::None);
        Self {
            case,
            matrices: [0, 1, 2].map(matrix),
            rows: Rows::new(device, 1, columns, 3),
            heads: [0, 1, 2].map(|index| outputs[index].with_shape([1, counts[index], head_dim]).unwrap()),
            outputs,
            positions: device.buffer_from_slice(&[position], DType::U32, [1]).unwrap(),
            frequencies: (floats(device, &frequencies, [head_dim / 2]), frequencies),
            caches: [0; 2].map(|_| device.zeros(DType::F16, [kv_heads, CAPACITY, head_dim]).unwrap()),
        }
    }

    fn all<'a>(&'a self, input: LayerInput<'a>, norms: Option<HeadNorms<'a>>) -> ProjectAndCache<'a> {
        let projection = |index: usize| Projection {
            weight: &self.matrices[index].weight,
            bias: self.matrices[index].bias.as_ref().map(|(buffer, _)| buffer),
            output: &self.outputs[index],
        };
        let [queries, keys, values] = &self.heads;
        let rope = RopeParams { layout: self.case.layout, rotary_dims: self.case.head_dim, magnitude: MAGNITUDE };
        let [key_cache, value_cache] = &self.caches;
        let (positions, frequencies) = (&self.positions, &self.frequencies.0);
        let rotate =
            RotateAndCache { queries, keys, values, norms, positions, frequencies, rope, key_cache, value_cache };
        ProjectAndCache { input, projections: [0, 1, 2].map(projection), rotate }
    }
}

/// What sums of two rows may be off by, and `roundoff` of the result.
fn tolerance(device: &MlxDevice, input: &[f64], matrix: &Matrix, roundoff: f64) -> Tolerance {
    let input: Vec<f32> = input.iter().map(|&value| value as f32).collect();
    let bits = activation_bits(device, 1);
    let measured = QuantizedActivations::measure(bits, matrix.weight.columns(), &input, &matrix.values);
    let of_row = Tolerance::for_quantized_activations(&measured).times(2.0 * f64::from(MAGNITUDE));
    Tolerance::explicit(Limits { abs: of_row.abs() + roundoff * 1e-3, rel: of_row.rel() + roundoff })
}

fn check(device: &MlxDevice, case: Case) {
    let Case { heads, kv_heads, head_dim, layout, position, .. } = case;
    let operands = Operands::new(device, case);
    let Operands { matrices, rows, outputs, caches, frequencies, .. } = &operands;
    for (form, input) in [(rows.normed(), &rows.normed), (rows.plain(), &rows.plain)] {
        run(device, |encoder| project_and_cache(encoder, operands.all(form, None)));
        let name = format!("{case:?} {}", device.info().backend.name());
        let rotated = |index: usize, heads: usize| {
            let projected = matrices[index].project(input);
            rotate(&projected, heads, head_dim, &[position], &frequencies.1, layout, f64::from(MAGNITUDE))
        };
        let allowed = tolerance(device, input, &matrices[0], 2e-6);
        assert_close(&format!("queries {name}"), &outputs[0].to_vec().unwrap(), &rotated(0, heads), &allowed);
        for (index, rows) in [(1, rotated(1, kv_heads)), (2, matrices[2].project(input))] {
            let mut expected = vec![0.0; kv_heads * CAPACITY * head_dim];
            for (head, row) in rows.chunks(head_dim).enumerate() {
                let to = (head * CAPACITY + position as usize) * head_dim;
                expected[to..to + head_dim].copy_from_slice(row);
            }
            let found: Vec<f32> = caches[index - 1].to_vec::<f16>().unwrap().into_iter().map(f32::from).collect();
            let allowed = tolerance(device, input, &matrices[index], f64::from(f16::EPSILON));
            assert_close(&format!("cache {index} {name}"), &found, &expected, &allowed);
        }
    }
}

#[test]
fn agrees_with_the_reference() {
    use QuantType::{Q4_0, Q4_K, Q5_0, Q6_K, Q8_0};
    for device in devices() {
        for layout in [RopeLayout::NeoX, RopeLayout::Interleaved] {
            for (encodings, heads, kv_heads, head_dim, columns, position) in [
                ([Q4_K, Q4_K, Q4_K], 4, 1, 64, 512, 0),
                ([Q4_K, Q4_K, Q6_K], 6, 2, 34, 256, 10),
                ([Q5_0, Q5_0, Q8_0], 3, 3, 16, 96, 7),
                ([Q4_0, Q4_0, Q4_0], 1, 1, 2, 32, 3),
                // The last needs a kernel of its own.
                ([Q4_K, Q4_K, Q4_0], 2, 1, 8, 256, 5),
            ] {
                let encodings = encodings.map(TensorType::Quantized);
                check(&device, Case { encodings, heads, kv_heads, head_dim, columns, layout, position });
            }
        }
    }
}

/// Each kernel.
#[test]
fn every_encoding_agrees_with_the_reference() {
    for device in devices() {
        for first in encodings() {
            for third in [first, QuantType::Q6_K.into(), QuantType::Q8_0.into()] {
                let (encodings, layout) = ([first, first, third], RopeLayout::NeoX);
                check(
                    &device,
                    Case { encodings, heads: 1, kv_heads: 1, head_dim: 6, columns: 256, layout, position: 9 },
                );
            }
        }
    }
}

fn small(position: u32) -> Case {
    let (encodings, layout) = ([QuantType::Q8_0.into(); 3], RopeLayout::NeoX);
    Case { encodings, heads: 2, kv_heads: 1, head_dim: 16, columns: 64, layout, position }
}

#[test]
fn norms_take_the_plain_operations() {
    for device in devices() {
        let norm = floats(&device, &[0.5; 16], [16]);
        let params = RmsNormParams { epsilon: 1e-6, weight_offset: 1.0 };
        let norms = Some(HeadNorms { query: &norm, key: &norm, params });
        let [fused, plain] = [0; 2].map(|_| Operands::new(&device, small(4)));
        run(&device, |encoder| project_and_cache(encoder, fused.all(fused.rows.plain(), norms)));
        let operands = plain.all(plain.rows.plain(), norms);
        run(&device, |encoder| {
            project(encoder, operands.input, &operands.projections)?;
            rotate_and_cache(encoder, operands.rotate)
        });
        assert_eq!(fused.outputs[0].to_vec::<f32>().unwrap(), plain.outputs[0].to_vec::<f32>().unwrap());
        assert_eq!(fused.caches[0].to_vec::<f16>().unwrap(), plain.caches[0].to_vec::<f16>().unwrap());
    }
}

#[test]
fn a_position_past_the_cache_fails_the_submission() {
    for device in devices() {
        let operands = Operands::new(&device, small(CAPACITY as u32));
        let all = operands.all(operands.rows.plain(), None);
        let error = try_run(&device, |encoder| project_and_cache(encoder, all)).unwrap_err();
        assert!(error.to_string().contains("11"), "{error}");
    }
}

#[test]
fn what_is_rotated_must_be_what_was_projected() {
    for device in devices() {
        let (operands, other) = (Operands::new(&device, small(1)), Operands::new(&device, small(1)));
        let mut all = operands.all(operands.rows.plain(), None);
        all.rotate.keys = &other.heads[1];
        let error = try_run(&device, |encoder| project_and_cache(encoder, all)).unwrap_err();
        assert!(error.to_string().contains("keys"), "{error}");
    }
}
