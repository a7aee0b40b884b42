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

// Code `i`, below 32, of the MLX_BITS words from `words` on
FN uint mlx_code(const DEVICE uint* words, uint i) {
  const uint at = i * MLX_BITS, shift = at % 32;
  uint code = words[at / 32] >> shift;
  if (shift + MLX_BITS > 32) code |= words[at / 32 + 1] << (32 - shift);
  return code & ((1u << MLX_BITS) - 1u);
}

// An E4M3 number
FN float e4m3(uint code) {
  const uint exponent = (code >> 3) & 15u, mantissa = code & 7u;
  float magnitude = float(mantissa) * (1.0f / 512.0f);
  if (exponent > 0) magnitude = as_type<float>((exponent + 127 - 7) << 23 | mantissa << 20);
  if ((code & 127u) == 127u) magnitude = as_type<float>(0x7fc00000u);
  return (code & 128u) ? -magnitude : magnitude;
}

// An E8M0 number: a power of two
FN float e8m0(uint code) { return as_type<float>(code == 0 ? 0x00400000u : code << 23); }

// ---- 32 weights as integers: w = d * q - m, q signed bytes, four to a word; d and m for each 16 -------------
#if !defined(MLX_MXFP8)
struct MlxRun { uint q[8]; float d[2], m[2]; };

FN MlxRun mlx_run(MlxRow row, uint run) {
  MlxRun r;
  const DEVICE uint* words = row.packed + run * MLX_BITS;
  UNROLL
  for (uint w = 0; w < 8; w++) {
    uint q = 0;
    UNROLL
    for (uint k = 0; k < 4; k++) {
#if defined(MLX_AFFINE)
      q |= mlx_code(words, 4 * w + k) << (8 * k);
#else
      q |= (levels[mlx_code(words, 4 * w + k)] & 255u) << (8 * k);
#endif
    }
    r.q[w] = q;
  }
#if defined(MLX_AFFINE)
  const uint group = run * 32 / MLX_GROUP;
  const float scale = ld(row.scales + group), bias = ld(row.biases + group);
#if MLX_BITS == 8
  for (uint w = 0; w < 8; w++) r.q[w] ^= 0x80808080u;
  r.m[0] = -(128.0f * scale + bias);
#else
  r.m[0] = -bias;
#endif
  r.d[0] = r.d[1] = scale;
  r.m[1] = r.m[0];
#elif defined(MLX_MXFP4)
  r.d[0] = r.d[1] = 0.5f * e8m0(row.scales[run]);
  r.m[0] = r.m[1] = 0.0f;
#else
  r.d[0] = 0.5f * e4m3(row.scales[2 * run]);
  r.d[1] = 0.5f * e4m3(row.scales[2 * run + 1]);
  r.m[0] = r.m[1] = 0.0f;
#endif
  return r;
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
