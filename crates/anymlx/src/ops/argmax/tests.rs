use anymlx_testing::{Random, reference};

use super::*;
use crate::ops::{
    test_data::{floats, refusal, run, zeros},
    test_devices::devices,
};

#[test]
fn agrees_with_the_reference() {
    for device in devices() {
        for [rows, columns] in [[1, 1], [7, 33], [3, 640], [2, 262_144]] {
            let x = Random::new(5).normal_vec(rows * columns);
            let logits = floats(&device, &x, [rows, columns]);
            let output = device.zeros(DType::U32, [rows]).unwrap();
            run(&device, |encoder| argmax(encoder, &logits, &output));
            assert_eq!(output.to_vec::<u32>().unwrap(), reference::argmax(&x, columns));
        }
    }
}

#[test]
fn the_first_of_equals_wins_and_nan_never() {
    let mut rows = vec![vec![0.0_f32; 700]; 6];
    (rows[0][13], rows[0][650]) = (7.0, 7.0);
    rows[1][699] = f32::INFINITY;
    rows[2].fill(f32::NAN);
    rows[3].fill(f32::NAN);
    rows[3][300] = f32::NEG_INFINITY;
    rows[4].fill(f32::NEG_INFINITY);
    (rows[5][0], rows[5][512]) = (f32::NAN, 1.0);
    let values = rows.concat();
    for device in devices() {
        let logits = floats(&device, &values, [6, 700]);
        let output = device.zeros(DType::U32, [6]).unwrap();
        run(&device, |encoder| argmax(encoder, &logits, &output));
        assert_eq!(output.to_vec::<u32>().unwrap(), [13, 699, 0, 300, 0, 512]);
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (logits, output) = (zeros(DType::F32, [7, 33]), zeros(DType::U32, [33]));
    assert_eq!(refusal(|e| argmax(e, &logits, &output)), "argmax: output is [33], needed [7]");
    assert_eq!(refusal(|e| argmax(e, &logits, &logits)), "argmax: output is f32, needed u32");
}
