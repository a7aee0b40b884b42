//! Products with `f32` activations as they are: those of dense weights, and the exact ones of quantised weights.

mod decoded;
mod element;
mod rows;
mod tile;

use anymlx_formats::{
    DType,
    quant::{
        BlockIQ1M, BlockIQ1S, BlockIQ2S, BlockIQ2XS, BlockIQ2XXS, BlockIQ3S, BlockIQ3XXS, BlockIQ4NL, BlockIQ4XS,
        BlockMXFP4, BlockNVFP4, BlockQ1_0, BlockQ2_0, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
        BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, BlockQ8K, BlockTQ1_0, BlockTQ2_0, QuantType, TensorType,
    },
};

use super::part::{MultiplyValues, Part, Sums};
use crate::{CpuLevel, KernelFault, ops::lanes};
use element::{Bf16, Blocks, Decode, Element, F16, F32};
use lanes::Lanes;

/// A method, written for any vector width. `V` vectors hold one entry of each weight row; `T` is how many tokens' sums,
/// `V` vectors each, the registers take.
trait Method {
    /// Must be `#[inline(always)]`: see [`lanes::LaneKernel`].
    fn multiply<L: Lanes, const V: usize, const T: usize>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]);
}

struct ByRow<E>(std::marker::PhantomData<E>);
struct ByTile<D>(std::marker::PhantomData<D>);

impl<E: Element> Method for ByRow<E> {
    #[inline(always)]
    fn multiply<L: Lanes, const V: usize, const T: usize>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
        rows::multiply::<L, E>(part, values, sums);
    }
}

impl<D: Decode> Method for ByTile<D> {
    #[inline(always)]
    fn multiply<L: Lanes, const V: usize, const T: usize>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
        tile::multiply::<L, D, V, T>(part, values, sums);
    }
}

/// The function that multiplies weights of this encoding.
pub(super) fn method(encoding: TensorType, level: CpuLevel, tiled: bool) -> Result<MultiplyValues, KernelFault> {
    Ok(match encoding {
        TensorType::Dense(DType::F32) if tiled => at_level::<ByTile<F32>>(level),
        TensorType::Dense(DType::F16) if tiled => at_level::<ByTile<F16>>(level),
        TensorType::Dense(DType::BF16) if tiled => at_level::<ByTile<Bf16>>(level),
        TensorType::Dense(DType::F32) => at_level::<ByRow<F32>>(level),
        TensorType::Dense(DType::F16) => at_level::<ByRow<F16>>(level),
        TensorType::Dense(DType::BF16) => at_level::<ByRow<Bf16>>(level),
        TensorType::Quantized(QuantType::Q4_0) => at_level::<ByTile<Blocks<BlockQ4_0>>>(level),
        TensorType::Quantized(QuantType::Q4_1) => at_level::<ByTile<Blocks<BlockQ4_1>>>(level),
        TensorType::Quantized(QuantType::Q5_0) => at_level::<ByTile<Blocks<BlockQ5_0>>>(level),
        TensorType::Quantized(QuantType::Q5_1) => at_level::<ByTile<Blocks<BlockQ5_1>>>(level),
        TensorType::Quantized(QuantType::Q8_0) => at_level::<ByTile<Blocks<BlockQ8_0>>>(level),
        TensorType::Quantized(QuantType::Q2_K) => at_level::<ByTile<Blocks<BlockQ2K>>>(level),
        TensorType::Quantized(QuantType::Q3_K) => at_level::<ByTile<Blocks<BlockQ3K>>>(level),
        TensorType::Quantized(QuantType::Q4_K) => at_level::<ByTile<Blocks<BlockQ4K>>>(level),
        TensorType::Quantized(QuantType::Q5_K) => at_level::<ByTile<Blocks<BlockQ5K>>>(level),
        TensorType::Quantized(QuantType::Q6_K) => at_level::<ByTile<Blocks<BlockQ6K>>>(level),
        TensorType::Quantized(QuantType::IQ1_S) => decoded::method::<BlockIQ1S>(level),
        TensorType::Quantized(QuantType::IQ1_M) => decoded::method::<BlockIQ1M>(level),
        TensorType::Quantized(QuantType::IQ2_XXS) => decoded::method::<BlockIQ2XXS>(level),
        TensorType::Quantized(QuantType::IQ2_XS) => decoded::method::<BlockIQ2XS>(level),
        TensorType::Quantized(QuantType::IQ2_S) => decoded::method::<BlockIQ2S>(level),
        TensorType::Quantized(QuantType::IQ3_XXS) => decoded::method::<BlockIQ3XXS>(level),
        TensorType::Quantized(QuantType::IQ3_S) => decoded::method::<BlockIQ3S>(level),
        TensorType::Quantized(QuantType::IQ4_NL) => decoded::method::<BlockIQ4NL>(level),
        TensorType::Quantized(QuantType::IQ4_XS) => decoded::method::<BlockIQ4XS>(level),
        TensorType::Quantized(QuantType::TQ1_0) => decoded::method::<BlockTQ1_0>(level),
        TensorType::Quantized(QuantType::TQ2_0) => decoded::method::<BlockTQ2_0>(level),
        TensorType::Quantized(QuantType::MXFP4) => decoded::method::<BlockMXFP4>(level),
        TensorType::Quantized(QuantType::NVFP4) => decoded::method::<BlockNVFP4>(level),
        TensorType::Quantized(QuantType::Q1_0) => decoded::method::<BlockQ1_0>(level),
        TensorType::Quantized(QuantType::Q2_0) => decoded::method::<BlockQ2_0>(level),
        TensorType::Quantized(QuantType::Q8_K) => decoded::method::<BlockQ8K>(level),
        _ => return Err(KernelFault(format!("{encoding} has no kernel"))),
    })
}

fn at_level<M: Method>(level: CpuLevel) -> MultiplyValues {
    match level {
        CpuLevel::Scalar => scalar::<M>,
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx2 => avx2::<M>,
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx512 => avx512::<M>,
        #[cfg(not(target_arch = "x86_64"))]
        _ => scalar::<M>,
    }
}

/// # Safety
/// None is needed.
unsafe fn scalar<M: Method>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
    M::multiply::<lanes::Portable, 2, 1>(part, values, sums);
}

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<M: Method>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
    M::multiply::<lanes::Avx2, 2, 6>(part, values, sums);
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<M: Method>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
    M::multiply::<lanes::Avx512, 1, 6>(part, values, sums);
}
