//! Products of quantised weights with 8-bit activations.
//!
//! A value of a weight row is `scale * code + minimum` with one scale and minimum for each 16 or 32 columns, an activation
//! is `scale * quant` with one scale for each 32. Codes and quants are multiplied and added as integers within a group,
//! and groups in `f32`; minimums are multiplied with the sums of quants.

mod portable;
mod unpack;
#[cfg(target_arch = "x86_64")]
mod x86;

use anymlx_formats::quant::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, QuantType,
};

use super::part::MultiplyQuantized;
use crate::{CpuLevel, KernelFault};

/// The function that multiplies weights of this type.
pub(super) fn method(quant: QuantType, level: CpuLevel, tiled: bool) -> Result<MultiplyQuantized, KernelFault> {
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
