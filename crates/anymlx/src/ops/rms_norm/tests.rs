use anymlx_testing::{Random, Tolerance, assert_close, reference};

use super::*;
use crate::{MlxError, ops::test_devices::devices};

#[test]
fn agrees_with_the_reference() {
    for device in devices() {
        for (rows, columns) in [(1, 1), (7, 33), (3, 640), (5, 1027)] {
            for weight_offset in [0.0, 1.0] {
                let mut random = Random::new(7);
                let x = random.normal_vec(rows * columns);
                let w = random.normal_vec(columns);
                let input = device.buffer_from_slice(&x, DType::F32, [rows, columns]).unwrap();
                let weight = device.buffer_from_slice(&w, DType::F32, [columns]).unwrap();
                let output = device.zeros(DType::F32, [rows, columns]).unwrap();
                let mut encoder = device.command_encoder().unwrap();
                let params = RmsNormParams { epsilon: 1e-6, weight_offset };
                rms_norm(&mut encoder, &input, &weight, &output, params).unwrap();
                encoder.commit_and_wait().unwrap();
                let expected =
                    reference::rms_norm(&x, &w, reference::RmsNorm { eps: 1e-6, weight_offset: weight_offset.into() });
                let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(columns);
                assert_close("rms_norm", &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
                let mut encoder = device.command_encoder().unwrap();
                rms_norm_in_place(&mut encoder, &input, &weight, params).unwrap();
                encoder.commit_and_wait().unwrap();
                assert_eq!(input.to_vec::<f32>().unwrap(), output.to_vec::<f32>().unwrap());
            }
        }
    }
}

#[test]
fn errors_show_both_shapes() {
    let device = crate::MlxDevice::cpu().unwrap();
    let input = device.zeros(DType::F32, [1, 7, 2048]).unwrap();
    let weight = device.zeros(DType::F32, [4096]).unwrap();
    let output = device.zeros(DType::F32, [1, 7, 2048]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    let params = RmsNormParams { epsilon: 1e-6, weight_offset: 0.0 };
    let error = rms_norm(&mut encoder, &input, &weight, &output, params).unwrap_err();
    assert!(matches!(error, MlxError::InvalidArgument(_)));
    assert_eq!(error.to_string(), "rms_norm: weight is [4096], needed [2048]");
    let weight = device.zeros(DType::F32, [2048]).unwrap();
    let aliased = rms_norm(&mut encoder, &input, &weight, &input, params).unwrap_err();
    assert!(aliased.to_string().contains("overlap"), "{aliased}");
}
