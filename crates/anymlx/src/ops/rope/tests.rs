use anymlx_testing::{Limits, Random, Tolerance, assert_close, reference};

use super::*;
use crate::ops::{
    test_data::{floats, refusal, run, zeros},
    test_devices::devices,
};

const LAYOUTS: [(RopeLayout, reference::RopeLayout); 2] =
    [(RopeLayout::NeoX, reference::RopeLayout::NeoX), (RopeLayout::Interleaved, reference::RopeLayout::Interleaved)];

#[test]
fn agrees_with_the_reference() {
    for device in devices() {
        for [tokens, heads, head_dim, dims] in [[1, 1, 2, 2], [7, 3, 34, 10], [5, 4, 256, 256], [3, 2, 11, 6]] {
            for (layout, reference_layout) in LAYOUTS {
                let x = Random::new(10).normal_vec(tokens * heads * head_dim);
                let p: Vec<u32> = (0..tokens).map(|t| t as u32 * 3).collect();
                let values = floats(&device, &x, [tokens, heads, head_dim]);
                let positions = device.buffer_from_slice(&p, DType::U32, [tokens]).unwrap();
                let f = frequencies(10_000.0, dims, &RopeScaling::None);
                let frequencies = floats(&device, &f, [dims / 2]);
                let params = RopeParams { layout, rotary_dims: dims, magnitude: 1.25 };
                run(&device, |encoder| rope(encoder, &values, &positions, &frequencies, params));
                let plain = reference::Rope::plain(head_dim, 10_000.0, reference_layout);
                let yarn = reference::Yarn {
                    extrapolation: 1.0,
                    beta_slow: 1e-9,
                    beta_fast: 1e-9,
                    attention_factor: Some(1.25),
                    ..reference::Yarn::new(1e9)
                };
                let expected = reference::rope(&x, &p, &reference::Rope { dims, yarn: Some(yarn), ..plain });
                // Frequencies are rounded to f32: angles of up to 18 radians are off by 18 * 2^-24.
                let tolerance = Tolerance::for_dtype(DType::F32).with_magnitude(10.0);
                assert_close("rope", &values.to_vec::<f32>().unwrap(), &expected, &tolerance);
            }
        }
    }
}

/// The angle is exact however far the position is: only the frequency is rounded, before.
#[test]
fn far_positions_keep_their_angle() {
    for device in devices() {
        let f = frequencies(1e6, 66, &RopeScaling::None);
        let p = [8191_u32, 131_071, 1_000_003];
        let values = floats(&device, &[1.0, 0.0].repeat(99), [3, 1, 66]);
        let positions = device.buffer_from_slice(&p, DType::U32, [3]).unwrap();
        let params = RopeParams { layout: RopeLayout::Interleaved, rotary_dims: 66, magnitude: 1.0 };
        run(&device, |encoder| rope(encoder, &values, &positions, &floats(&device, &f, [33]), params));
        let angles = p.iter().flat_map(|&p| f.iter().map(move |&f| f64::from(p) * f64::from(f)));
        let expected: Vec<f64> = angles.flat_map(|angle| [angle.cos(), angle.sin()]).collect();
        let tolerance = Tolerance::explicit(Limits { abs: 2e-7, rel: 0.0 });
        assert_close("rope", &values.to_vec::<f32>().unwrap(), &expected, &tolerance);
    }
}

#[test]
fn scalings_agree_with_the_reference() {
    let plain = reference::Rope::plain(64, 500_000.0, reference::RopeLayout::NeoX);
    let check = |scaling: RopeScaling, expected: reference::Rope| {
        let actual = frequencies(500_000.0, 64, &scaling);
        assert_close("rope frequencies", &actual, &expected.frequencies(), &Tolerance::for_dtype(DType::F32));
        assert!((f64::from(magnitude(&scaling)) - expected.magnitude()).abs() < 1e-6, "{scaling:?}");
    };
    check(RopeScaling::None, plain.clone());
    check(RopeScaling::Linear { factor: 8.0 }, reference::Rope { factor: 8.0, ..plain.clone() });
    let llama3 = reference::Llama3Scaling {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 8192.0,
    };
    let factors = reference::llama3_frequency_factors(64, 500_000.0, llama3);
    check(
        RopeScaling::Factors(reference::to_f32(&factors)),
        reference::Rope { frequency_factors: Some(factors), ..plain.clone() },
    );
    for (extrapolation, attention_factor) in [(1.0, None), (0.5, Some(1.5))] {
        let yarn = RopeScaling::Yarn {
            factor: 4.0,
            original_context: 4096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            extrapolation,
            attention_factor,
        };
        let expected = reference::Yarn {
            extrapolation: extrapolation.into(),
            attention_factor: attention_factor.map(f64::from),
            ..reference::Yarn::new(4096.0)
        };
        check(yarn, reference::Rope { factor: 4.0, yarn: Some(expected), ..plain.clone() });
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (values, positions) = (zeros(DType::F32, [7, 3, 34]), zeros(DType::U32, [7]));
    let params = RopeParams { layout: RopeLayout::NeoX, rotary_dims: 34, magnitude: 1.0 };
    let record = |positions: &MlxBuffer, pairs: usize, rotary_dims: usize| {
        let params = RopeParams { rotary_dims, ..params };
        refusal(|e| rope(e, &values, positions, &zeros(DType::F32, [pairs]), params))
    };
    assert_eq!(record(&positions, 16, 34), "rope: frequencies is [16], needed [17]");
    assert_eq!(record(&positions, 18, 36), "rope: rotary_dims is 36, needed an even number of at most 34");
    assert_eq!(record(&positions, 2, 5), "rope: rotary_dims is 5, needed an even number of at most 34");
    assert_eq!(record(&zeros(DType::U32, [6]), 17, 34), "rope: positions is [6], needed [7]");
    assert_eq!(
        refusal(|e| rope(e, &zeros(DType::F32, [7, 34]), &positions, &zeros(DType::F32, [17]), params)),
        "rope: values is [7, 34], needed [tokens, heads, head_dim]"
    );
}
