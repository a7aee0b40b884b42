// y[t, r] = sum_c x[t, c] * w[r, c] + bias[r]
//
//   w: [rows, columns] in the encoding ELEMENT    y: f32 [tokens, rows]    bias: f32 [rows]
//   x: f32 [tokens, columns], or its 8-bit form (layout.rs of quantize_activations) for i8 kernels, which
//      may have two rows for each token (`terms` is 2), whose products are added
// Without a bias, `has_bias` is 0 and its binding is never read.
//
// _i8xT and _f32xT: one simdgroup takes a few rows of w and T of x. x counts threadgroups over the rows of
// w, y over those of x.
// _i8tile and _f32tile: a threadgroup of 256 threads takes 64 rows (x) and 64 tokens (y).
struct MatmulBlock { uint tokens, rows, columns, vector_columns, groups, activation_bytes, terms, has_bias; };

// ---- one simdgroup -----------------------------------------------------------------------

// Writes what the lanes have summed for `first` and the following rows of x. Rows past the end repeat the
// last one and are left out.
template <int N, int T>
FN void store_sums(Sums<N, T> sums, DEVICE float* y, const DEVICE float* bias, MatmulBlock p, uint first_row,
                   uint first, uint lane) {
  UNROLL
  for (int n = 0; n < N; n++) {
    const uint row = first_row + n;
    float previous = 0.0f;
    UNROLL
    for (int t = 0; t < T; t++) {
      const float term = simd_sum(sums.at[n][t]), sum = p.terms == 2 ? previous + term : term;
      const uint token = (first + t) / p.terms;
      const bool complete = p.terms == 1 || t % 2 == 1;
      if (lane == uint(n * T + t) && complete && row < p.rows && token < p.tokens)
        y[u64(token) * p.rows + row] = p.has_bias ? sum + bias[row] : sum;
      previous = term;
    }
  }
}

template <int N>
FN Rows<const DEVICE Stored*, N> weight_rows(const DEVICE Stored* w, MatmulBlock p, uint first_row) {
  Rows<const DEVICE Stored*, N> rows;
  for (int n = 0; n < N; n++) rows.at[n] = weight_row(w, min(first_row + n, p.rows - 1), p.columns);
  return rows;
}

template <int N, int T>
FN void multiply_f32(const DEVICE float* x, const DEVICE Stored* w, DEVICE float* y, const DEVICE float* bias,
                     MatmulBlock p, uint first_row, uint first, uint lane) {
  if (first_row >= p.rows) return;  // the whole simdgroup
  Rows<const DEVICE float*, T> inputs;
  for (int t = 0; t < T; t++) inputs.at[t] = x + u64(min(first + t, p.tokens - 1)) * p.columns;
  const Sums<N, T> sums = dot_rows_f32<N, T>(weight_rows<N>(w, p, first_row), inputs, p.columns, p.vector_columns, lane);
  store_sums<N, T>(sums, y, bias, p, first_row, first, lane);
}

#define MATMUL_F32(suffix, N, T)                                                                   \
  KERNEL_BOUNDED(128, GPU_CAT(GPU_CAT(matmul_, ELEMENT), suffix), IN(float, x), IN(Stored, w), OUT(float, y), \
                 IN(float, bias), PARAMS(MatmulBlock, p)) {                                        \
    multiply_f32<N, T>(x, w, y, bias, p, (tg_id.x * num_simds + simd_id) * N, tg_id.y * T, lane);  \
  }
MATMUL_F32(_f32x1, 1, 1)
MATMUL_F32(_f32x4, 2, 4)

#if defined(ELEMENT_IS_QUANTIZED)
template <int N, int T>
FN void multiply_i8(const DEVICE uchar* x, const DEVICE uchar* w, DEVICE float* y, const DEVICE float* bias,
                    MatmulBlock p, uint first_row, uint first, uint lane) {
  if (first_row >= p.rows) return;  // the whole simdgroup
  Rows<const DEVICE uchar*, T> inputs;
  const uint last = p.tokens * p.terms - 1;
  for (int t = 0; t < T; t++) inputs.at[t] = x + u64(min(first + t, last)) * p.activation_bytes;
  const Sums<N, T> sums = dot_rows_i8<N, T>(weight_rows<N>(w, p, first_row), inputs, p.columns, p.groups, lane);
  store_sums<N, T>(sums, y, bias, p, first_row, first, lane);
}

#define MATMUL_I8(suffix, N, T)                                                                    \
  KERNEL_BOUNDED(128, GPU_CAT(GPU_CAT(matmul_, ELEMENT), suffix), IN(uchar, x), IN(uchar, w), OUT(float, y), \
                 IN(float, bias), PARAMS(MatmulBlock, p)) {                                        \
    multiply_i8<N, T>(x, w, y, bias, p, (tg_id.x * num_simds + simd_id) * N, tg_id.y * T, lane);   \
  }
MATMUL_I8(_i8x1, 1, 1)
MATMUL_I8(_i8x2, 2, 2)
MATMUL_I8(_i8x4, 2, 4)
MATMUL_I8(_i8x8, 2, 8)
#endif

// ---- tiles -------------------------------------------------------------------------------
enum { TILE = 64, STEP = 16, LENGTH = TILE + 4 };  // rows or tokens, columns at a time, floats of a line

// Four weights of row `row` from column `first` on, a multiple of 4; 0 outside the matrix.
FN float4 four_weights(const DEVICE Stored* w, MatmulBlock p, uint row, uint first) {
  float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (row >= p.rows || first >= p.columns) return v;
#if defined(ELEMENT_IS_QUANTIZED)
  const uint run = first / 16, runs = Format::BLOCK / 16, index = run % runs;
  const DEVICE uchar* block = weight_row(w, row, p.columns) + run / runs * Format::BYTES;
  const Run r = Format::run(block, Format::piece_of(index), Format::part_of(index));
  const uint word = first % 16 / 4;
  const float4 q = signed_bytes(word < 2 ? (word == 0 ? r.q[0] : r.q[1]) : (word == 2 ? r.q[2] : r.q[3]));
  v = make_float4(fma(r.d, q.x, -r.m), fma(r.d, q.y, -r.m), fma(r.d, q.z, -r.m), fma(r.d, q.w, -r.m));
#else
  const DEVICE Stored* from = weight_row(w, row, p.columns) + first;
  if (first < p.vector_columns) return load4(from);
  v.x = ld(from);
  if (first + 1 < p.columns) v.y = ld(from + 1);
  if (first + 2 < p.columns) v.z = ld(from + 2);
  if (first + 3 < p.columns) v.w = ld(from + 3);
#endif
  return v;
}

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

// Column `k` of a tile is a line of TILE values.
FN void store_column(THREADGROUP float* tile, uint k, uint at, float4 v) {
  tile[k * LENGTH + at] = v.x;
  tile[(k + 1) * LENGTH + at] = v.y;
  tile[(k + 2) * LENGTH + at] = v.z;
  tile[(k + 3) * LENGTH + at] = v.w;
}

FN float4 add_scaled(float4 sum, float4 v, float s) {
  return make_float4(fma(v.x, s, sum.x), fma(v.y, s, sum.y), fma(v.z, s, sum.z), fma(v.w, s, sum.w));
}

FN void store_four(float4 sum, DEVICE float* y, const DEVICE float* bias, MatmulBlock p, uint token, uint row) {
  if (token >= p.tokens) return;
  DEVICE float* to = y + u64(token) * p.rows;
  if (row < p.rows) to[row] = sum.x + (p.has_bias ? bias[row] : 0.0f);
  if (row + 1 < p.rows) to[row + 1] = sum.y + (p.has_bias ? bias[row + 1] : 0.0f);
  if (row + 2 < p.rows) to[row + 2] = sum.z + (p.has_bias ? bias[row + 2] : 0.0f);
  if (row + 3 < p.rows) to[row + 3] = sum.w + (p.has_bias ? bias[row + 3] : 0.0f);
}

// Each thread sums 4 rows x 4 tokens.
KERNEL_BOUNDED(256, GPU_CAT(GPU_CAT(matmul_, ELEMENT), _f32tile), IN(float, x), IN(Stored, w), OUT(float, y),
               IN(float, bias), PARAMS(MatmulBlock, p)) {
  SHARED(float, weights, STEP * LENGTH);
  SHARED(float, inputs, STEP * LENGTH);
  const uint first_row = tg_id.x * TILE, first_token = tg_id.y * TILE;
  const uint at = tid / 4, k = tid % 4 * 4, rows = tid % 16 * 4, tokens = tid / 16 * 4;
  float4 sums[4];
  for (int t = 0; t < 4; t++) sums[t] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  for (uint first = 0; first < p.columns; first += STEP) {
    store_column(weights, k, at, four_weights(w, p, first_row + at, first + k));
    store_column(inputs, k, at, four_inputs(x, p, first_token + at, first + k));
    BARRIER();
    for (uint c = 0; c < STEP; c++) {
      const float4 a = load4(weights + c * LENGTH + rows), b = load4(inputs + c * LENGTH + tokens);
      sums[0] = add_scaled(sums[0], a, b.x);
      sums[1] = add_scaled(sums[1], a, b.y);
      sums[2] = add_scaled(sums[2], a, b.z);
      sums[3] = add_scaled(sums[3], a, b.w);
    }
    BARRIER();
  }
  UNROLL
  for (uint t = 0; t < 4; t++) store_four(sums[t], y, bias, p, first_token + tokens + t, first_row + rows);
}

#if defined(ELEMENT_IS_QUANTIZED)
// Words of a line of 32 quants: a multiple of 4, and 8 lines side by side fall into different banks.
enum { LINE = 12 };

// Each thread sums 4 rows x 4 tokens, 16 apart, 32 columns at a time: the integers of each 16 exactly.
KERNEL_BOUNDED(256, GPU_CAT(GPU_CAT(matmul_, ELEMENT), _i8tile), IN(uchar, x), IN(uchar, w), OUT(float, y),
               IN(float, bias), PARAMS(MatmulBlock, p)) {
  SHARED(uint, weights, TILE * LINE);
  SHARED(uint, inputs, TILE * LINE);
  SHARED(float, factors, TILE * 2);
  SHARED(float, minimums, TILE * 2);
  SHARED(float, scales, TILE);
  SHARED(float, input_sums, TILE * 2);
  const uint first_row = tg_id.x * TILE, first_token = tg_id.y * TILE;
  const uint at = tid % 128 / 2, part = tid % 2, rows = tid % 16, tokens = tid / 16;
  const uint runs = Format::BLOCK / 16;
  float sums[4][4];
  for (int i = 0; i < 4; i++) for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
  const uint groups = p.columns / 32;
  for (uint step = 0; step < groups * p.terms; step++) {
    const uint group = step % groups, term = step / groups, run = 2 * group + part;
    if (tid < 128) {
      // Rows past the end repeat the last one.
      const uint row = min(first_row + at, p.rows - 1), index = run % runs;
      const DEVICE uchar* block = weight_row(w, row, p.columns) + run / runs * Format::BYTES;
      const Run r = Format::run(block, Format::piece_of(index), Format::part_of(index));
      UNROLL
      for (int i = 0; i < 4; i++) weights[at * LINE + 4 * part + i] = r.q[i];
      factors[2 * at + part] = r.d;
      minimums[2 * at + part] = r.m;
    } else {
      const DEVICE uchar* row = x + (u64(min(first_token + at, p.tokens - 1)) * p.terms + term) * p.activation_bytes;
      const uint4 q = load_u128(row + 16 * run);
      inputs[at * LINE + 4 * part] = q.x;
      inputs[at * LINE + 4 * part + 1] = q.y;
      inputs[at * LINE + 4 * part + 2] = q.z;
      inputs[at * LINE + 4 * part + 3] = q.w;
      input_sums[2 * at + part] = float(int(load_u16(row + p.columns + 4 * p.groups + 2 * run) << 16) >> 16);
      if (part == 0) scales[at] = as_type<float>(load_u32(row + p.columns + 4 * group));
    }
    BARRIER();
    UNROLL
    for (int j = 0; j < 4; j++) {
      const uint token = tokens + 16 * j;
      uint q[8];
      UNROLL
      for (int i = 0; i < 8; i++) q[i] = inputs[token * LINE + i];
      const float scale = scales[token], sum0 = input_sums[2 * token], sum1 = input_sums[2 * token + 1];
      UNROLL
      for (int i = 0; i < 4; i++) {
        const uint row = rows + 16 * i;
        int a = 0, b = 0;
        UNROLL
        for (int k = 0; k < 4; k++) {
          a = dot4_i8(weights[row * LINE + k], q[k], a);
          b = dot4_i8(weights[row * LINE + 4 + k], q[4 + k], b);
        }
        float product = factors[2 * row] * float(a) + factors[2 * row + 1] * float(b);
        if (Format::HAS_MIN) product -= minimums[2 * row] * sum0 + minimums[2 * row + 1] * sum1;
        sums[i][j] += scale * product;
      }
    }
    BARRIER();
  }
  UNROLL
  for (int j = 0; j < 4; j++) {
    UNROLL
    for (int i = 0; i < 4; i++) {
      const uint row = first_row + rows + 16 * i, token = first_token + tokens + 16 * j;
      if (row < p.rows && token < p.tokens)
        y[u64(token) * p.rows + row] = sums[i][j] + (p.has_bias ? bias[row] : 0.0f);
    }
  }
}
#endif
