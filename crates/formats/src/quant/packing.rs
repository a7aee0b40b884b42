//! Bit packing that several layouts share.

use super::K_BLOCK_LEN;

/// 32 four-bit codes: element `i` in the low nibble of byte `i`, element `16 + i` in its high nibble.
pub(super) fn unpack_nibbles(bytes: &[u8; 16]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 0x0f } else { bytes[i - 16] >> 4 })
}

/// Inverse of [`unpack_nibbles`]; bits above the fourth are dropped.
pub(super) fn pack_nibbles(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| (codes[i] & 0x0f) | (codes[16 + i] << 4))
}

/// 32 five-bit codes: four bits as in [`unpack_nibbles`], the fifth of element `i` in bit `i` of `high`, little-endian.
pub(super) fn unpack_five_bits(low: &[u8; 16], high: [u8; 4]) -> [u8; 32] {
    let high = u32::from_le_bytes(high);
    let low = unpack_nibbles(low);
    std::array::from_fn(|i| low[i] | ((((high >> i) & 1) as u8) << 4))
}

/// Inverse of [`unpack_five_bits`].
pub(super) fn pack_five_bits(codes: &[u8; 32]) -> ([u8; 16], [u8; 4]) {
    let high = codes.iter().enumerate().fold(0u32, |bits, (i, &code)| bits | (u32::from(code >> 4 & 1) << i));
    (pack_nibbles(codes), high.to_le_bytes())
}

/// 256 two-bit codes: element `128 h + 32 k + l` in bits `2 k ..` of byte `32 h + l`.
pub(super) fn unpack_two_bits(bytes: &[u8; 64]) -> [u8; K_BLOCK_LEN] {
    std::array::from_fn(|i| bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3)
}

/// Inverse of [`unpack_two_bits`]; bits above the second are dropped.
pub(super) fn pack_two_bits(codes: &[u8; K_BLOCK_LEN]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (i, &code) in codes.iter().enumerate() {
        bytes[i / 128 * 32 + i % 32] |= (code & 3) << (i % 128 / 32 * 2);
    }
    bytes
}

/// 256 four-bit codes: element `64 h + 32 k + l` in nibble `k` of byte `32 h + l`.
pub(super) fn unpack_k_nibbles(bytes: &[u8; 128]) -> [u8; K_BLOCK_LEN] {
    std::array::from_fn(|i| bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 0x0f)
}

/// Inverse of [`unpack_k_nibbles`]; bits above the fourth are dropped.
pub(super) fn pack_k_nibbles(codes: &[u8; K_BLOCK_LEN]) -> [u8; 128] {
    let mut bytes = [0; 128];
    for (i, &code) in codes.iter().enumerate() {
        bytes[i / 64 * 32 + i % 32] |= (code & 0x0f) << (i % 64 / 32 * 4);
    }
    bytes
}

/// 256 single bits: element `32 k + l` in bit `k` of byte `l`.
pub(super) fn unpack_k_bits(bytes: &[u8; 32]) -> [u8; K_BLOCK_LEN] {
    std::array::from_fn(|i| bytes[i % 32] >> (i / 32) & 1)
}

/// Inverse of [`unpack_k_bits`]; bits above the first are dropped.
pub(super) fn pack_k_bits(bits: &[u8; K_BLOCK_LEN]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (i, &bit) in bits.iter().enumerate() {
        bytes[i % 32] |= (bit & 1) << (i / 32);
    }
    bytes
}

/// The eight 6-bit scales and eight 6-bit minima of a `Q4_K` or `Q5_K` block.
///
/// With `s` and `m` the scales and minima, and `i` in `0..4`: byte `i` holds `s[i]` and, in its upper two bits, the upper
/// two of `s[4 + i]`; byte `4 + i` the same of `m`; byte `8 + i` the lower four bits of `s[4 + i]` (low nibble) and of
/// `m[4 + i]` (high nibble).
pub fn unpack_k4_scale_min(bytes: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let scales = std::array::from_fn(|i| match i {
        0..4 => bytes[i] & 0x3f,
        _ => (bytes[4 + i] & 0x0f) | (bytes[i - 4] >> 6 << 4),
    });
    let mins = std::array::from_fn(|i| match i {
        0..4 => bytes[4 + i] & 0x3f,
        _ => (bytes[4 + i] >> 4) | (bytes[i] >> 6 << 4),
    });
    (scales, mins)
}

/// Inverse of [`unpack_k4_scale_min`] for values below 64.
pub(super) fn pack_k4_scale_min(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => scales[i] | (scales[4 + i] >> 4 << 6),
        4..8 => mins[i - 4] | (mins[i] >> 4 << 6),
        _ => (scales[i - 4] & 0x0f) | (mins[i - 4] << 4),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pseudo_random<const N: usize>(below: u32, seed: u32) -> [u8; N] {
        let mut state = seed;
        std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) % below) as u8
        })
    }

    #[test]
    fn packing_is_undone_by_unpacking() {
        for seed in 0..50 {
            let codes = pseudo_random(16, seed);
            assert_eq!(unpack_nibbles(&pack_nibbles(&codes)), codes);
            let codes = pseudo_random(32, seed);
            let (low, high) = pack_five_bits(&codes);
            assert_eq!(unpack_five_bits(&low, high), codes);
            let codes = pseudo_random(4, seed);
            assert_eq!(unpack_two_bits(&pack_two_bits(&codes)), codes);
            let codes = pseudo_random(16, seed);
            assert_eq!(unpack_k_nibbles(&pack_k_nibbles(&codes)), codes);
            let codes = pseudo_random(2, seed);
            assert_eq!(unpack_k_bits(&pack_k_bits(&codes)), codes);
            let (scales, mins) = (pseudo_random(64, seed), pseudo_random(64, seed + 1000));
            assert_eq!(unpack_k4_scale_min(&pack_k4_scale_min(&scales, &mins)), (scales, mins));
        }
    }
}
