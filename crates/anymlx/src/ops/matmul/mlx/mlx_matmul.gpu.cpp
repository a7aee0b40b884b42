// y[t, r] = sum_c x[t, c] * w[r, c] + bias[r], w in MLX's layout: see mlx.h.
//
//   x: f32 [tokens, columns], or its 8-bit form (layout.rs of quantize_activations) for i8 kernels, which
//      may have two rows for each token (`terms` is 2), whose products are added
//   y: f32 [tokens, rows]    bias: f32 [rows]
// Without a bias, `has_bias` is 0 and its binding is never read. `aligned`: whether x is, to 16 bytes.
//
// One simdgroup takes a row of w and T of x; each lane its share of the runs of 32 columns. x counts
// threadgroups over the rows of w, y over those of x.
struct MlxMatmulBlock { uint tokens, rows, columns, groups, activation_bytes, terms, has_bias, aligned; };

// Writes what the lanes have summed for row `row` of w and `first` and the following rows of x.
template <int T>
FN void store_row(THREAD const float* sums, DEVICE float* y, const DEVICE float* bias, MlxMatmulBlock p, uint row, uint first,
                  uint lane) {
  float previous = 0.0f;
  UNROLL
  for (int t = 0; t < T; t++) {
    const float term = simd_sum(sums[t]), sum = p.terms == 2 ? previous + term : term;
    const uint token = (first + t) / p.terms;
    const bool complete = p.terms == 1 || t % 2 == 1;
    if (lane == uint(t) && complete && token < p.tokens) y[u64(token) * p.rows + row] = p.has_bias ? sum + bias[row] : sum;
    previous = term;
  }
}

template <int T>
FN void multiply_f32(const DEVICE float* x, MlxRow w, DEVICE float* y, const DEVICE float* bias, MlxMatmulBlock p, uint row,
                     uint first, uint lane) {
  float sums[T];
  UNROLL
  for (int t = 0; t < T; t++) sums[t] = 0.0f;
  for (uint run = lane; run < p.columns / 32; run += 32) {
    float4 v[8];
    mlx_weights(w, run, v);
    const float unit = mlx_unit(w, run);
    UNROLL
    for (int t = 0; t < T; t++) {
      const DEVICE float* from = x + u64(min(first + t, p.tokens - 1)) * p.columns + 32 * run;
      float product = 0.0f;
      UNROLL
      for (uint w = 0; w < 8; w++)
        product += dot(v[w], p.aligned ? load4(from + 4 * w) : make_float4(from[4 * w], from[4 * w + 1], from[4 * w + 2], from[4 * w + 3]));
      sums[t] = fma(product, unit, sums[t]);
    }
  }
  store_row<T>(sums, y, bias, p, row, first, lane);
}

#define MATMUL_F32(suffix, T)                                                                             \
  KERNEL_BOUNDED(128, GPU_CAT(GPU_CAT(matmul_, ELEMENT), suffix), IN(float, x), IN(uint, w), IN(MlxScale, scales), \
                 IN(MlxScale, biases), OUT(float, y), IN(float, bias), PARAMS(MlxMatmulBlock, p)) {       \
    const uint row = tg_id.x * num_simds + simd_id;                                                       \
    if (row >= p.rows) return; /* the whole simdgroup */                                                  \
    multiply_f32<T>(x, mlx_row(w, scales, biases, row, p.columns), y, bias, p, row, tg_id.y * T, lane);   \
  }
MATMUL_F32(_f32x1, 1)
MATMUL_F32(_f32x8, 8)

#if !defined(MLX_MXFP8)
template <int T>
FN void multiply_i8(const DEVICE uchar* x, MlxRow w, DEVICE float* y, const DEVICE float* bias, MlxMatmulBlock p, uint row,
                    uint first, uint lane) {
  float sums[T];
  UNROLL
  for (int t = 0; t < T; t++) sums[t] = 0.0f;
  const uint last = p.tokens * p.terms - 1;
  for (uint run = lane; run < p.columns / 32; run += 32) {
    const MlxRun r = mlx_run(w, run);
    const MlxFactors f = r.factors;
    UNROLL
    for (int t = 0; t < T; t++) {
      const DEVICE uchar* at = x + u64(min(first + t, last)) * p.activation_bytes;
      const uint4 a = load_u128(at + 32 * run), b = load_u128(at + 32 * run + 16);
      const float scale = as_type<float>(load_u32(at + p.columns + 4 * run));
      const uint both = load_u32(at + p.columns + 4 * p.groups + 4 * run);
      const float sum0 = float(int(both << 16) >> 16), sum1 = float(int(both) >> 16);
      const int dot0 = dot4_i8(r.q[0], a.x, dot4_i8(r.q[1], a.y, dot4_i8(r.q[2], a.z, dot4_i8(r.q[3], a.w, 0))));
      const int dot1 = dot4_i8(r.q[4], b.x, dot4_i8(r.q[5], b.y, dot4_i8(r.q[6], b.z, dot4_i8(r.q[7], b.w, 0))));
      sums[t] += scale * (f.d[0] * float(dot0) - f.m[0] * sum0 + (f.d[1] * float(dot1) - f.m[1] * sum1));
    }
  }
  store_row<T>(sums, y, bias, p, row, first, lane);
}

#define MATMUL_I8(suffix, T)                                                                              \
  KERNEL_BOUNDED(128, GPU_CAT(GPU_CAT(matmul_, ELEMENT), suffix), IN(uchar, x), IN(uint, w), IN(MlxScale, scales), \
                 IN(MlxScale, biases), OUT(float, y), IN(float, bias), PARAMS(MlxMatmulBlock, p)) {       \
    const uint row = tg_id.x * num_simds + simd_id;                                                       \
    if (row >= p.rows) return; /* the whole simdgroup */                                                  \
    multiply_i8<T>(x, mlx_row(w, scales, biases, row, p.columns), y, bias, p, row, tg_id.y * T, lane);    \
  }
MATMUL_I8(_i8x1, 1)
MATMUL_I8(_i8x2, 2)
MATMUL_I8(_i8x8, 8)
#endif
