// y[t, r] = sum_c x[t, c] * w[r, c] + bias[r], by the matrix units of Apple's GPUs: what f32tile and i8tile
// of matmul.gpu.cpp do, for the same operands.
//
// A threadgroup of 4 simdgroups takes 64 rows of w (x) and 32 tokens (y), 32 columns at a time, through
// threadgroup memory; a simdgroup takes 32 rows x 16 tokens as 4 x 2 matrices of 8 x 8. Sums are f32; weights
// are f32 in threadgroup memory, but for f16 ones, which stay what they are. How the lanes of a simdgroup
// hold a matrix is nowhere relied on.
struct MatmulBlock { uint tokens, rows, columns, vector_columns, groups, activation_bytes, terms, has_bias; };

// Rows, tokens and columns of a tile; the lengths of its lines, each a multiple of 16 bytes.
enum { ROWS = 64, TOKENS = 32, STEP = 32, LINE = STEP + 8, SUM_LINE = ROWS + 4 };

template <typename T> struct TileOf { typedef float Type; };
template <> struct TileOf<f16> { typedef f16 Type; };
typedef TileOf<Stored>::Type Tile;

// Eight values of a token from column `first` on; 0 past the end.
struct Eight { float4 low, high; };

FN float4 four_inputs(const DEVICE float* x, MatmulBlock p, uint token, uint first) {
  float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (token >= p.tokens || first >= p.columns) return v;
  const DEVICE float* from = x + u64(token) * p.columns + first;
  if (first < p.vector_columns) return load4(from);
  v.x = from[0];
  if (first + 1 < p.columns) v.y = from[1];
  if (first + 2 < p.columns) v.z = from[2];
  if (first + 3 < p.columns) v.w = from[3];
  return v;
}

FN Eight eight_inputs(const DEVICE float* x, MatmulBlock p, uint token, uint first) {
  Eight v;
  v.low = four_inputs(x, p, token, first);
  v.high = four_inputs(x, p, token, first + 4);
  return v;
}

#if defined(ELEMENT_IS_QUANTIZED)
FN Eight eight_inputs(const DEVICE uchar* x, MatmulBlock p, uint token, uint first) {
  Eight v;
  v.low = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  v.high = v.low;
  if (token >= p.tokens || first >= p.columns) return v;
  // The rows of a token are the terms of its values.
  for (uint term = 0; term < p.terms; term++) {
    const DEVICE uchar* row = x + (u64(token) * p.terms + term) * p.activation_bytes;
    const float scale = as_type<float>(load_u32(row + p.columns + 4 * (first / 32)));
    const uint2 q = load_u64(row + first);
    v.low = v.low + signed_bytes(q.x) * scale;
    v.high = v.high + signed_bytes(q.y) * scale;
  }
  return v;
}
#endif

// Sixteen weights of row `row` from column `first` on, a multiple of 16, into a line of the tile; 0 outside.
FN void stage_weights(const DEVICE Stored* w, MatmulBlock p, uint row, uint first, THREADGROUP Tile* to) {
#if defined(ELEMENT_IS_QUANTIZED)
  const float4 none = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (row >= p.rows || first >= p.columns) {
    for (uint i = 0; i < 16; i += 4) store4(to + i, none);
    return;
  }
  const uint run = first / 16, runs = Format::BLOCK / 16, index = run % runs;
  const DEVICE uchar* block = weight_row(w, row, p.columns) + run / runs * Format::BYTES;
  const Run r = Format::run(block, Format::piece_of(index), Format::part_of(index));
  UNROLL
  for (uint i = 0; i < 4; i++) {
    const float4 q = signed_bytes(r.q[i]);
    store4(to + 4 * i, make_float4(fma(r.d, q.x, -r.m), fma(r.d, q.y, -r.m), fma(r.d, q.z, -r.m), fma(r.d, q.w, -r.m)));
  }
#else
  const DEVICE Stored* from = weight_row(w, min(row, p.rows - 1), p.columns);
  UNROLL
  for (uint i = 0; i < 16; i += 4) {
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const uint column = first + i;
    if (row < p.rows && column < p.columns) {
      if (column < p.vector_columns) {
        v = load4(from + column);
      } else {
        v.x = ld(from + column);
        if (column + 1 < p.columns) v.y = ld(from + column + 1);
        if (column + 2 < p.columns) v.z = ld(from + column + 2);
        if (column + 3 < p.columns) v.w = ld(from + column + 3);
      }
    }
    store4(to + i, v);
  }
#endif
}

// The sums of a simdgroup: matrix [t][r] has tokens 8 t .. and rows 8 r .. of its part.
struct TileSums { simdgroup_float8x8 at[2][4]; };

FN void add_products(THREAD TileSums& sums, THREADGROUP const Tile* weights, THREADGROUP const float* inputs) {
  const ulong2 origin = {0, 0};
  UNROLL
  for (uint k = 0; k < STEP; k += 8) {
    simdgroup_float8x8 left[2];
    simdgroup_matrix<Tile, 8, 8> right[4];
    UNROLL
    for (uint t = 0; t < 2; t++) simdgroup_load(left[t], inputs + 8 * t * LINE + k, LINE);
    UNROLL
    for (uint r = 0; r < 4; r++) simdgroup_load(right[r], weights + 8 * r * LINE + k, LINE, origin, true);
    UNROLL
    for (uint t = 0; t < 2; t++) {
      UNROLL
      for (uint r = 0; r < 4; r++) simdgroup_multiply_accumulate(sums.at[t][r], left[t], right[r], sums.at[t][r]);
    }
  }
}

// `X` is what the values of a token are read from.
#define MATMUL_SIMDGROUP(suffix, X)                                                                  \
  KERNEL_BOUNDED(128, GPU_CAT(GPU_CAT(matmul_, ELEMENT), suffix), IN(X, x), IN(Stored, w), OUT(float, y), \
                 IN(float, bias), PARAMS(MatmulBlock, p)) {                                          \
    SHARED(Tile, weights, ROWS * LINE);                                                              \
    SHARED(float, inputs, TOKENS * LINE);                                                            \
    SHARED(float, results, TOKENS * SUM_LINE);                                                       \
    const uint first_row = tg_id.x * ROWS, first_token = tg_id.y * TOKENS;                           \
    const uint part_row = simd_id % 2 * 32, part_token = simd_id / 2 * 16;                           \
    TileSums sums;                                                                                   \
    UNROLL                                                                                           \
    for (uint t = 0; t < 2; t++) {                                                                   \
      UNROLL                                                                                         \
      for (uint r = 0; r < 4; r++) sums.at[t][r] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);  \
    }                                                                                                \
    for (uint first = 0; first < p.columns; first += STEP) {                                         \
      const uint half_line = tid % 2 * 16, quarter = tid % 4 * 8;                                    \
      stage_weights(w, p, first_row + tid / 2, first + half_line, weights + tid / 2 * LINE + half_line); \
      const Eight v = eight_inputs(x, p, first_token + tid / 4, first + quarter);                    \
      store4(inputs + tid / 4 * LINE + quarter, v.low);                                              \
      store4(inputs + tid / 4 * LINE + quarter + 4, v.high);                                         \
      BARRIER();                                                                                     \
      add_products(sums, weights + part_row * LINE, inputs + part_token * LINE);                     \
      BARRIER();                                                                                     \
    }                                                                                                \
    UNROLL                                                                                           \
    for (uint t = 0; t < 2; t++) {                                                                   \
      UNROLL                                                                                         \
      for (uint r = 0; r < 4; r++)                                                                   \
        simdgroup_store(sums.at[t][r], results + (part_token + 8 * t) * SUM_LINE + part_row + 8 * r, SUM_LINE); \
    }                                                                                                \
    BARRIER();                                                                                       \
    for (uint i = tid; i < TOKENS * ROWS; i += 128) {                                                \
      const uint token = first_token + i / ROWS, row = first_row + i % ROWS;                         \
      const float sum = results[i / ROWS * SUM_LINE + i % ROWS];                                     \
      if (token < p.tokens && row < p.rows)                                                          \
        y[u64(token) * p.rows + row] = sum + (p.has_bias ? bias[row] : 0.0f);                        \
    }                                                                                                \
  }

MATMUL_SIMDGROUP(_f32simdgroup, float)
#if defined(ELEMENT_IS_QUANTIZED)
MATMUL_SIMDGROUP(_i8simdgroup, uchar)
#endif
