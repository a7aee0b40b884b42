use anymlx_testing::{Random, Tolerance, assert_close, reference};

use super::*;
use crate::ops::{
    add_in_place, rms_norm,
    test_data::{floats, refusal, run, zeros},
    test_devices::devices,
};

#[test]
fn is_its_composite_and_agrees_with_the_reference() {
    for device in devices() {
        for shape @ [rows, columns] in [[1, 1], [7, 33], [3, 640], [5, 1027], [40, 2048]] {
            let mut random = Random::new(3);
            let (r, u) = (random.normal_vec(rows * columns), random.normal_vec(rows * columns));
            let w = random.normal_vec(columns);
            let (update, weight) = (floats(&device, &u, shape), floats(&device, &w, [columns]));
            let params = RmsNormParams { epsilon: 1e-6, weight_offset: 1.0 };
            let (residual, output) = (floats(&device, &r, shape), device.zeros(DType::F32, shape).unwrap());
            run(&device, |encoder| add_rms_norm(encoder, &residual, &update, &weight, &output, params));
            let (sum, composite) = (floats(&device, &r, shape), device.zeros(DType::F32, shape).unwrap());
            run(&device, |encoder| {
                add_in_place(encoder, &sum, &update)?;
                rms_norm(encoder, &sum, &weight, &composite, params)
            });
            assert_eq!(residual.to_vec::<f32>().unwrap(), sum.to_vec::<f32>().unwrap());
            assert_eq!(output.to_vec::<f32>().unwrap(), composite.to_vec::<f32>().unwrap());
            let added = reference::add(&r, &u);
            let expected = reference::rms_norm(&added, &w, reference::RmsNorm { eps: 1e-6, weight_offset: 1.0 });
            let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(columns);
            assert_close("add_rms_norm", &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
        }
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let params = RmsNormParams { epsilon: 1e-6, weight_offset: 0.0 };
    let [a, b, c] = [(); 3].map(|()| zeros(DType::F32, [7, 33]));
    let weight = zeros(DType::F32, [11]);
    assert_eq!(refusal(|e| add_rms_norm(e, &a, &b, &weight, &c, params)), "add_rms_norm: weight is [11], needed [33]");
    let weight = zeros(DType::F32, [33]);
    assert!(refusal(|e| add_rms_norm(e, &a, &a, &weight, &c, params)).contains("overlap"));
    assert!(refusal(|e| add_rms_norm(e, &a, &b, &weight, &a, params)).contains("overlap"));
}
