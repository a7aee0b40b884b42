//! How stored weights become `f32`.

use anymlx_formats::quant::Block;
use bytemuck::AnyBitPattern;
use half::f16;

use crate::ops::lanes::Lanes;

/// Weights that are turned into `f32` some at a time.
pub(super) trait Decode {
    /// Elements that are decoded together.
    const LEN: usize;
    /// Their bytes.
    const BYTES: usize;

    /// `bytes` holds exactly the elements of `values`, a multiple of `LEN`.
    fn decode(bytes: &[u8], values: &mut [f32]);
}

/// Weights that are loaded into vectors as they are used.
pub(super) trait Element: Decode {
    /// What is stored.
    type Stored: AnyBitPattern;

    /// The first `L::WIDTH` elements.
    fn load<L: Lanes>(stored: &[Self::Stored]) -> L;
    fn to_f32(stored: Self::Stored) -> f32;
}

/// `f32`.
pub(super) struct F32;
/// IEEE 754 binary16.
pub(super) struct F16;
/// The upper half of an `f32`.
pub(super) struct Bf16;
/// Blocks of a quantised type.
pub(super) struct Blocks<B>(std::marker::PhantomData<B>);

impl Element for F32 {
    type Stored = f32;

    #[inline(always)]
    fn load<L: Lanes>(stored: &[f32]) -> L {
        L::load(stored)
    }

    #[inline(always)]
    fn to_f32(stored: f32) -> f32 {
        stored
    }
}

impl Element for F16 {
    type Stored = f16;

    #[inline(always)]
    fn load<L: Lanes>(stored: &[f16]) -> L {
        L::load_f16(stored)
    }

    #[inline(always)]
    fn to_f32(stored: f16) -> f32 {
        stored.to_f32()
    }
}

impl Element for Bf16 {
    type Stored = u16;

    #[inline(always)]
    fn load<L: Lanes>(stored: &[u16]) -> L {
        let mut values = [0.0; crate::ops::lanes::MAX_WIDTH];
        for (value, &stored) in values[..L::WIDTH].iter_mut().zip(&stored[..L::WIDTH]) {
            *value = Self::to_f32(stored);
        }
        L::load(&values)
    }

    #[inline(always)]
    fn to_f32(stored: u16) -> f32 {
        f32::from_bits(u32::from(stored) << 16)
    }
}

impl<E: Element> Decode for E {
    const LEN: usize = 1;
    const BYTES: usize = size_of::<E::Stored>();

    #[inline(always)]
    fn decode(bytes: &[u8], values: &mut [f32]) {
        for (value, &stored) in values.iter_mut().zip(bytemuck::cast_slice::<u8, E::Stored>(bytes)) {
            *value = E::to_f32(stored);
        }
    }
}

impl<B: Block> Decode for Blocks<B> {
    const LEN: usize = size_of::<B::Values>() / size_of::<f32>();
    const BYTES: usize = size_of::<B>();

    fn decode(bytes: &[u8], values: &mut [f32]) {
        let blocks: &[B] = bytemuck::cast_slice(bytes);
        for (block, values) in blocks.iter().zip(bytemuck::cast_slice_mut(values)) {
            block.dequantize(values);
        }
    }
}
