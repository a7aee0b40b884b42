//! The sixteen unevenly spaced levels of `IQ4_NL` and `IQ4_XS`.

use super::packing::{pack_nibbles, unpack_nibbles};

/// The level that each 4-bit code stands for, ascending.
///
/// Source: `kvalues_iq4nl` in <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.
pub const IQ4_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) const LOWEST: i32 = IQ4_LEVELS[0] as i32;
pub(super) const HIGHEST: i32 = IQ4_LEVELS[15] as i32;

/// Half steps from the lowest to the highest level: levels meet halfway, so that every half step has one nearest level.
const HALF_STEPS: usize = 2 * (HIGHEST - LOWEST) as usize + 1;

/// Code of the level nearest to `LOWEST + i / 2`; at equal distance the higher one.
static NEAREST: [u8; HALF_STEPS] = {
    let mut nearest = [0; HALF_STEPS];
    let (mut at, mut code) = (0, 0);
    while at < HALF_STEPS {
        let twice = 2 * LOWEST + at as i32;
        if code < 15 && twice >= IQ4_LEVELS[code] as i32 + IQ4_LEVELS[code + 1] as i32 {
            code += 1;
        }
        nearest[at] = code as u8;
        at += 1;
    }
    nearest
};

/// Code of the level nearest to `value`; halfway goes up, NaN to the lowest.
#[inline]
pub(super) fn nearest_code(value: f64) -> u8 {
    let clamped = value.clamp(f64::from(LOWEST), f64::from(HIGHEST));
    NEAREST[((clamped - f64::from(LOWEST)) * 2.0) as usize]
}

/// The level nearest to `value`.
#[inline]
pub(super) fn nearest_level(value: f64) -> i32 {
    i32::from(IQ4_LEVELS[usize::from(nearest_code(value))])
}

/// 32 levels stored as nibbles.
pub(super) fn unpack_levels(bytes: &[u8; 16]) -> [i8; 32] {
    unpack_nibbles(bytes).map(|code| IQ4_LEVELS[usize::from(code)])
}

/// Inverse of [`unpack_levels`].
pub(super) fn pack_levels(levels: &[i8; 32]) -> [u8; 16] {
    pack_nibbles(&levels.map(|level| nearest_code(f64::from(level))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_agrees_with_a_search() {
        for sixteenths in -16 * 140..16 * 140 {
            let value = f64::from(sixteenths) / 16.0;
            let distance = |code: u8| (f64::from(IQ4_LEVELS[usize::from(code)]) - value).abs();
            let expected = (0..16u8).rev().min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
            assert_eq!(Some(nearest_code(value)), expected, "{value}");
        }
        assert_eq!(nearest_level(f64::NAN), -127);
        assert_eq!(nearest_level(f64::INFINITY), 113);
    }
}
