//! As `unpack.rs`, for the types whose codes stand for entries of tables, and for the small ones.

use anymlx_formats::quant::{
    BlockIQ1M, BlockIQ1S, BlockIQ2S, BlockIQ2XS, BlockIQ2XXS, BlockIQ3S, BlockIQ3XXS, BlockIQ4NL, BlockIQ4XS,
    BlockMXFP4, BlockNVFP4, BlockQ1_0, BlockQ2_0, BlockQ8K, BlockTQ1_0, BlockTQ2_0, IQ4_LEVELS,
    fp4::{E2M1_DOUBLED, half_e8m0, half_ue4m3},
    grid::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID, even_signs},
};

use super::unpack::{Unpack, two_bits};

/// Low nibbles, then high nibbles, each by `table`.
#[inline(always)]
fn by_table(packed: &[u8], table: &[i8; 16], codes: &mut [i8]) {
    let (low, high) = codes.split_at_mut(packed.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(packed) {
        *low = table[usize::from(byte & 0x0f)];
        *high = table[usize::from(byte >> 4)];
    }
}

/// The magnitudes of a grid point, negative where the sign bit is set.
#[inline(always)]
fn signed<const N: usize>(point: &[i8; N], signs: u8, codes: &mut [i8]) {
    for (index, (code, magnitude)) in codes[..N].iter_mut().zip(point).enumerate() {
        let sign = -((signs >> index & 1) as i8);
        *code = (magnitude ^ sign) - sign;
    }
}

macro_rules! unpack {
    ($($block:ident: $len:literal by $group:literal, minimums $minimums:literal,
        |$this:ident, $codes:ident, $scales:ident, $offsets:ident| $body:block)*) => {$(
        impl Unpack for $block {
            const LEN: usize = $len;
            const GROUP: usize = $group;
            const HAS_MINIMUMS: bool = $minimums;

            #[inline(always)]
            fn unpack(&self, $codes: &mut [i8], $scales: &mut [f32], $offsets: &mut [f32]) {
                let $this = self;
                if !$minimums {
                    $offsets[..$len / $group].fill(0.0);
                }
                $body
            }
        }
    )*};
}

unpack! {
    BlockIQ4NL: 32 by 32, minimums false, |block, codes, scales, offsets| {
        by_table(&block.qs, &IQ4_LEVELS, &mut codes[..32]);
        scales[0] = block.d.to_f32();
    }

    BlockIQ4XS: 256 by 32, minimums false, |block, codes, scales, offsets| {
        let d = block.d.to_f32();
        let groups = codes.as_chunks_mut::<32>().0.iter_mut().zip(scales).zip(&block.qs).zip(block.scales());
        for (((codes, scale), packed), factor) in groups {
            by_table(packed, &IQ4_LEVELS, codes);
            *scale = d * f32::from(factor);
        }
    }

    BlockIQ3XXS: 256 by 32, minimums false, |block, codes, scales, offsets| {
        let d = block.d.to_f32();
        for (group, (codes, scale)) in codes.as_chunks_mut::<32>().0.iter_mut().zip(scales).enumerate() {
            let rest = u32::from_le_bytes(block.scales_and_signs[group]);
            *scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
            for (index, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let signs = even_signs((rest >> (index / 2 * 7)) as u8) >> (index % 2 * 4);
                signed(&IQ3_XXS_GRID[usize::from(block.qs[8 * group + index])], signs, codes);
            }
        }
    }

    BlockIQ3S: 256 by 32, minimums false, |block, codes, scales, offsets| {
        let d = block.d.to_f32();
        for (group, (codes, scale)) in codes.as_chunks_mut::<32>().0.iter_mut().zip(scales).enumerate() {
            let factor = block.scales[group / 2] >> (group % 2 * 4) & 0x0f;
            *scale = d * f32::from(1 + 2 * factor);
            for (index, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let high = block.qh[group] >> index & 1;
                let point = usize::from(block.qs[8 * group + index]) | usize::from(high) << 8;
                signed(&IQ3_S_GRID[point], block.signs[4 * group + index / 2] >> (index % 2 * 4), codes);
            }
        }
    }

    BlockIQ2XXS: 256 by 32, minimums false, |block, codes, scales, offsets| {
        let d = block.d.to_f32();
        let groups = codes.as_chunks_mut::<32>().0.iter_mut().zip(scales).zip(&block.groups);
        for ((codes, scale), &[p0, p1, p2, p3, s0, s1, s2, s3]) in groups {
            let rest = u32::from_le_bytes([s0, s1, s2, s3]);
            *scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
            for (index, (point, codes)) in [p0, p1, p2, p3].into_iter().zip(codes.as_chunks_mut::<8>().0).enumerate() {
                signed(&IQ2_XXS_GRID[usize::from(point)], even_signs((rest >> (7 * index)) as u8), codes);
            }
        }
    }

    BlockIQ2XS: 256 by 16, minimums false, |block, codes, scales, offsets| {
        let d = block.d.to_f32();
        for (group, (codes, scale)) in codes.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate() {
            let factor = block.scales[group / 2] >> (group % 2 * 4) & 0x0f;
            *scale = d * (0.5 + f32::from(factor)) * 0.25;
            for (index, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let code = u16::from_le_bytes(block.qs[2 * group + index]);
                signed(&IQ2_XS_GRID[usize::from(code & 511)], even_signs((code >> 9) as u8), codes);
            }
        }
    }

    BlockIQ2S: 256 by 16, minimums false, |block, codes, scales, offsets| {
        let d = block.d.to_f32();
        for (group, (codes, scale)) in codes.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate() {
            let factor = block.scales[group / 2] >> (group % 2 * 4) & 0x0f;
            *scale = d * (0.5 + f32::from(factor)) * 0.25;
            for (index, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let eight = 2 * group + index;
                let high = block.qh[eight / 4] >> (eight % 4 * 2) & 3;
                let point = usize::from(block.qs[eight]) | usize::from(high) << 8;
                signed(&IQ2_S_GRID[point], block.signs[eight], codes);
            }
        }
    }

    // The shift of all codes of a group is a minimum.
    BlockIQ1S: 256 by 32, minimums true, |block, codes, scales, offsets| {
        let d = block.d.to_f32();
        let groups = codes.as_chunks_mut::<32>().0.iter_mut().zip(scales).zip(offsets).zip(block.qh);
        for (group, (((codes, scale), offset), high)) in groups.enumerate() {
            let high = u16::from_le_bytes(high);
            *scale = d * f32::from(2 * (high >> 12 & 7) + 1);
            *offset = *scale * if high & 0x8000 == 0 { 0.125 } else { -0.125 };
            for (index, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let point = usize::from(block.qs[4 * group + index]) | usize::from(high >> (3 * index) & 7) << 8;
                *codes = IQ1_GRID[point];
            }
        }
    }

    // The shift of each eight codes, an eighth, is part of the codes.
    BlockIQ1M: 256 by 16, minimums false, |block, codes, scales, offsets| {
        let d = block.d().to_f32();
        for (group, (codes, scale)) in codes.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate() {
            let factor = u16::from_le_bytes(block.scales[group / 4]) >> (group % 4 * 3) & 7;
            *scale = d * f32::from(2 * factor + 1) * 0.125;
            for (index, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let eight = 2 * group + index;
                let high = block.qh[eight / 2] >> (eight % 2 * 4) & 0x0f;
                let shift = if high & 8 == 0 { 1 } else { -1 };
                let point = usize::from(block.qs[eight]) | usize::from(high & 7) << 8;
                *codes = IQ1_GRID[point].map(|code| 8 * code + shift);
            }
        }
    }

    BlockTQ1_0: 256 by 32, minimums false, |block, codes, scales, offsets| {
        scales[..8].fill(block.d.to_f32());
        let digits = |bytes: &[u8], codes: &mut [i8], count: usize| {
            for (power, codes) in [1_u8, 3, 9, 27, 81].into_iter().zip(codes.chunks_exact_mut(bytes.len())).take(count) {
                for (code, byte) in codes.iter_mut().zip(bytes) {
                    *code = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1;
                }
            }
        };
        digits(&block.qs[..32], &mut codes[..160], 5);
        digits(&block.qs[32..], &mut codes[160..240], 5);
        digits(&block.qh, &mut codes[240..256], 4);
    }

    BlockTQ2_0: 256 by 32, minimums false, |block, codes, scales, offsets| {
        scales[..8].fill(block.d.to_f32());
        two_bits(&block.qs, codes);
        codes[..256].iter_mut().for_each(|code| *code -= 1);
    }

    BlockMXFP4: 32 by 32, minimums false, |block, codes, scales, offsets| {
        by_table(&block.qs, &E2M1_DOUBLED, &mut codes[..32]);
        scales[0] = half_e8m0(block.e);
    }

    BlockNVFP4: 64 by 16, minimums false, |block, codes, scales, offsets| {
        let groups = codes.as_chunks_mut::<16>().0.iter_mut().zip(scales).zip(&block.qs).zip(block.d);
        for (((codes, scale), packed), factor) in groups {
            by_table(packed, &E2M1_DOUBLED, codes);
            *scale = half_ue4m3(factor);
        }
    }

    BlockQ1_0: 128 by 32, minimums false, |block, codes, scales, offsets| {
        scales[..4].fill(block.d.to_f32());
        for (codes, byte) in codes.as_chunks_mut::<8>().0.iter_mut().zip(block.qs) {
            *codes = std::array::from_fn(|index| 2 * (byte >> index & 1) as i8 - 1);
        }
    }

    BlockQ2_0: 64 by 32, minimums false, |block, codes, scales, offsets| {
        scales[..2].fill(block.d.to_f32());
        for (codes, byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(block.qs) {
            *codes = std::array::from_fn(|index| (byte >> (2 * index) & 3) as i8 - 1);
        }
    }

    BlockQ8K: 256 by 32, minimums false, |block, codes, scales, offsets| {
        scales[..8].fill(f32::from_le_bytes(block.d));
        codes[..256].copy_from_slice(&block.qs);
    }
}
