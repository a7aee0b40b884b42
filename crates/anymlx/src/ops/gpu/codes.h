// Codes of a few bits, spread to the bytes of words, and what four-bit codes stand for where that is a table: `levels`
// has its 16 values, LEVELS_0 to LEVELS_3 have them as bytes.

// The low four of the nibbles of `packed`, in order
FN uint four_nibbles(uint packed) {
  const uint pairs = ((packed & 0xffffu) | packed << 8) & 0x00ff00ffu;
  return (pairs | pairs << 4) & 0x0f0f0f0fu;
}

// The four codes of two bits in the low byte of `packed`, in order
FN uint four_of_two_bits(uint packed) {
  const uint pairs = ((packed & 0xffu) | packed << 12) & 0x000f000fu;
  return (pairs | pairs << 6) & 0x03030303u;
}

// The low four bits of `packed`, in order
FN uint four_bits(uint packed) { return ((packed & 15u) * 0x00204081u) & 0x01010101u; }

// The four bytes of a word as numbers
FN float4 signed_bytes(uint q) {
  return make_float4(float(int(q << 24) >> 24), float(int(q << 16) >> 24), float(int(q << 8) >> 24),
                     float(int(q) >> 24));
}

#if defined(ELEMENT_HAS_LEVELS)
// What the low four nibbles of `packed` stand for, in order
FN uint four_levels(uint packed) {
#if defined(GPU_CUDA)
  // A permutation takes one of eight bytes; the upper bit of a nibble chooses between two of them.
  const uint places = packed & 0x7777u;
  const uint low = __byte_perm(LEVELS_0, LEVELS_1, places), high = __byte_perm(LEVELS_2, LEVELS_3, places);
  return __byte_perm(low, high, 0x3210u + ((packed & 0x8888u) >> 1));
#else
  return (levels[packed & 15u] & 255u) | (levels[(packed >> 4) & 15u] & 255u) << 8 |
         (levels[(packed >> 8) & 15u] & 255u) << 16 | (levels[(packed >> 12) & 15u] & 255u) << 24;
#endif
}

// What the low nibbles of the bytes of `packed` stand for, or the high ones
FN uint levels_of_bytes(uint packed, bool high) {
#if defined(GPU_CUDA)
  const uint first = four_levels(packed), second = four_levels(packed >> 16);
  return __byte_perm(first, second, high ? 0x7531u : 0x6420u);
#else
  const uint shift = high ? 4 : 0;
  return (levels[(packed >> shift) & 15u] & 255u) | (levels[(packed >> (shift + 8)) & 15u] & 255u) << 8 |
         (levels[(packed >> (shift + 16)) & 15u] & 255u) << 16 | (levels[packed >> (shift + 24) & 15u] & 255u) << 24;
#endif
}
#endif
