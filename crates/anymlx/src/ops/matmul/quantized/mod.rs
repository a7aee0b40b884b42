//! Products of quantised weights with 8-bit activations.
//!
//! A value of a weight row is `scale * code + minimum` with one scale and minimum for each 16 or 32 columns, an activation
//! is `scale * quant` with one scale for each 32. Codes and quants are multiplied and added as integers within a group,
//! and groups in `f32`; minimums are multiplied with the sums of quants.

mod portable;
mod unpack;
mod unpack_codebook;
pub(super) mod unpacked;
#[cfg(target_arch = "x86_64")]
mod x86;

use anymlx_formats::quant::{
    BlockIQ1M, BlockIQ1S, BlockIQ2S, BlockIQ2XS, BlockIQ2XXS, BlockIQ3S, BlockIQ3XXS, BlockIQ4NL, BlockIQ4XS,
    BlockMXFP4, BlockNVFP4, BlockQ1_0, BlockQ2_0, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
    BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, BlockQ8K, BlockTQ1_0, BlockTQ2_0, QuantType,
};

use super::part::MultiplyQuantized;
use crate::{CpuLevel, KernelFault};

/// The function that multiplies weights of this type.
pub(super) fn method(quant: QuantType, level: CpuLevel, tiled: bool) -> Result<MultiplyQuantized, KernelFault> {
    if let Some(method) = by_plain_form(quant, level, tiled) {
        return Ok(method);
    }
    match level {
        CpuLevel::Scalar => scalar(quant),
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx2 => x86::avx2(quant, tiled),
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx512 => x86::avx512(quant, tiled),
        #[cfg(not(target_arch = "x86_64"))]
        _ => scalar(quant),
    }
}

/// The method for types that are unpacked into the plain form.
fn by_plain_form(quant: QuantType, level: CpuLevel, tiled: bool) -> Option<MultiplyQuantized> {
    Some(match quant {
        QuantType::IQ1_S => unpacked::method::<BlockIQ1S>(level, tiled),
        QuantType::IQ1_M => unpacked::method::<BlockIQ1M>(level, tiled),
        QuantType::IQ2_XXS => unpacked::method::<BlockIQ2XXS>(level, tiled),
        QuantType::IQ2_XS => unpacked::method::<BlockIQ2XS>(level, tiled),
        QuantType::IQ2_S => unpacked::method::<BlockIQ2S>(level, tiled),
        QuantType::IQ3_XXS => unpacked::method::<BlockIQ3XXS>(level, tiled),
        QuantType::IQ3_S => unpacked::method::<BlockIQ3S>(level, tiled),
        QuantType::IQ4_NL => unpacked::method::<BlockIQ4NL>(level, tiled),
        QuantType::IQ4_XS => unpacked::method::<BlockIQ4XS>(level, tiled),
        QuantType::TQ1_0 => unpacked::method::<BlockTQ1_0>(level, tiled),
        QuantType::TQ2_0 => unpacked::method::<BlockTQ2_0>(level, tiled),
        QuantType::MXFP4 => unpacked::method::<BlockMXFP4>(level, tiled),
        QuantType::NVFP4 => unpacked::method::<BlockNVFP4>(level, tiled),
        QuantType::Q1_0 => unpacked::method::<BlockQ1_0>(level, tiled),
        QuantType::Q2_0 => unpacked::method::<BlockQ2_0>(level, tiled),
        QuantType::Q8_K => unpacked::method::<BlockQ8K>(level, tiled),
        _ => return None,
    })
}

/// The method for the plain form with `N` factors for each 32 columns.
pub(super) fn plain_method<const N: usize>(level: CpuLevel, tiled: bool) -> MultiplyQuantized {
    match level {
        CpuLevel::Scalar => portable::multiply::<unpacked::Unpacked<N>>,
        #[cfg(target_arch = "x86_64")]
        _ => x86::plain::<N>(level, tiled),
        #[cfg(not(target_arch = "x86_64"))]
        _ => portable::multiply::<unpacked::Unpacked<N>>,
    }
}

/// The portable method serves any number of tokens.
fn scalar(quant: QuantType) -> Result<MultiplyQuantized, KernelFault> {
    Ok(match quant {
        QuantType::Q4_0 => portable::multiply::<BlockQ4_0>,
        QuantType::Q4_1 => portable::multiply::<BlockQ4_1>,
        QuantType::Q5_0 => portable::multiply::<BlockQ5_0>,
        QuantType::Q5_1 => portable::multiply::<BlockQ5_1>,
        QuantType::Q8_0 => portable::multiply::<BlockQ8_0>,
        QuantType::Q2_K => portable::multiply::<BlockQ2K>,
        QuantType::Q3_K => portable::multiply::<BlockQ3K>,
        QuantType::Q4_K => portable::multiply::<BlockQ4K>,
        QuantType::Q5_K => portable::multiply::<BlockQ5K>,
        QuantType::Q6_K => portable::multiply::<BlockQ6K>,
        _ => return Err(KernelFault(format!("{quant} has no kernel"))),
    })
}
