//! Rows of a matrix of MLX in other forms.

use anymlx_formats::{
    DType,
    mlx::{Mode, e2m1, e4m3, e8m0},
    quant::fp4::E2M1_DOUBLED,
};
use half::{bf16, f16};

use crate::ops::matmul::quantized::unpacked::Unpacked;

/// The matrix as the kernel gets it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) packed: &'a [u8],
    pub(super) scales: &'a [u8],
    pub(super) biases: &'a [u8],
    pub(super) scale_type: DType,
    pub(super) mode: Mode,
    pub(super) bits: usize,
    pub(super) group: usize,
    pub(super) columns: usize,
}

/// `bytes.len() / BITS * 8` codes of `BITS` bits each, from a little-endian stream.
#[inline(always)]
fn codes_of<const BITS: usize>(bytes: &[u8], codes: &mut [u8]) {
    let mask = ((1_u32 << BITS) - 1) as u8;
    for (bytes, codes) in bytes.as_chunks::<BITS>().0.iter().zip(codes.as_chunks_mut::<8>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        let word = u64::from_le_bytes(word);
        *codes = std::array::from_fn(|index| (word >> (BITS * index)) as u8 & mask);
    }
}

/// The factor at `index`, where factors are floating-point numbers.
#[inline(always)]
fn factor(bytes: &[u8], index: usize, dtype: DType) -> f32 {
    let half = || u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]);
    match dtype {
        DType::F16 => f16::from_bits(half()).to_f32(),
        DType::BF16 => bf16::from_bits(half()).to_f32(),
        _ => {
            let bytes = &bytes[4 * index..4 * index + 4];
            f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        }
    }
}

impl Source<'_> {
    /// The codes of the group at `index`, counted through all rows.
    #[inline(always)]
    fn codes(&self, index: usize, codes: &mut [u8]) {
        let bytes = self.group * self.bits / 8;
        let packed = &self.packed[index * bytes..(index + 1) * bytes];
        match self.bits {
            1 => codes_of::<1>(packed, codes),
            2 => codes_of::<2>(packed, codes),
            3 => codes_of::<3>(packed, codes),
            4 => codes_of::<4>(packed, codes),
            5 => codes_of::<5>(packed, codes),
            6 => codes_of::<6>(packed, codes),
            _ => codes.copy_from_slice(packed),
        }
    }

    /// Scale and bias of affine mode, for the group at `index`.
    #[inline(always)]
    fn affine(&self, index: usize) -> (f32, f32) {
        (factor(self.scales, index, self.scale_type), factor(self.biases, index, self.scale_type))
    }

    /// One row as `f32`, each element computed as MLX does.
    #[inline(always)]
    pub(super) fn values(&self, row: usize, values: &mut [f32]) {
        let groups = self.columns / self.group;
        let mut codes = [0; 128];
        let codes = &mut codes[..self.group];
        for (group, values) in values.chunks_exact_mut(self.group).enumerate() {
            let index = row * groups + group;
            self.codes(index, codes);
            let codes = values.iter_mut().zip(codes.iter());
            match self.mode {
                Mode::Affine => {
                    let (scale, bias) = self.affine(index);
                    codes.for_each(|(value, code)| *value = scale * f32::from(*code) + bias);
                }
                Mode::Mxfp4 => {
                    let scale = e8m0(self.scales[index]);
                    codes.for_each(|(value, code)| *value = scale * e2m1(*code));
                }
                Mode::Mxfp8 => {
                    let scale = e8m0(self.scales[index]);
                    codes.for_each(|(value, code)| *value = scale * e4m3(*code));
                }
                Mode::Nvfp4 => {
                    let scale = e4m3(self.scales[index]);
                    codes.for_each(|(value, code)| *value = scale * e2m1(*code));
                }
            }
        }
    }

    /// One row of signed integers with a scale and a minimum for each 32 (`N` is 1) or 16 columns; not for `Mxfp8`.
    #[inline(always)]
    pub(super) fn integers<const N: usize>(&self, row: usize, unpacked: &mut [Unpacked<N>]) {
        let groups = self.columns / self.group;
        let mut codes = [0; 128];
        let codes = &mut codes[..self.group];
        let first = row * groups;
        if N == 2 {
            // Groups of 16, which only Nvfp4 has.
            for (block, unpacked) in unpacked.iter_mut().enumerate() {
                for half in 0..2 {
                    let index = first + 2 * block + half;
                    self.codes(index, codes);
                    let signed = unpacked.codes[16 * half..16 * half + 16].iter_mut().zip(codes.iter());
                    signed.for_each(|(signed, code)| *signed = E2M1_DOUBLED[usize::from(*code)]);
                    unpacked.scales[half] = 0.5 * e4m3(self.scales[index]);
                    unpacked.minimums[half] = 0.0;
                }
            }
            return;
        }
        for (group, unpacked) in unpacked.chunks_exact_mut(self.group / 32).enumerate() {
            let index = first + group;
            self.codes(index, codes);
            let (scale, minimum) = match self.mode {
                Mode::Affine if self.bits == 8 => {
                    let (scale, bias) = self.affine(index);
                    codes.iter_mut().for_each(|code| *code ^= 0x80);
                    (scale, 128.0 * scale + bias)
                }
                Mode::Affine => self.affine(index),
                _ => {
                    codes.iter_mut().for_each(|code| *code = E2M1_DOUBLED[usize::from(*code)].cast_unsigned());
                    (0.5 * e8m0(self.scales[index]), 0.0)
                }
            };
            for (unpacked, codes) in unpacked.iter_mut().zip(codes.as_chunks::<32>().0) {
                unpacked.codes = codes.map(u8::cast_signed);
                unpacked.scales.fill(scale);
                unpacked.minimums.fill(minimum);
            }
        }
    }
}
