// Block-quantised weights, sixteen at a time. Each format is a struct that tells
//   BLOCK, BYTES    weights and bytes of a block
//   PIECES, RUNS    a block's weights are PIECES x RUNS runs of 16; the runs of a piece share the
//                   bytes that they are unpacked from, so a thread should take them together
//   HAS_MIN         false if the minimum is always 0
//   index_of(piece, part)   which run of the block, counted in order of the weights
//   piece_of, part_of       the reverse
//   run(block, piece, part) the run: weight[i] = d * q[i] - m, with q as signed bytes, four to a word
// The layouts are those of ggml; `anymlx_formats::quant` describes them. Blocks are aligned to the
// largest power of two that divides their bytes (16 at most) if the matrix is aligned to 16.
//
// A block is a pointer to bytes, or a Staged.
struct Run { uint q[4]; float d, m; };

// Bytes in threadgroup memory: `base` is aligned to 16, and 16 bytes after those that are asked for may be read.
struct Staged { const THREADGROUP uchar* base; uint at; };
FN Staged operator+(Staged s, uint n) { s.at += n; return s; }
FN uint load_u8(Staged s) { return load_u8(s.base + s.at); }
FN uint load_u16(Staged s) { return load_u16(s.base + s.at); }
FN uint load_u32(Staged s) { return load_u32(s.base + s.at); }
FN uint2 load_u64(Staged s) { return load_u64(s.base + s.at); }
FN uint4 load_u128(Staged s) { return load_u128(s.base + s.at); }

// 16 bytes from any address: the banks of threadgroup memory serve two aligned loads sooner than narrow ones.
FN uint4 load_u128_unaligned(Staged s) {
  const THREADGROUP uchar* from = s.base + (s.at & ~15u);
  const uint4 a = load_u128(from), b = load_u128(from + 16);
  const bool two = (s.at & 8u) != 0, one = (s.at & 4u) != 0;
  const uint bits = 8 * (s.at & 3u);
  const uint w0 = two ? a.z : a.x, w1 = two ? a.w : a.y, w2 = two ? b.x : a.z;
  const uint w3 = two ? b.y : a.w, w4 = two ? b.z : b.x, w5 = two ? b.w : b.y;
  const uint x0 = one ? w1 : w0, x1 = one ? w2 : w1, x2 = one ? w3 : w2, x3 = one ? w4 : w3, x4 = one ? w5 : w4;
  return make_uint4(funnel_right(x0, x1, bits), funnel_right(x1, x2, bits), funnel_right(x2, x3, bits),
                    funnel_right(x3, x4, bits));
}

template <typename P> FN float half_at(P p) { return gpu_f16_to_f32(ushort(load_u16(p))); }
FN float high_half(uint word) { return gpu_f16_to_f32(ushort(word >> 16)); }
FN float low_half(uint word) { return gpu_f16_to_f32(ushort(word & 0xffffu)); }

// 16 bytes from an address aligned to A
template <int A> struct Bytes16;
template <> struct Bytes16<1> {
  FN uint4 at(Staged s) { return load_u128_unaligned(s); }
  template <typename P> FN uint word(P p) {
    return load_u8(p) | load_u8(p + 1) << 8 | load_u8(p + 2) << 16 | load_u8(p + 3) << 24;
  }
  template <typename P> FN uint4 at(P p) { return make_uint4(word(p), word(p + 4), word(p + 8), word(p + 12)); }
};
template <> struct Bytes16<2> {
  FN uint4 at(Staged s) { return load_u128_unaligned(s); }
  template <typename P> FN uint4 at(P p) {
    return make_uint4(load_u16(p) | load_u16(p + 2) << 16, load_u16(p + 4) | load_u16(p + 6) << 16,
                      load_u16(p + 8) | load_u16(p + 10) << 16, load_u16(p + 12) | load_u16(p + 14) << 16);
  }
};
template <> struct Bytes16<4> {
  FN uint4 at(Staged s) { return load_u128_unaligned(s); }
  template <typename P> FN uint4 at(P p) {
    return make_uint4(load_u32(p), load_u32(p + 4), load_u32(p + 8), load_u32(p + 12));
  }
};
template <> struct Bytes16<8> {
  FN uint4 at(Staged s) { return load_u128_unaligned(s); }
  template <typename P> FN uint4 at(P p) {
    const uint2 a = load_u64(p), b = load_u64(p + 8);
    return make_uint4(a.x, a.y, b.x, b.y);
  }
};
template <> struct Bytes16<16> {
  template <typename P> FN uint4 at(P p) { return load_u128(p); }
};

// (bytes >> shift) & mask, for each byte
FN void take_bits(uint4 bytes, uint shift, uint mask, THREAD uint* q) {
  q[0] = (bytes.x >> shift) & mask;
  q[1] = (bytes.y >> shift) & mask;
  q[2] = (bytes.z >> shift) & mask;
  q[3] = (bytes.w >> shift) & mask;
}

// Adds to each byte of q the bit at `from` of the same byte, moved to `to`.
FN void add_bits(uint4 bytes, uint from, uint to, THREAD uint* q) {
  q[0] |= ((bytes.x >> from) & 0x01010101u) << to;
  q[1] |= ((bytes.y >> from) & 0x01010101u) << to;
  q[2] |= ((bytes.z >> from) & 0x01010101u) << to;
  q[3] |= ((bytes.w >> from) & 0x01010101u) << to;
}

// Adds 16 to each byte of q whose bit among the low 16 of `bits` is set. The product puts four bits
// into the lowest bits of four bytes.
FN void add_fifth_bits(uint bits, THREAD uint* q) {
  for (int i = 0; i < 4; i++) q[i] |= four_bits(bits >> (4 * i)) << 4;
}

// ---- blocks of 32: a scale (and a minimum), then the quants ------------------------------

// f16 d; 16 bytes: weight i low, weight 16 + i high. w = d * (q - 8)
struct format_q4_0 {
  enum { BLOCK = 32, BYTES = 18, PIECES = 1, RUNS = 2, HAS_MIN = 1 };
  FN uint index_of(uint, uint part) { return part; }
  FN uint piece_of(uint) { return 0; }
  FN uint part_of(uint run) { return run; }
  template <typename P> FN Run run(P b, uint, uint part) {
    Run r;
    take_bits(Bytes16<2>::at(b + 2), 4 * part, 0x0f0f0f0fu, r.q);
    r.d = half_at(b);
    r.m = 8.0f * r.d;
    return r;
  }
};

// f16 d, m; 16 bytes as in q4_0. w = d * q + m
struct format_q4_1 {
  enum { BLOCK = 32, BYTES = 20, PIECES = 1, RUNS = 2, HAS_MIN = 1 };
  FN uint index_of(uint, uint part) { return part; }
  FN uint piece_of(uint) { return 0; }
  FN uint part_of(uint run) { return run; }
  template <typename P> FN Run run(P b, uint, uint part) {
    Run r;
    take_bits(Bytes16<4>::at(b + 4), 4 * part, 0x0f0f0f0fu, r.q);
    const uint dm = load_u32(b);
    r.d = low_half(dm);
    r.m = -high_half(dm);
    return r;
  }
};

// f16 d; 32 fifth bits; 16 bytes as in q4_0. w = d * (q - 16)
struct format_q5_0 {
  enum { BLOCK = 32, BYTES = 22, PIECES = 1, RUNS = 2, HAS_MIN = 1 };
  FN uint index_of(uint, uint part) { return part; }
  FN uint piece_of(uint) { return 0; }
  FN uint part_of(uint run) { return run; }
  template <typename P> FN Run run(P b, uint, uint part) {
    Run r;
    take_bits(Bytes16<2>::at(b + 6), 4 * part, 0x0f0f0f0fu, r.q);
    add_fifth_bits(load_u16(b + 2 + 2 * part), r.q);
    r.d = half_at(b);
    r.m = 16.0f * r.d;
    return r;
  }
};

// f16 d, m; 32 fifth bits; 16 bytes as in q4_0. w = d * q + m
struct format_q5_1 {
  enum { BLOCK = 32, BYTES = 24, PIECES = 1, RUNS = 2, HAS_MIN = 1 };
  FN uint index_of(uint, uint part) { return part; }
  FN uint piece_of(uint) { return 0; }
  FN uint part_of(uint run) { return run; }
  template <typename P> FN Run run(P b, uint, uint part) {
    Run r;
    const uint2 head = load_u64(b);
    take_bits(Bytes16<8>::at(b + 8), 4 * part, 0x0f0f0f0fu, r.q);
    add_fifth_bits(head.y >> (16 * part), r.q);
    r.d = low_half(head.x);
    r.m = -high_half(head.x);
    return r;
  }
};

// f16 d; 32 signed bytes. w = d * q
struct format_q8_0 {
  enum { BLOCK = 32, BYTES = 34, PIECES = 2, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    take_bits(Bytes16<2>::at(b + 2 + 16 * piece), 0, 0xffffffffu, r.q);
    r.d = half_at(b);
    r.m = 0.0f;
    return r;
  }
};

// ---- blocks of 256 with a scale (and a minimum) for each 16 or 32 ------------------------

// 16 bytes: 4-bit scale low, 4-bit minimum high, one for each run; 64 bytes of 2-bit quants: byte
// 32 n + l has weights 128 n + l + 32 j in its bits 2 j; f16 d, dmin. w = d * scale * q - dmin * minimum
struct format_q2_k {
  enum { BLOCK = 256, BYTES = 84, PIECES = 4, RUNS = 4, HAS_MIN = 1 };
  FN uint index_of(uint piece, uint part) { return 8 * (piece / 2) + 2 * part + piece % 2; }
  FN uint piece_of(uint run) { return 2 * (run / 8) + run % 2; }
  FN uint part_of(uint run) { return run % 8 / 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    take_bits(Bytes16<4>::at(b + 16 + 16 * piece), 2 * part, 0x03030303u, r.q);
    const uint scale = load_u8(b + index_of(piece, part)), d = load_u32(b + 80);
    r.d = low_half(d) * float(scale & 15u);
    r.m = high_half(d) * float(scale >> 4);
    return r;
  }
};

// 32 bytes: byte l has the third bits of weights l + 32 k in its bit k; 64 bytes as in q2_k; 12 bytes:
// 16 scales of 6 bits; f16 d. w = d * (scale - 32) * (q - 4)
struct format_q3_k {
  enum { BLOCK = 256, BYTES = 110, PIECES = 4, RUNS = 4, HAS_MIN = 1 };
  FN uint index_of(uint piece, uint part) { return 8 * (piece / 2) + 2 * part + piece % 2; }
  FN uint piece_of(uint run) { return 2 * (run / 8) + run % 2; }
  FN uint part_of(uint run) { return run % 8 / 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    take_bits(Bytes16<2>::at(b + 32 + 16 * piece), 2 * part, 0x03030303u, r.q);
    add_bits(Bytes16<2>::at(b + 16 * (piece % 2)), 4 * (piece / 2) + part, 2, r.q);
    const uint i = index_of(piece, part);
    const uint low = (load_u8(b + (96 + i % 8)) >> (4 * (i / 8))) & 15u;
    const uint high = (load_u8(b + (104 + i % 4)) >> (2 * (i / 4))) & 3u;
    r.d = half_at(b + 108) * float(int(low | high << 4) - 32);
    r.m = 4.0f * r.d;
    return r;
  }
};

// Scale (bits 0..7) and minimum (bits 8..15) of sub-block s of q4_k and q5_k, from their 12 bytes:
// eight of 6 bits each, the upper two bits of the last four kept with the first four.
FN uint scale_and_min(uint a, uint b, uint c, uint s) {
  const uint shift = 8 * (s % 4);
  const uint x = (a >> shift) & 255u, y = (b >> shift) & 255u, z = (c >> shift) & 255u;
  if (s < 4) return (x & 63u) | (y & 63u) << 8;
  return (z & 15u) | (x >> 6) << 4 | (z >> 4) << 8 | (y >> 6) << 12;
}

// f16 d, dmin; 12 bytes of scales and minimums; 128 bytes: byte 32 j + i has weight 64 j + i low and
// 64 j + 32 + i high. w = d * scale * q - dmin * minimum, for each 32
struct format_q4_k {
  enum { BLOCK = 256, BYTES = 144, PIECES = 8, RUNS = 2, HAS_MIN = 1 };
  FN uint index_of(uint piece, uint part) { return 4 * (piece / 2) + 2 * part + piece % 2; }
  FN uint piece_of(uint run) { return 2 * (run / 4) + run % 2; }
  FN uint part_of(uint run) { return run % 4 / 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    take_bits(Bytes16<16>::at(b + 16 + 16 * piece), 4 * part, 0x0f0f0f0fu, r.q);
    const uint4 head = load_u128(b);
    const uint scale = scale_and_min(head.y, head.z, head.w, 2 * (piece / 2) + part);
    r.d = low_half(head.x) * float(scale & 255u);
    r.m = high_half(head.x) * float(scale >> 8);
    return r;
  }
};

// As q4_k, with 32 bytes before the quants: byte i has the fifth bits of weights i + 32 k in its bit k.
struct format_q5_k {
  enum { BLOCK = 256, BYTES = 176, PIECES = 8, RUNS = 2, HAS_MIN = 1 };
  FN uint index_of(uint piece, uint part) { return 4 * (piece / 2) + 2 * part + piece % 2; }
  FN uint piece_of(uint run) { return 2 * (run / 4) + run % 2; }
  FN uint part_of(uint run) { return run % 4 / 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    take_bits(Bytes16<16>::at(b + 48 + 16 * piece), 4 * part, 0x0f0f0f0fu, r.q);
    const uint s = 2 * (piece / 2) + part;
    add_bits(Bytes16<16>::at(b + 16 + 16 * (piece % 2)), s, 4, r.q);
    const uint4 head = load_u128(b);
    const uint scale = scale_and_min(head.y, head.z, head.w, s);
    r.d = low_half(head.x) * float(scale & 255u);
    r.m = high_half(head.x) * float(scale >> 8);
    return r;
  }
};

// 128 bytes: bytes 64 n + l and 64 n + 32 + l have the low four bits of weights 128 n + l, + 32, + 64,
// + 96; 64 bytes: byte 32 n + l has their upper two bits in its bits 0, 2, 4, 6; 16 signed scales; f16 d.
// w = d * scale * (q - 32)
struct format_q6_k {
  enum { BLOCK = 256, BYTES = 210, PIECES = 8, RUNS = 2, HAS_MIN = 1 };
  FN uint index_of(uint piece, uint part) { return 8 * (piece / 4) + 4 * part + piece % 4; }
  FN uint piece_of(uint run) { return 4 * (run / 8) + run % 4; }
  FN uint part_of(uint run) { return run % 8 / 4; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    take_bits(Bytes16<2>::at(b + 16 * piece), 4 * part, 0x0f0f0f0fu, r.q);
    const uint4 high = Bytes16<2>::at(b + 128 + 32 * (piece / 4) + 16 * (piece % 2));
    // Bits `from` and `from` + 1 of each byte go to 4 and 5: the others that turn with them are left out.
    const uint turn = (4 * part + 2 * (piece % 4 / 2) + 28) % 32;
    r.q[0] |= funnel_right(high.x, high.x, turn) & 0x30303030u;
    r.q[1] |= funnel_right(high.y, high.y, turn) & 0x30303030u;
    r.q[2] |= funnel_right(high.z, high.z, turn) & 0x30303030u;
    r.q[3] |= funnel_right(high.w, high.w, turn) & 0x30303030u;
    const int scale = int(load_u8(b + (192 + index_of(piece, part))) << 24) >> 24;
    r.d = half_at(b + 208) * float(scale);
    r.m = 32.0f * r.d;
    return r;
  }
};
