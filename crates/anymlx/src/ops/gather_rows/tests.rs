use anymlx_formats::quant;
use anymlx_testing::{Random, Tolerance, assert_close, reference};

use super::*;
use crate::{
    MlxDevice, TensorType,
    ops::{
        gpu,
        test_data::{stored_weights, weight_of},
        test_devices::devices,
    },
};

/// A table in an encoding, and what is stored in it.
fn table(device: &MlxDevice, encoding: TensorType, rows: usize, columns: usize) -> (Weight, Vec<f32>) {
    let bytes = stored_weights(encoding, rows * columns, 1.0, 3);
    let mut stored = vec![0.0; rows * columns];
    quant::dequantize(encoding, &bytes, &mut stored).unwrap();
    (weight_of(device, encoding, &bytes, rows, columns), stored)
}

#[test]
fn agrees_with_the_reference_in_every_encoding() {
    for device in devices() {
        for encoding in gpu::file_encodings() {
            if device.runs_gpu_kernels() && !gpu::has_format(encoding) {
                continue;
            }
            for (rows, blocks, count) in [(1, 1, 1), (7, 3, 33), (5, 2, 300)] {
                let columns = blocks * encoding.block_len();
                let (table, stored) = table(&device, encoding, rows, columns);
                let chosen = Random::new(9).indices(count, rows);
                let ids = device.buffer_from_slice(&chosen, DType::U32, [count]).unwrap();
                for factor in [1.0, 640_f32.sqrt()] {
                    let output = device.zeros(DType::F32, [count, columns]).unwrap();
                    let mut encoder = device.command_encoder().unwrap();
                    gather_rows(&mut encoder, &table, &ids, &output, factor).unwrap();
                    encoder.commit_and_wait().unwrap();
                    let expected = reference::gather(&stored, columns, &chosen, factor.into());
                    let tolerance = Tolerance::for_dtype(DType::F32);
                    assert_close("gather_rows", &output.to_vec::<f32>().unwrap(), &expected, &tolerance);
                }
            }
        }
    }
}

#[test]
fn an_id_outside_the_table_fails_the_submission() {
    for device in devices() {
        let (table, _) = table(&device, TensorType::Dense(DType::F16), 7, 33);
        let ids = device.buffer_from_slice(&[6_u32, 7, 0], DType::U32, [3]).unwrap();
        let output = device.zeros(DType::F32, [3, 33]).unwrap();
        let mut encoder = device.command_encoder().unwrap();
        gather_rows(&mut encoder, &table, &ids, &output, 1.0).unwrap();
        let error = encoder.commit_and_wait().unwrap_err().to_string();
        assert!(error.contains("ids[1] is 7, the table has 7 rows"), "{error}");
        assert!(output.to_vec::<f32>().is_err(), "the output is poisoned");
    }
}

#[test]
fn errors_show_the_shapes() {
    let device = MlxDevice::cpu().unwrap();
    let (table, _) = table(&device, TensorType::Dense(DType::F32), 7, 33);
    let ids = device.zeros(DType::U32, [2, 2]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    let output = device.zeros(DType::F32, [4, 32]).unwrap();
    let error = gather_rows(&mut encoder, &table, &ids, &output, 1.0).unwrap_err().to_string();
    assert_eq!(error, "gather_rows: output is [4, 32], needed [4, 33] for ids [2, 2] and a table of 33 columns");
    let integers = device.zeros(DType::I32, [7, 33]).unwrap();
    let integers = Weight::new(integers, TensorType::Dense(DType::I32), 7, 33).unwrap();
    let output = device.zeros(DType::F32, [4, 33]).unwrap();
    let error = gather_rows(&mut encoder, &integers, &ids, &output, 1.0).unwrap_err().to_string();
    assert_eq!(error, "gather_rows: table is I32, needed f32, f16, bf16 or a quantised type");
}
