use anymlx_testing::{Random, reference};

use super::*;
use crate::{
    DType,
    ops::{
        test_data::{floats, refusal, run, zeros},
        test_devices::devices,
    },
};

#[test]
fn agrees_with_the_reference() {
    for device in devices() {
        for [rows, columns] in [[1, 1], [7, 33], [33, 7], [1, 300], [300, 1], [129, 640]] {
            let x = Random::new(7).normal_vec(rows * columns);
            let (input, output) =
                (floats(&device, &x, [rows, columns]), device.zeros(DType::F32, [columns, rows]).unwrap());
            run(&device, |encoder| transpose(encoder, &input, &output));
            let actual = reference::to_f64(&output.to_vec::<f32>().unwrap());
            assert_eq!(actual, reference::transpose(&x, rows, columns));
        }
    }
}

#[test]
fn any_element_size() {
    for device in devices() {
        let (rows, columns) = (7, 33);
        let bytes = Random::new(8).bytes(rows * columns);
        let expected: Vec<u8> =
            (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)).map(|at| bytes[at]).collect();
        let input = device.buffer_from_slice(&bytes, DType::U8, [rows, columns]).unwrap();
        let output = device.zeros(DType::U8, [columns, rows]).unwrap();
        run(&device, |encoder| transpose(encoder, &input, &output));
        assert_eq!(output.to_vec::<u8>().unwrap(), expected);
        let halves: Vec<u16> = bytes.iter().map(|&byte| u16::from(byte) << 7).collect();
        let input = device.buffer_from_slice(&halves, DType::F16, [rows, columns]).unwrap();
        let output = device.zeros(DType::F16, [columns, rows]).unwrap();
        run(&device, |encoder| transpose(encoder, &input, &output));
        let turned: Vec<u16> = expected.iter().map(|&byte| u16::from(byte) << 7).collect();
        assert_eq!(output.to_vec::<u16>().unwrap(), turned);
        let wide: Vec<i64> = bytes.iter().map(|&byte| i64::from(byte) << 40).collect();
        let input = device.buffer_from_slice(&wide, DType::I64, [rows, columns]).unwrap();
        let output = device.zeros(DType::I64, [columns, rows]).unwrap();
        run(&device, |encoder| transpose(encoder, &input, &output));
        let expected: Vec<i64> = expected.iter().map(|&byte| i64::from(byte) << 40).collect();
        assert_eq!(output.to_vec::<i64>().unwrap(), expected);
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let input = zeros(DType::F32, [7, 33]);
    assert_eq!(
        refusal(|e| transpose(e, &input, &zeros(DType::F32, [7, 33]))),
        "transpose: output is [7, 33], needed [33, 7]"
    );
    assert_eq!(
        refusal(|e| transpose(e, &zeros(DType::F32, [7, 3, 11]), &input)),
        "transpose: input is [7, 3, 11], needed [rows, columns]"
    );
    let square = zeros(DType::F32, [7, 7]);
    assert!(refusal(|e| transpose(e, &square, &square)).contains("overlap"));
}
