//! What tests of operations share beside the devices.

use anymlx_formats::quant::{self, QuantType, TensorType};
use anymlx_testing::Random;

use crate::{CommandEncoder, DType, MlxBuffer, MlxDevice, Result, Weight};

/// Records `commands`, runs them and waits.
#[track_caller]
pub(crate) fn run(device: &MlxDevice, commands: impl FnOnce(&mut CommandEncoder) -> Result<()>) {
    try_run(device, commands).unwrap();
}

/// As [`run`], with what went wrong.
pub(crate) fn try_run(device: &MlxDevice, commands: impl FnOnce(&mut CommandEncoder) -> Result<()>) -> Result<()> {
    let mut encoder = device.command_encoder()?;
    commands(&mut encoder)?;
    encoder.commit_and_wait()
}

/// The message with which recording fails.
#[track_caller]
pub(crate) fn refusal(commands: impl FnOnce(&mut CommandEncoder) -> Result<()>) -> String {
    let device = MlxDevice::cpu().unwrap();
    commands(&mut device.command_encoder().unwrap()).unwrap_err().to_string()
}

/// Zeros on the device that [`refusal`] uses.
pub(crate) fn zeros<const N: usize>(dtype: DType, shape: [usize; N]) -> MlxBuffer {
    MlxDevice::cpu().unwrap().zeros(dtype, shape).unwrap()
}

/// A buffer of `f32`.
pub(crate) fn floats<const N: usize>(device: &MlxDevice, values: &[f32], shape: [usize; N]) -> MlxBuffer {
    device.buffer_from_slice(values, DType::F32, shape).unwrap()
}

/// Normal values of `count` weights times `factor` in an encoding; where none can be quantised, any legal bits.
pub(crate) fn stored_weights(encoding: TensorType, count: usize, factor: f32, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; encoding.byte_len(count as u64).unwrap() as usize];
    let mut random = Random::new(seed);
    match encoding {
        TensorType::Quantized(quant) if !quant.can_quantize() => {
            bytes = random.bytes(bytes.len());
            with_small_scales(quant, &mut bytes);
        }
        _ => {
            let values: Vec<f32> = random.normal_vec(count).into_iter().map(|value| value * factor).collect();
            quant::quantize(encoding, &values, &mut bytes).unwrap();
        }
    }
    bytes
}

/// A matrix on the device of what is stored in an encoding.
pub(crate) fn weight_of(device: &MlxDevice, encoding: TensorType, bytes: &[u8], rows: usize, columns: usize) -> Weight {
    let dtype = match encoding {
        TensorType::Dense(dtype) => dtype,
        TensorType::Quantized(_) => DType::U8,
        TensorType::Mlx(_) => unreachable!("not among these encodings"),
    };
    let data = device.buffer_from_slice(bytes, dtype, [bytes.len() / dtype.size_of()]).unwrap();
    Weight::new(data, encoding, rows, columns).unwrap()
}

/// Makes the scales of random blocks small and finite.
pub(crate) fn with_small_scales(quant: QuantType, bytes: &mut [u8]) {
    for block in bytes.chunks_mut(quant.block_bytes()) {
        match quant {
            // The parts of the binary16 are in the upper nibbles of four bytes.
            QuantType::IQ1_M => {
                block[55] = block[55] & 0x8f | 0x20;
                block[53] &= 0x3f;
            }
            QuantType::MXFP4 => block[0] = block[0] & 3 | 120,
            QuantType::NVFP4 => block[..4].iter_mut().for_each(|scale| *scale &= 0x3f),
            // A binary32.
            QuantType::Q8_K => {
                block[3] = block[3] & 0x80 | 0x3b;
            }
            _ => upper_scale_bytes(quant).iter().for_each(|&upper| block[upper] = block[upper] & 0x83 | 0x20),
        }
    }
}

/// Where the upper bytes of a block's binary16 numbers are.
fn upper_scale_bytes(quant: QuantType) -> &'static [usize] {
    match quant {
        QuantType::Q4_1 | QuantType::Q5_1 | QuantType::Q4_K | QuantType::Q5_K => &[1, 3],
        QuantType::Q2_K => &[81, 83],
        QuantType::Q3_K => &[109],
        QuantType::Q6_K => &[209],
        QuantType::TQ1_0 => &[53],
        QuantType::TQ2_0 => &[65],
        QuantType::IQ1_M | QuantType::MXFP4 | QuantType::NVFP4 | QuantType::Q8_K => panic!("{quant} has other scales"),
        _ => &[1],
    }
}
