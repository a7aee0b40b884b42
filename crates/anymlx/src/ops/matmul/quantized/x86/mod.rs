//! The methods of x86-64.
//!
//! * `encoding.rs` and `k_encoding.rs` bring codes and factors of each type into registers.
//! * `rows.rs` multiplies them at once, for few tokens; `wide.rs` for one token of 16 bits.
//! * `panel.rs` lays them out for `tile.rs`, which multiplies them with many.
//! * `avx2.rs` and `avx512.rs` hold what the levels do differently; `signed.rs` the loop of AVX2 for signed codes.
//!
//! Inner loops run over indices, with sizes known when they are compiled: adapters of iterators are functions of their own,
//! without the level's instructions, and where one is not inlined its arrays of vectors live in memory.
#![allow(clippy::needless_range_loop)]

mod avx2;
mod avx512;
mod encoding;
mod k_encoding;
mod panel;
mod plain;
mod rows;
mod signed;
mod tile;
mod wide;

use anymlx_formats::quant::QuantType;

use crate::{
    CpuLevel, KernelFault,
    ops::matmul::{
        part::{MultiplyQuantized, Part, QuantizedTokens, Sums},
        quantized::unpacked::Unpacked,
    },
};
use avx2::Avx2;
use avx512::Avx512;
use encoding::{Encoding, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use k_encoding::{Q2K, Q3K, Q4K, Q5K, Q6K};
use tile::{AsStored, Unsigned};

/// A level's two methods, for any encoding.
trait Methods {
    fn of<E: Encoding>(tiled: bool) -> MultiplyQuantized;
}

impl Methods for Avx2 {
    fn of<E: Encoding>(tiled: bool) -> MultiplyQuantized {
        if tiled { avx2_tiles::<E> } else { avx2_rows::<E> }
    }
}

impl Methods for Avx512 {
    fn of<E: Encoding>(tiled: bool) -> MultiplyQuantized {
        match (tiled, E::SIGNED) {
            (true, true) => avx512_tiles::<E, 128>,
            (true, false) => avx512_tiles::<E, 0>,
            (false, _) => avx512_rows::<E>,
        }
    }
}

/// The AVX2 method for weights of this type.
pub(super) fn avx2(quant: QuantType, tiled: bool) -> Result<MultiplyQuantized, KernelFault> {
    select::<Avx2>(quant, tiled)
}

/// The AVX-512 method for weights of this type.
pub(super) fn avx512(quant: QuantType, tiled: bool) -> Result<MultiplyQuantized, KernelFault> {
    select::<Avx512>(quant, tiled)
}

/// The method for the plain form with `N` factors for each 32 columns.
pub(super) fn plain<const N: usize>(level: CpuLevel, tiled: bool) -> MultiplyQuantized {
    match level {
        CpuLevel::Avx512 => Avx512::of::<Unpacked<N>>(tiled),
        _ => Avx2::of::<Unpacked<N>>(tiled),
    }
}

fn select<M: Methods>(quant: QuantType, tiled: bool) -> Result<MultiplyQuantized, KernelFault> {
    Ok(match quant {
        QuantType::Q4_0 => M::of::<Q4_0>(tiled),
        QuantType::Q4_1 => M::of::<Q4_1>(tiled),
        QuantType::Q5_0 => M::of::<Q5_0>(tiled),
        QuantType::Q5_1 => M::of::<Q5_1>(tiled),
        QuantType::Q8_0 => M::of::<Q8_0>(tiled),
        QuantType::Q2_K => M::of::<Q2K>(tiled),
        QuantType::Q3_K => M::of::<Q3K>(tiled),
        QuantType::Q4_K => M::of::<Q4K>(tiled),
        QuantType::Q5_K => M::of::<Q5K>(tiled),
        QuantType::Q6_K => M::of::<Q6K>(tiled),
        _ => return Err(KernelFault(format!("{quant} has no kernel"))),
    })
}

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_rows<E: Encoding>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    // SAFETY: this function is compiled for the level, which the processor has.
    unsafe { rows::multiply::<E, Avx2>(part, tokens, sums) }
}

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_tiles<E: Encoding>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    // SAFETY: this function is compiled for the level, which the processor has.
    unsafe { tile::multiply::<E, Avx2, Avx2, AsStored<E>, 0>(part, tokens, sums) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn avx512_rows<E: Encoding>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    // SAFETY: this function is compiled for the level, which the processor has.
    unsafe { rows::multiply::<E, Avx512>(part, tokens, sums) }
}

/// `FLIP` is 128 for signed codes, which become unsigned, and 0 for others.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn avx512_tiles<E: Encoding, const FLIP: u8>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    // SAFETY: this function is compiled for the level, which the processor has.
    unsafe { tile::multiply::<E, Avx512, Avx512, Unsigned<E>, FLIP>(part, tokens, sums) }
}
