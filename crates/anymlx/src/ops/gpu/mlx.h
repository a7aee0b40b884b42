// Matrices as MLX stores them. The host defines MLX_BITS, MLX_GROUP, MLX_SCALES (f32, f16, bf16 or u8) and one of
// MLX_AFFINE, MLX_MXFP4, MLX_MXFP8, MLX_NVFP4. A row is a little-endian stream of codes of MLX_BITS bits, so that each
// 32 codes fill MLX_BITS words; each MLX_GROUP weights share a scale and, in affine mode, a bias.
//   affine  w = scale * code + bias
//   others  w = scale * value of the code, an E2M1 or E4M3 number; scales are E8M0 or, in nvfp4, E4M3 numbers
typedef float mlx_scale_f32;
typedef f16 mlx_scale_f16;
typedef bf16 mlx_scale_bf16;
typedef uchar mlx_scale_u8;
typedef GPU_CAT(mlx_scale_, MLX_SCALES) MlxScale;

// A row of the matrix
struct MlxRow {
  const DEVICE uint* packed;
  const DEVICE MlxScale* scales;
  const DEVICE MlxScale* biases;
};

// Row `row`; where there are no biases, `biases` is not read.
FN MlxRow mlx_row(const DEVICE uint* packed, const DEVICE MlxScale* scales, const DEVICE MlxScale* biases, u64 row,
                  uint columns) {
  MlxRow r;
  r.packed = packed + row * (columns / 32 * MLX_BITS);
  r.scales = scales + row * (columns / MLX_GROUP);
  r.biases = biases + row * (columns / MLX_GROUP);
  return r;
}

// The words of a run, or of half of one where there are two PIECES, which begin at `from`: of a matrix aligned to 16, they are
// aligned to the largest power of two that divides their bytes (16 at most).
template <int PIECES, typename P> FN void mlx_words(P from, THREAD uint* words) {
  enum { WORDS = MLX_BITS / PIECES };
  if (WORDS % 4 == 0) {
    UNROLL
    for (uint i = 0; i < WORDS / 4; i++) {
      const uint4 v = load_u128(from + 16 * i);
      words[4 * i] = v.x;
      words[4 * i + 1] = v.y;
      words[4 * i + 2] = v.z;
      words[4 * i + 3] = v.w;
    }
  } else if (WORDS % 2 == 0) {
    UNROLL
    for (uint i = 0; i < WORDS / 2; i++) {
      const uint2 v = load_u64(from + 8 * i);
      words[2 * i] = v.x;
      words[2 * i + 1] = v.y;
    }
  } else {
    UNROLL
    for (uint i = 0; i < WORDS; i++) words[i] = load_u32(from + 4 * i);
  }
}

FN const DEVICE uchar* mlx_run_at(MlxRow row, uint run) { return (const DEVICE uchar*)(row.packed + run * MLX_BITS); }

// Code `i`, below 32, of the words of a run
template <typename P> FN uint mlx_code(P words, uint i) {
  const uint at = i * MLX_BITS, shift = at % 32;
  uint code = words[at / 32] >> shift;
  if (shift + MLX_BITS > 32) code |= words[at / 32 + 1] << (32 - shift);
  return code & ((1u << MLX_BITS) - 1u);
}

// Codes 4 w .. 4 w + 3 of the words of a run, one to a byte
FN uint mlx_four_codes(THREAD const uint* words, uint w) {
#if MLX_BITS == 8
  return words[w];
#elif MLX_BITS == 4
  return four_nibbles(words[w / 2] >> (16 * (w % 2)));
#elif MLX_BITS == 2
  return four_of_two_bits(words[w / 4] >> (8 * (w % 4)));
#elif MLX_BITS == 1
  return four_bits(words[0] >> (4 * w));
#else
  uint codes = 0;
  UNROLL
  for (uint k = 0; k < 4; k++) codes |= mlx_code(words, 4 * w + k) << (8 * k);
  return codes;
#endif
}

// An E4M3 number: exponent and mantissa are those of a half-precision number of 2^-8 times its size.
FN float e4m3(uint code) {
  if ((code & 127u) == 127u) return as_type<float>(0x7fc00000u);
  return gpu_f16_to_f32(ushort((code & 127u) << 7 | (code & 128u) << 8)) * 256.0f;
}

// 2^-8 times the four E4M3 numbers of a word
FN float4 four_e4m3(uint word) {
  const float small = 1.0f / 256.0f;
  if (((word & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u)  // one is not a number
    return make_float4(e4m3(word & 255u), e4m3(word >> 8 & 255u), e4m3(word >> 16 & 255u), e4m3(word >> 24)) * small;
  const uint even = (word << 8 & 0x80008000u) | (word << 7 & 0x3f803f80u);
  const uint odd = (word & 0x80008000u) | (word >> 1 & 0x3f803f80u);
  return make_float4(gpu_f16_to_f32(ushort(even & 0xffffu)), gpu_f16_to_f32(ushort(odd & 0xffffu)),
                     gpu_f16_to_f32(ushort(even >> 16)), gpu_f16_to_f32(ushort(odd >> 16)));
}

// An E8M0 number: a power of two
FN float e8m0(uint code) { return as_type<float>(code == 0 ? 0x00400000u : code << 23); }

// ---- 32 weights as integers: w = d * q - m, q signed bytes, four to a word; d and m for each 16 -------------
#if !defined(MLX_MXFP8)
struct MlxFactors { float d[2], m[2]; };
struct MlxRun { uint q[8]; MlxFactors factors; };

// The q of RUNS times 16 weights from their words
template <int RUNS> FN void mlx_codes(THREAD const uint* words, THREAD uint* q) {
  UNROLL
  for (uint w = 0; w < 4 * RUNS; w++) {
#if defined(MLX_AFFINE)
    q[w] = mlx_four_codes(words, w) ^ (MLX_BITS == 8 ? 0x80808080u : 0u);
#else
    q[w] = four_levels(words[w / 2] >> (16 * (w % 2)));
#endif
  }
}

FN MlxFactors mlx_factors(MlxRow row, uint run) {
  MlxFactors f;
#if defined(MLX_AFFINE)
  const uint group = run * 32 / MLX_GROUP;
  const float scale = ld(row.scales + group), bias = ld(row.biases + group);
  f.d[0] = f.d[1] = scale;
  f.m[0] = f.m[1] = MLX_BITS == 8 ? -(128.0f * scale + bias) : -bias;
#elif defined(MLX_MXFP4)
  f.d[0] = f.d[1] = 0.5f * e8m0(row.scales[run]);
  f.m[0] = f.m[1] = 0.0f;
#else
  f.d[0] = 0.5f * e4m3(row.scales[2 * run]);
  f.d[1] = 0.5f * e4m3(row.scales[2 * run + 1]);
  f.m[0] = f.m[1] = 0.0f;
#endif
  return f;
}

FN MlxRun mlx_run(MlxRow row, uint run) {
  MlxRun r;
  uint words[MLX_BITS];
  mlx_words<1>(mlx_run_at(row, run), words);
  mlx_codes<2>(words, r.q);
  r.factors = mlx_factors(row, run);
  return r;
}
#endif

// The 32 weights of run `run`, over mlx_unit(row, run)
#if defined(MLX_MXFP8)
FN float mlx_unit(MlxRow row, uint run) { return e8m0(row.scales[run]); }

FN void mlx_weights(MlxRow row, uint run, THREAD float4* v) {
  uint words[MLX_BITS];
  mlx_words<1>(mlx_run_at(row, run), words);
  UNROLL
  for (uint w = 0; w < 8; w++) v[w] = four_e4m3(words[w]) * 256.0f;
}
#else
FN float mlx_unit(MlxRow, uint) { return 1.0f; }

FN void mlx_weights(MlxRow row, uint run, THREAD float4* v) {
  const MlxRun r = mlx_run(row, run);
  UNROLL
  for (uint w = 0; w < 8; w++) {
    const float4 q = signed_bytes(r.q[w]);
    const float d = r.factors.d[w / 4], m = r.factors.m[w / 4];
    v[w] = make_float4(fma(d, q.x, -m), fma(d, q.y, -m), fma(d, q.z, -m), fma(d, q.w, -m));
  }
}
#endif

// Weight `i`, below 32, of run `run`
FN float mlx_weight(MlxRow row, uint run, uint i) {
  const uint code = mlx_code(row.packed + run * MLX_BITS, i);
#if defined(MLX_AFFINE)
  const uint group = (run * 32 + i) / MLX_GROUP;
  return add_rn(mul_rn(ld(row.scales + group), float(code)), ld(row.biases + group));
#elif defined(MLX_MXFP8)
  return e8m0(row.scales[run]) * e4m3(code);
#elif defined(MLX_MXFP4)
  return 0.5f * e8m0(row.scales[run]) * float(int(levels[code]));
#else
  return 0.5f * e4m3(row.scales[2 * run + i / 16]) * float(int(levels[code]));
#endif
}
