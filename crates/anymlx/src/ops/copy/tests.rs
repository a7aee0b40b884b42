use anymlx_testing::Random;
use half::{bf16, f16};

use super::*;
use crate::ops::{
    test_data::{floats, refusal, run, zeros},
    test_devices::{devices, metal_devices},
};

/// Bits of the nearest 16-bit number: the neighbours of a guess are tried in turn.
fn nearest(x: f32, guess: u16, value: impl Fn(u16) -> f64, overflow: f64) -> u16 {
    if x.is_infinite() {
        return guess;
    }
    let distance = |bits: u16| {
        let value = value(bits);
        let value = if value.is_infinite() { overflow.copysign(value) } else { value };
        ((value - f64::from(x)).abs(), bits & 1)
    };
    let candidates = [guess.wrapping_sub(1), guess, guess.wrapping_add(1)];
    let sound = candidates.into_iter().filter(|&bits| bits >> 15 == guess >> 15 && !value(bits).is_nan());
    sound.min_by(|&a, &b| distance(a).partial_cmp(&distance(b)).unwrap()).unwrap()
}

fn to_f16(x: &f32) -> u16 {
    nearest(*x, f16::from_f32(*x).to_bits(), |bits| f16::from_bits(bits).to_f64(), 65536.0)
}

fn to_bf16(x: &f32) -> u16 {
    nearest(*x, (x.to_bits() >> 16) as u16, |bits| bf16::from_bits(bits).to_f64(), 2f64.powi(128))
}

#[test]
fn casts_round_to_nearest() {
    for device in devices() {
        for count in [1, 7 * 33, 20_011] {
            let mut x = Random::new(6).normal_vec(count);
            x[0] = 1e-7;
            if count > 5 {
                // Overflow, and halfway cases of both types that go to the even side.
                (x[1], x[2], x[3], x[4]) = (1e6, f32::NEG_INFINITY, 1.0 + 3.0 / 2048.0, 1.0 + 3.0 / 256.0);
            }
            let singles = floats(&device, &x, [count]);
            let halves = device.zeros(DType::F16, [1, count]).unwrap();
            let brains = device.zeros(DType::BF16, [count, 1]).unwrap();
            let back = device.zeros(DType::F32, [count]).unwrap();
            let cast = |from: &MlxBuffer, to: &MlxBuffer| run(&device, |encoder| copy(encoder, from, to));
            let bits = |buffer: &MlxBuffer| buffer.to_vec::<u16>().unwrap();
            let expect = |actual: Vec<f32>, expected: &[f32]| {
                let wrong = actual.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
                assert_eq!(wrong, None, "first wrong index of {count}");
            };
            let expect_bits = |actual: Vec<u16>, expected: Vec<u16>| {
                assert_eq!(
                    actual.iter().zip(&expected).position(|(a, b)| a != b),
                    None,
                    "first wrong index of {count}"
                );
            };
            cast(&singles, &halves);
            expect_bits(bits(&halves), x.iter().map(to_f16).collect());
            cast(&halves, &back);
            let rounded: Vec<f32> = bits(&halves).iter().map(|&bits| f16::from_bits(bits).to_f32()).collect();
            expect(back.to_vec().unwrap(), &rounded);
            cast(&halves, &brains);
            expect_bits(bits(&brains), rounded.iter().map(to_bf16).collect());
            cast(&singles, &brains);
            expect_bits(bits(&brains), x.iter().map(to_bf16).collect());
            cast(&brains, &back);
            let rounded: Vec<f32> = bits(&brains).iter().map(|&bits| f32::from_bits(u32::from(bits) << 16)).collect();
            expect(back.to_vec().unwrap(), &rounded);
            cast(&brains, &halves);
            expect_bits(bits(&halves), rounded.iter().map(to_f16).collect());
            cast(&singles, &back);
            expect(back.to_vec().unwrap(), &x);
        }
    }
}

#[test]
fn views_are_copied_alone() {
    for device in devices() {
        let from = floats(&device, &[1.0, 2.0, 3.0, 4.0], [4]);
        let to = floats(&device, &[0.0; 4], [4]);
        run(&device, |encoder| copy(encoder, &from.slice_view(4, 2), &to.slice_view(8, 2)));
        assert_eq!(to.to_vec::<f32>().unwrap(), [0.0, 0.0, 2.0, 3.0]);
    }
}

/// By 16 bytes where that is possible, else by one; of the Metal backend these are kernels.
#[test]
fn bytes_are_copied_and_filled() {
    for device in devices().into_iter().chain(metal_devices()) {
        for (start, count) in [(0, 640), (0, 331), (7, 320), (16, 1)] {
            let bytes = Random::new(4).bytes(700);
            let from = device.buffer_from_slice(&bytes, DType::U8, [700]).unwrap();
            let to = device.zeros(DType::U8, [700]).unwrap();
            run(&device, |encoder| {
                encoder.fill_bytes(&to.slice_view(start as u64, count), 0x5a)?;
                encoder.copy_bytes(&from.slice_view(start as u64, count - 1), &to.slice_view(start as u64, count - 1))
            });
            let mut expected = vec![0; 700];
            expected[start..start + count].fill(0x5a);
            expected[start..start + count - 1].copy_from_slice(&bytes[start..start + count - 1]);
            assert_eq!(to.to_vec::<u8>().unwrap(), expected, "{start} {count}");
        }
    }
}

#[test]
fn refusals_show_what_does_not_fit() {
    let (a, b) = (zeros(DType::F32, [7, 33]), zeros(DType::F16, [7, 11]));
    assert_eq!(refusal(|e| copy(e, &a, &b)), "copy: from is [7, 33] and to is [7, 11], needed as many elements");
    assert_eq!(refusal(|e| copy(e, &a, &zeros(DType::U32, [231]))), "copy: to is u32, needed f32 or f16 or bf16");
    assert!(refusal(|e| copy(e, &a, &a)).contains("overlap"));
}
