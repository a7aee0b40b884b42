//! Layouts that store groups of elements as numbers of points on a grid: `IQ1_*`, `IQ2_*`, `IQ3_*`.
//!
//! A point gives the magnitudes of 8 (`IQ1`, `IQ2`) or 4 (`IQ3`) elements; the grids are part of the format. They lie packed
//! in `tables/`, taken from PyPI `gguf` 0.19.0 by the script there, and are unpacked when this crate is compiled.

mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;

pub use iq1_m::BlockIQ1M;
pub use iq1_s::BlockIQ1S;
pub use iq2_s::BlockIQ2S;
pub use iq2_xs::BlockIQ2XS;
pub use iq2_xxs::BlockIQ2XXS;
pub use iq3_s::BlockIQ3S;
pub use iq3_xxs::BlockIQ3XXS;

/// Grid of `IQ1_S` and `IQ1_M`: elements -1, 0, 1.
pub static IQ1_GRID: [[i8; 8]; 2048] = unpack(include_bytes!("tables/iq1_s.grid"), 2, &[-1, 0, 1]);

/// Grid of `IQ2_XXS`.
pub static IQ2_XXS_GRID: [[i8; 8]; 256] = unpack(include_bytes!("tables/iq2_xxs.grid"), 2, &IQ2_MAGNITUDES);

/// Grid of `IQ2_XS`.
pub static IQ2_XS_GRID: [[i8; 8]; 512] = unpack(include_bytes!("tables/iq2_xs.grid"), 2, &IQ2_MAGNITUDES);

/// Grid of `IQ2_S`.
pub static IQ2_S_GRID: [[i8; 8]; 1024] = unpack(include_bytes!("tables/iq2_s.grid"), 2, &IQ2_MAGNITUDES);

/// Grid of `IQ3_XXS`.
pub static IQ3_XXS_GRID: [[i8; 4]; 256] =
    unpack(include_bytes!("tables/iq3_xxs.grid"), 4, &[4, 12, 20, 28, 36, 44, 52, 62]);

/// Grid of `IQ3_S`.
pub static IQ3_S_GRID: [[i8; 4]; 512] = unpack(include_bytes!("tables/iq3_s.grid"), 4, &[1, 3, 5, 7, 9, 11, 13, 15]);

const IQ2_MAGNITUDES: [i8; 3] = [8, 25, 43];

/// A table of codes of `bits` bits, least significant first, each standing for an entry of `meaning`.
const fn unpack<const POINT: usize, const POINTS: usize>(
    packed: &[u8],
    bits: usize,
    meaning: &[i8],
) -> [[i8; POINT]; POINTS] {
    let per_byte = 8 / bits;
    assert!(packed.len() * per_byte == POINT * POINTS, "the table has another size");
    let mut grid = [[0; POINT]; POINTS];
    let mut at = 0;
    while at < POINT * POINTS {
        let code = packed[at / per_byte] >> (at % per_byte * bits) & ((1 << bits) - 1);
        grid[at / POINT][at % POINT] = meaning[code as usize];
        at += 1;
    }
    grid
}

/// Eight signs from seven stored bits: bit `i` set makes element `i` negative, and bit 7 makes the number of negative
/// elements even.
pub const fn even_signs(stored: u8) -> u8 {
    let stored = stored & 0x7f;
    stored | ((stored.count_ones() as u8 & 1) << 7)
}

/// Writes `scale * magnitude`, negative where the sign bit of the element is set.
fn write_signed<const N: usize>(values: &mut [f32], scale: f32, point: &[i8; N], signs: u8) {
    for (i, (value, &magnitude)) in values.iter_mut().zip(point).enumerate() {
        let positive = scale * f32::from(magnitude);
        *value = if signs >> i & 1 == 0 { positive } else { -positive };
    }
}

/// Writes `scale * (q + shift)`.
fn write_shifted(values: &mut [f32], scale: f32, point: &[i8; 8], shift: f32) {
    for (value, &q) in values.iter_mut().zip(point) {
        *value = scale * (f32::from(q) + shift);
    }
}

/// Distance by which `IQ1` shifts all elements of a group, up or down.
const IQ1_SHIFT: f32 = 0.125;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_even_and_keep_what_is_stored() {
        for stored in 0..128 {
            let signs = even_signs(stored);
            assert_eq!((signs & 0x7f, signs.count_ones() % 2), (stored, 0));
        }
        // First and last entries of ggml's `ksigns_iq2xs`.
        assert_eq!([0, 1, 2, 3, 126, 127].map(even_signs), [0, 129, 130, 3, 126, 255]);
    }

    #[test]
    fn points_are_distinct() {
        fn distinct<const N: usize>(grid: &[[i8; N]]) -> usize {
            grid.iter().collect::<std::collections::HashSet<_>>().len()
        }
        assert_eq!(distinct(&IQ1_GRID), 2048);
        assert_eq!(distinct(&IQ2_XXS_GRID), 256);
        assert_eq!(distinct(&IQ2_XS_GRID), 512);
        assert_eq!(distinct(&IQ2_S_GRID), 1024);
        assert_eq!(distinct(&IQ3_XXS_GRID), 256);
        assert_eq!(distinct(&IQ3_S_GRID), 512);
    }
}
