//! Properties that hold for every layout. Agreement with PyPI `gguf` is in `tests/fixtures.rs`.

use super::*;
use crate::DType;

/// Sums of three uniform numbers, scaled; the same on every machine.
fn bell(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (uniform() + uniform() + uniform()) * scale).collect()
}

fn round_trip(quant: QuantType, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = vec![0xa5; quant.byte_len(values.len() as u64).unwrap() as usize];
    quantize(quant, values, &mut bytes).unwrap();
    let mut restored = vec![f32::NAN; values.len()];
    dequantize(quant, &bytes, &mut restored).unwrap();
    (bytes, restored)
}

#[test]
fn sizes_are_those_of_ggml() {
    let sizes: Vec<_> = QuantType::ALL.iter().map(|q| (q.name(), q.block_len(), q.block_bytes())).collect();
    let expected = [
        ("Q4_0", 32, 18),
        ("Q4_1", 32, 20),
        ("Q5_0", 32, 22),
        ("Q5_1", 32, 24),
        ("Q8_0", 32, 34),
        ("Q2_K", 256, 84),
        ("Q3_K", 256, 110),
        ("Q4_K", 256, 144),
        ("Q5_K", 256, 176),
        ("Q6_K", 256, 210),
        ("Q8_K", 256, 292),
        ("IQ2_XXS", 256, 66),
        ("IQ2_XS", 256, 74),
        ("IQ3_XXS", 256, 98),
        ("IQ1_S", 256, 50),
        ("IQ4_NL", 32, 18),
        ("IQ3_S", 256, 110),
        ("IQ2_S", 256, 82),
        ("IQ4_XS", 256, 136),
        ("IQ1_M", 256, 56),
        ("TQ1_0", 256, 54),
        ("TQ2_0", 256, 66),
        ("MXFP4", 32, 17),
        ("NVFP4", 64, 36),
        ("Q1_0", 128, 18),
        ("Q2_0", 64, 18),
    ];
    assert_eq!(sizes, expected);
}

#[test]
fn type_numbers_and_names_agree() {
    for id in 0..64 {
        if let Some(known) = TensorType::from_ggml_id(id) {
            assert_eq!(known.ggml_id(), Some(id));
            assert_eq!(ggml_type_name(id), Some(known.name()));
        }
    }
    for &quant in QuantType::ALL {
        assert_eq!(QuantType::from_ggml_id(quant.ggml_id()), Some(quant));
        assert_eq!(TensorType::from_ggml_id(quant.ggml_id()), Some(quant.into()));
    }
    for dtype in DType::ALL {
        if let Some(id) = TensorType::from(dtype).ggml_id() {
            assert_eq!(TensorType::from_ggml_id(id), Some(dtype.into()));
        }
    }
    assert_eq!(ggml_type_name(31), Some("Q4_0_4_4"));
    assert_eq!(TensorType::from_ggml_id(31), None);
    assert_eq!(ggml_type_name(99), None);
}

#[test]
fn byte_lengths_are_checked() {
    assert_eq!(QuantType::Q4_K.byte_len(512).unwrap(), 288);
    assert_eq!(QuantType::Q4_K.byte_len(0).unwrap(), 0);
    let error = QuantType::Q4_K.byte_len(100).unwrap_err().to_string();
    assert_eq!(error, "byte length: Q4_K: 100 elements given, a multiple of 256 is needed");
    assert!(QuantType::Q8_0.byte_len(u64::MAX - 31).is_err());
    assert!(TensorType::from(DType::F32).byte_len(1 << 62).is_err());
    let error = dequantize(QuantType::Q4_K, &[0; 143], &mut [0.0; 256]).unwrap_err().to_string();
    assert_eq!(error, "dequantize: Q4_K: 143 bytes given, 256 elements need 144 bytes");
}

fn relative_error(values: &[f32], restored: &[f32]) -> f64 {
    let squares: f64 = values.iter().zip(restored).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = values.iter().map(|a| f64::from(*a).powi(2)).sum();
    (squares / norm).sqrt()
}

/// The layouts that can be made here.
fn quantisable() -> impl Iterator<Item = QuantType> {
    QuantType::ALL.iter().copied().filter(|quant| quant.can_quantize())
}

/// Layouts whose scale is the mean or the largest magnitude, and of which some or all elements are just a sign.
const SIGNS: [QuantType; 4] = [QuantType::TQ1_0, QuantType::TQ2_0, QuantType::Q1_0, QuantType::Q2_0];

/// Layouts whose scales lie on a coarse lattice.
const MICROSCALED: [QuantType; 2] = [QuantType::MXFP4, QuantType::NVFP4];

#[test]
fn requantising_stored_values_loses_little() {
    for quant in quantisable() {
        let values = bell(2048, 7, 1.0);
        let (_, once) = round_trip(quant, &values);
        let (_, twice) = round_trip(quant, &once);
        let (first, second) = (relative_error(&values, &once), relative_error(&once, &twice));
        assert!(second < 0.3 * first, "{quant}: error {first}, requantised {second}");
    }
}

#[test]
fn error_shrinks_with_bits_and_scales_with_the_input() {
    let error = |quant, scale: f32| {
        let values = bell(2048, 11, scale);
        let (_, restored) = round_trip(quant, &values);
        relative_error(&values, &restored)
    };
    use QuantType::*;
    for order in [
        [Q8_0, Q6_K],
        [Q6_K, Q5_K],
        [Q5_K, Q4_K],
        [Q4_K, Q3_K],
        [Q3_K, Q2_K],
        [Q5_1, Q4_1],
        [Q5_0, Q4_0],
        [IQ4_NL, Q4_0],
        [IQ4_XS, Q4_0],
        [NVFP4, MXFP4],
        [Q8_K, Q6_K],
        [MXFP4, Q2_0],
    ] {
        assert!(error(order[0], 1.0) < error(order[1], 1.0), "{order:?}");
    }
    for quant in quantisable().filter(|quant| !MICROSCALED.contains(quant)) {
        for scale in [1e-2, 1e3] {
            let ratio = error(quant, scale) / error(quant, 1.0);
            assert!((0.97..1.03).contains(&ratio), "{quant} at {scale}: {ratio}");
        }
    }
}

/// The numbers are the relative errors of `ggml_quantize_chunk` (ggml 0.25.3, no importance matrix) on the same input.
#[test]
fn searches_lose_less_than_ggml() {
    let values = bell(8192, 11, 1.0);
    for (quant, ggml) in [
        (QuantType::Q2_K, 0.284718),
        (QuantType::Q3_K, 0.143937),
        (QuantType::Q4_K, 0.067904),
        (QuantType::Q5_K, 0.034268),
        (QuantType::Q6_K, 0.016567),
        (QuantType::IQ4_NL, 0.072521),
        (QuantType::IQ4_XS, 0.072992),
    ] {
        let (_, restored) = round_trip(quant, &values);
        let error = relative_error(&values, &restored);
        assert!(error < ggml, "{quant}: relative error {error}, ggml has {ggml}");
        println!("{quant}: {:.1} % of ggml's error", 100.0 * error / ggml);
    }
}

#[test]
fn special_blocks_survive() {
    for quant in quantisable() {
        let len = quant.block_len();
        let (_, restored) = round_trip(quant, &vec![0.0; len]);
        assert!(restored.iter().all(|&x| x == 0.0), "{quant}: zeros");
        let (_, restored) = round_trip(quant, &vec![1e-30; len]);
        assert!(restored.iter().all(|x| x.abs() < 1e-6), "{quant}: tiny values");
        let (_, restored) = round_trip(quant, &vec![1e-44; len]);
        assert!(restored.iter().all(|x| x.abs() < 1e-6), "{quant}: subnormal values");
        if MICROSCALED.contains(&quant) || quant == QuantType::Q1_0 {
            continue;
        }
        for constant in [2.5f32, -2.5] {
            let (_, restored) = round_trip(quant, &vec![constant; len]);
            assert!(restored.iter().all(|x| (x - constant).abs() < 0.02), "{quant}: {constant} gave {restored:?}");
        }
        let mut spike = vec![0.0; len];
        spike[len - 1] = -4.0;
        let (_, restored) = round_trip(quant, &spike);
        assert!((restored[len - 1] + 4.0).abs() < 0.05, "{quant}: spike {}", restored[len - 1]);
        assert!(restored[..len - 1].iter().all(|x| x.abs() < 0.05), "{quant}: around the spike");
    }
}

/// What the coarse layouts make of a block whose values they can hold exactly.
#[test]
fn coarse_layouts_keep_their_own_values() {
    for quant in SIGNS {
        let values: Vec<f32> = (0..quant.block_len()).map(|i| if i * 7 % 3 == 0 { 2.5 } else { -2.5 }).collect();
        assert_eq!(round_trip(quant, &values).1, values, "{quant}");
    }
    for quant in MICROSCALED {
        let levels: Vec<f32> = (0..quant.block_len()).map(|i| f32::from(fp4::E2M1_DOUBLED[i % 16]) * 0.25).collect();
        assert_eq!(round_trip(quant, &levels).1, levels, "{quant}");
    }
}

#[test]
fn read_only_layouts_say_so() {
    for &quant in QuantType::ALL.iter().filter(|quant| !quant.can_quantize()) {
        assert!(["IQ1", "IQ2", "IQ3"].contains(&&quant.name()[..3]), "{quant}");
        let error = quantize(quant, &[0.0; 256], &mut vec![0; quant.block_bytes()]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("quantize: {quant} can be read but not made here")), "{error}");
    }
    assert_eq!(quantisable().count(), QuantType::ALL.len() - 7);
}

#[test]
fn values_that_do_not_fit_are_refused() {
    for quant in quantisable() {
        let mut bytes = vec![0; quant.block_bytes() * 2];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![0.5; quant.block_len() * 2];
            values[quant.block_len() + 3] = bad;
            let error = quantize(quant, &values, &mut bytes).unwrap_err().to_string();
            assert!(error.contains(&format!("element {} is {bad}", quant.block_len() + 3)), "{error}");
        }
        if [QuantType::MXFP4, QuantType::Q8_K].contains(&quant) {
            continue;
        }
        let mut values = vec![0.5; quant.block_len() * 2];
        values[quant.block_len()] = 3e38;
        let error = quantize(quant, &values, &mut bytes).unwrap_err().to_string();
        let range = format!("elements {}..{}", quant.block_len(), quant.block_len() * 2);
        assert!(error.contains(&range) && error.contains("past the range of the type's scales"), "{error}");
    }
}

#[test]
fn nvfp4_refuses_what_its_scales_cannot_reach() {
    let mut bytes = [0; 36];
    let mut values = [0.0; 64];
    values[63] = -2688.0;
    quantize(QuantType::NVFP4, &values, &mut bytes).unwrap();
    values[63] = -2689.0;
    assert!(quantize(QuantType::NVFP4, &values, &mut bytes).unwrap_err().to_string().contains("reach 2689"));
}

#[test]
fn any_alignment_will_do() {
    let (bytes, expected) = round_trip(QuantType::Q6_K, &bell(256, 3, 1.0));
    for shift in 0..4 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(&bytes);
        let mut values = vec![0.0; 256];
        dequantize(QuantType::Q6_K, &shifted[shift..], &mut values).unwrap();
        assert_eq!(values, expected);
    }
}

#[test]
fn dense_types_convert() {
    let values = [0.0f32, 1.0, -2.5, 65504.0, 1e-3];
    for (dtype, tolerance) in [(DType::F32, 0.0), (DType::F64, 0.0), (DType::F16, 5e-4), (DType::BF16, 4e-3)] {
        let mut bytes = vec![0; dtype.size_of() * values.len()];
        quantize(dtype, &values, &mut bytes).unwrap();
        let mut restored = [f32::NAN; 5];
        dequantize(dtype, &bytes, &mut restored).unwrap();
        for (a, b) in values.iter().zip(restored) {
            assert!((a - b).abs() <= tolerance * a.abs(), "{dtype}: {a} {b}");
        }
    }
    let mut restored = [0.0; 2];
    dequantize(DType::I16, &[0xff, 0xff, 0x00, 0x80], &mut restored).unwrap();
    assert_eq!(restored, [-1.0, -32768.0]);
    dequantize(DType::U16, &[0xff, 0xff, 0x00, 0x80], &mut restored).unwrap();
    assert_eq!(restored, [65535.0, 32768.0]);
    assert!(quantize(DType::I8, &[1.0], &mut [0]).is_err());
}
