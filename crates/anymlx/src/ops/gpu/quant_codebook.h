// As quant.h, for the types whose codes stand for entries of tables, and for the small ones. Tables are written by the
// host in front of a text that needs them: those of codes.h, and `grid`, which has points of 8 (two words) or 4 signed
// bytes (one word).

// ---- codes by table ----------------------------------------------------------------------
#if defined(ELEMENT_HAS_LEVELS)
// What the low nibbles of 16 bytes stand for, or, of part 1, the high ones
FN void take_levels(uint4 bytes, uint part, THREAD uint* q) {
  q[0] = levels_of_bytes(bytes.x, part == 1);
  q[1] = levels_of_bytes(bytes.y, part == 1);
  q[2] = levels_of_bytes(bytes.z, part == 1);
  q[3] = levels_of_bytes(bytes.w, part == 1);
}

// f16 d; 16 bytes: code of weight i low, of weight 16 + i high. w = d * level
struct format_iq4_nl {
  enum { BLOCK = 32, BYTES = 18, PIECES = 1, RUNS = 2, HAS_MIN = 0 };
  FN uint index_of(uint, uint part) { return part; }
  FN uint piece_of(uint) { return 0; }
  FN uint part_of(uint run) { return run; }
  template <typename P> FN Run run(P b, uint, uint part) {
    Run r;
    take_levels(Bytes16<2>::at(b + 2), part, r.q);
    r.d = half_at(b);
    r.m = 0.0f;
    return r;
  }
};

// f16 d; the upper two bits of eight scales; their lower four bits; 16 bytes as in iq4_nl for each 32.
// w = d * (scale - 32) * level
struct format_iq4_xs {
  enum { BLOCK = 256, BYTES = 136, PIECES = 8, RUNS = 2, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint part) { return 2 * piece + part; }
  FN uint piece_of(uint run) { return run / 2; }
  FN uint part_of(uint run) { return run % 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    take_levels(Bytes16<8>::at(b + 8 + 16 * piece), part, r.q);
    const uint low = (load_u8(b + 4 + piece / 2) >> (4 * (piece % 2))) & 15u, high = (load_u16(b + 2) >> (2 * piece)) & 3u;
    r.d = half_at(b) * float(int(low | high << 4) - 32);
    r.m = 0.0f;
    return r;
  }
};

// Half of 2^(code - 127)
FN float half_e8m0(uint code) { return as_type<float>(code < 2 ? 0x00200000u << code : (code - 1) << 23); }

// Half the value of an unsigned E4M3 code, whose upper bit does not count; 0x7f is 0.
FN float half_ue4m3(uint code) {
  if (code == 0x7fu) return 0.0f;
  const uint exponent = (code >> 3) & 15u;
  const float mantissa = float(code & 7u);
  if (exponent == 0) return mantissa * (1.0f / 1024.0f);
  return (1.0f + mantissa * 0.125f) * as_type<float>((exponent + 127 - 8) << 23);
}

// E8M0 scale; 16 bytes as in iq4_nl, the levels being doubled E2M1 numbers. w = scale / 2 * level
struct format_mxfp4 {
  enum { BLOCK = 32, BYTES = 17, PIECES = 1, RUNS = 2, HAS_MIN = 0 };
  FN uint index_of(uint, uint part) { return part; }
  FN uint piece_of(uint) { return 0; }
  FN uint part_of(uint run) { return run; }
  template <typename P> FN Run run(P b, uint, uint part) {
    Run r;
    take_levels(Bytes16<1>::at(b + 1), part, r.q);
    r.d = half_e8m0(load_u8(b));
    r.m = 0.0f;
    return r;
  }
};

// Four unsigned E4M3 scales; for each 16 weights 8 bytes: code of weight i low, of weight 8 + i high.
// w = scale / 2 * level
struct format_nvfp4 {
  enum { BLOCK = 64, BYTES = 36, PIECES = 4, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    const uint first = load_u32(b + 4 + 8 * piece), second = load_u32(b + 8 + 8 * piece);
    r.q[0] = levels_of_bytes(first, false);
    r.q[1] = levels_of_bytes(second, false);
    r.q[2] = levels_of_bytes(first, true);
    r.q[3] = levels_of_bytes(second, true);
    r.d = half_ue4m3(load_u8(b + piece));
    r.m = 0.0f;
    return r;
  }
};
#endif

// ---- points of grids ---------------------------------------------------------------------
#if defined(ELEMENT_HAS_GRID)
// Seven stored signs and the eighth, which makes the number of negative ones even
FN uint even_signs(uint stored) {
  const uint s = stored & 127u;
  uint odd = s ^ (s >> 4);
  odd ^= odd >> 2;
  odd ^= odd >> 1;
  return s | (odd & 1u) << 7;
}

// Negates the bytes of `word`, all from 1 to 127, whose bit among the low four of `signs` is set.
FN uint with_signs(uint word, uint signs) {
  const uint ones = four_bits(signs);
  return (word ^ (ones * 255u)) + ones;
}

// f16 d; points of each four; of each 32 a word: signs of its eights, seven bits each, and a scale of four bits.
// w = d * (scale + 1/2) / 2 * point
struct format_iq3_xxs {
  enum { BLOCK = 256, BYTES = 98, PIECES = 8, RUNS = 2, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint part) { return 2 * piece + part; }
  FN uint piece_of(uint run) { return run / 2; }
  FN uint part_of(uint run) { return run % 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    const P points = b + 2 + 8 * piece + 4 * part;
    const uint rest = load_u16(b + 66 + 4 * piece) | load_u16(b + 68 + 4 * piece) << 16;
    for (uint i = 0; i < 4; i++) {
      const uint signs = even_signs(rest >> (7 * (2 * part + i / 2)));
      r.q[i] = with_signs(grid[load_u8(points + i)], signs >> (4 * (i % 2)));
    }
    r.d = half_at(b) * (0.5f + float(rest >> 28)) * 0.5f;
    r.m = 0.0f;
    return r;
  }
};

// f16 d; low bits of the points of each four; their ninth bits; signs; scales of four bits for each 32.
// w = d * (2 scale + 1) * point
struct format_iq3_s {
  enum { BLOCK = 256, BYTES = 110, PIECES = 8, RUNS = 2, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint part) { return 2 * piece + part; }
  FN uint piece_of(uint run) { return run / 2; }
  FN uint part_of(uint run) { return run % 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    const P points = b + 2 + 8 * piece + 4 * part;
    const uint high = load_u8(b + 66 + piece) >> (4 * part), signs = load_u16(b + 74 + 4 * piece + 2 * part);
    for (uint i = 0; i < 4; i++)
      r.q[i] = with_signs(grid[load_u8(points + i) | ((high >> i) & 1u) << 8], signs >> (4 * i));
    r.d = half_at(b) * float(1 + 2 * ((load_u8(b + 106 + piece / 2) >> (4 * (piece % 2))) & 15u));
    r.m = 0.0f;
    return r;
  }
};

// f16 d; of each 32: points of its eights; a word as in iq3_xxs. w = d * (scale + 1/2) / 4 * point
struct format_iq2_xxs {
  enum { BLOCK = 256, BYTES = 66, PIECES = 8, RUNS = 2, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint part) { return 2 * piece + part; }
  FN uint piece_of(uint run) { return run / 2; }
  FN uint part_of(uint run) { return run % 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    const P group = b + 2 + 8 * piece;
    const uint rest = load_u16(group + 4) | load_u16(group + 6) << 16;
    for (uint i = 0; i < 2; i++) {
      const uint point = load_u8(group + 2 * part + i), signs = even_signs(rest >> (7 * (2 * part + i)));
      r.q[2 * i] = with_signs(grid[2 * point], signs);
      r.q[2 * i + 1] = with_signs(grid[2 * point + 1], signs >> 4);
    }
    r.d = half_at(b) * (0.5f + float(rest >> 28)) * 0.25f;
    r.m = 0.0f;
    return r;
  }
};

// f16 d; of each eight weights 16 bits: nine of the point, seven of signs; scales of four bits for each 16.
// w = d * (scale + 1/2) / 4 * point
struct format_iq2_xs {
  enum { BLOCK = 256, BYTES = 74, PIECES = 16, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    for (uint i = 0; i < 2; i++) {
      const uint code = load_u16(b + 2 + 4 * piece + 2 * i), point = code & 511u, signs = even_signs(code >> 9);
      r.q[2 * i] = with_signs(grid[2 * point], signs);
      r.q[2 * i + 1] = with_signs(grid[2 * point + 1], signs >> 4);
    }
    r.d = half_at(b) * (0.5f + float((load_u8(b + 66 + piece / 2) >> (4 * (piece % 2))) & 15u)) * 0.25f;
    r.m = 0.0f;
    return r;
  }
};

// f16 d; low bits of the points of each eight; signs; two upper bits of the points; scales of four bits for each
// 16. w = d * (scale + 1/2) / 4 * point
struct format_iq2_s {
  enum { BLOCK = 256, BYTES = 82, PIECES = 16, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    for (uint i = 0; i < 2; i++) {
      const uint eight = 2 * piece + i, signs = load_u8(b + 34 + eight);
      const uint point = load_u8(b + 2 + eight) | ((load_u8(b + 66 + eight / 4) >> (2 * (eight % 4))) & 3u) << 8;
      r.q[2 * i] = with_signs(grid[2 * point], signs);
      r.q[2 * i + 1] = with_signs(grid[2 * point + 1], signs >> 4);
    }
    r.d = half_at(b) * (0.5f + float((load_u8(b + 74 + piece / 2) >> (4 * (piece % 2))) & 15u)) * 0.25f;
    r.m = 0.0f;
    return r;
  }
};

// f16 d; low bits of the points of each eight; of each 32 weights 16 bits: upper three bits of its four points, a
// scale of three bits, the sign of the shift. w = d * (2 scale + 1) * (point +- 1/8)
struct format_iq1_s {
  enum { BLOCK = 256, BYTES = 50, PIECES = 8, RUNS = 2, HAS_MIN = 1 };
  FN uint index_of(uint piece, uint part) { return 2 * piece + part; }
  FN uint piece_of(uint run) { return run / 2; }
  FN uint part_of(uint run) { return run % 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    const uint high = load_u16(b + 34 + 2 * piece);
    for (uint i = 0; i < 2; i++) {
      const uint eight = 2 * part + i;
      const uint point = load_u8(b + 2 + 4 * piece + eight) | ((high >> (3 * eight)) & 7u) << 8;
      r.q[2 * i] = grid[2 * point];
      r.q[2 * i + 1] = grid[2 * point + 1];
    }
    r.d = half_at(b) * float(1 + 2 * ((high >> 12) & 7u));
    r.m = (high & 0x8000u) ? 0.125f * r.d : -0.125f * r.d;
    return r;
  }
};

// Low bits of the points of each eight; their upper three bits and the sign of their shift, four bits each; four times
// 16 bits: scales of three bits for each 16, and a quarter of the f16 d. w = d * (2 scale + 1) * (point +- 1/8)
struct format_iq1_m {
  enum { BLOCK = 256, BYTES = 56, PIECES = 16, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  // Eight times each of the bytes -1, 0, 1, plus one or minus one
  FN uint shifted(uint word, uint negative) {
    const uint positive = word & 0x01010101u & ~((word >> 7) & 0x01010101u), minus = (word >> 7) & 0x01010101u;
    const uint up = 0x10101010u + 8u * positive - 8u * minus;
    // Each byte is now 16 + 8 g, which a step of one leaves between 0 and 127; 16 is taken off without borrows.
    const uint stepped = negative ? up - 0x01010101u : up + 0x01010101u;
    return ((stepped | 0x80808080u) - 0x10101010u) ^ 0x80808080u;
  }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    const uint s0 = load_u16(b + 48), s1 = load_u16(b + 50), s2 = load_u16(b + 52), s3 = load_u16(b + 54);
    const uint d = s0 >> 12 | (s1 >> 12) << 4 | (s2 >> 12) << 8 | (s3 >> 12) << 12;
    const uint scale = (load_u16(b + 48 + 2 * (piece / 4)) >> (3 * (piece % 4))) & 7u;
    for (uint i = 0; i < 2; i++) {
      const uint high = (load_u8(b + 32 + piece) >> (4 * i)) & 15u;
      const uint point = load_u8(b + 2 * piece + i) | (high & 7u) << 8;
      r.q[2 * i] = shifted(grid[2 * point], high & 8u);
      r.q[2 * i + 1] = shifted(grid[2 * point + 1], high & 8u);
    }
    r.d = gpu_f16_to_f32(ushort(d)) * float(1 + 2 * scale) * 0.125f;
    r.m = 0.0f;
    return r;
  }
};
#endif

// ---- few bits ----------------------------------------------------------------------------

// Takes one from each byte, none of which passes 127.
FN uint less_one(uint word) { return ((word | 0x80808080u) - 0x01010101u) ^ 0x80808080u; }

// 48 bytes of five, 4 bytes of four base-3 digits: digit n of byte m is of weight 32 n + m (m below 32), of weight
// 160 + 16 n + m - 32 (below 48), of weight 240 + 4 n + m - 48; f16 d. w = d * (digit - 1)
struct format_tq1_0 {
  enum { BLOCK = 256, BYTES = 54, PIECES = 16, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  FN uint digit(uint byte, uint n) {
    const uint power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;
    return (((byte * power) & 255u) * 3u) >> 8;
  }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    for (uint w = 0; w < 4; w++) {
      uint word = 0;
      for (uint k = 0; k < 4; k++) {
        const uint i = 16 * piece + 4 * w + k;
        const uint byte = i < 160 ? i % 32 : i < 240 ? 32 + (i - 160) % 16 : 48 + (i - 240) % 4;
        const uint n = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
        word |= digit(load_u8(b + byte), n) << (8 * k);
      }
      r.q[w] = less_one(word);
    }
    r.d = half_at(b + 52);
    r.m = 0.0f;
    return r;
  }
};

// 64 bytes: byte 32 n + l has weights 128 n + l + 32 j in its bits 2 j; f16 d. w = d * (code - 1)
struct format_tq2_0 {
  enum { BLOCK = 256, BYTES = 66, PIECES = 4, RUNS = 4, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint part) { return 8 * (piece / 2) + 2 * part + piece % 2; }
  FN uint piece_of(uint run) { return 2 * (run / 8) + run % 2; }
  FN uint part_of(uint run) { return run % 8 / 2; }
  template <typename P> FN Run run(P b, uint piece, uint part) {
    Run r;
    take_bits(Bytes16<2>::at(b + 16 * piece), 2 * part, 0x03030303u, r.q);
    for (int i = 0; i < 4; i++) r.q[i] = less_one(r.q[i]);
    r.d = half_at(b + 64);
    r.m = 0.0f;
    return r;
  }
};

// f16 d; 128 bits. w = d or -d
struct format_q1_0 {
  enum { BLOCK = 128, BYTES = 18, PIECES = 8, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    const uint bits = load_u16(b + 2 + 2 * piece);
    for (uint i = 0; i < 4; i++) {
      const uint ones = four_bits(bits >> (4 * i));
      r.q[i] = less_one(ones << 1);
    }
    r.d = half_at(b);
    r.m = 0.0f;
    return r;
  }
};

// f16 d; 64 codes of two bits, in order. w = d * (code - 1)
struct format_q2_0 {
  enum { BLOCK = 64, BYTES = 18, PIECES = 4, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    for (uint i = 0; i < 4; i++) {
      const uint c = load_u8(b + 2 + 4 * piece + i);
      r.q[i] = less_one(four_of_two_bits(c));
    }
    r.d = half_at(b);
    r.m = 0.0f;
    return r;
  }
};

// f32 d; 256 signed bytes; sums of each 16. w = d * q
struct format_q8_k {
  enum { BLOCK = 256, BYTES = 292, PIECES = 16, RUNS = 1, HAS_MIN = 0 };
  FN uint index_of(uint piece, uint) { return piece; }
  FN uint piece_of(uint run) { return run; }
  FN uint part_of(uint) { return 0; }
  template <typename P> FN Run run(P b, uint piece, uint) {
    Run r;
    take_bits(Bytes16<4>::at(b + 4 + 16 * piece), 0, 0xffffffffu, r.q);
    r.d = as_type<float>(load_u32(b));
    r.m = 0.0f;
    return r;
  }
};
