// y[t, r] = activation(sum_c x[t, c] * gate[r, c]) * sum_c x[t, c] * up[r, c]
//
//   gate, up: [rows, columns] in the encoding ELEMENT    y: f32 [tokens, rows]
//   x: f32 [tokens, columns], or its 8-bit form (layout.rs of quantize_activations) for _i8 kernels, which
//      may have two rows for each token (`terms` is 2), whose products are added
// One simdgroup takes a row of both matrices and T rows of x. x counts threadgroups over the rows of the
// matrices, y over those of x.
struct GatedMatmulBlock { uint tokens, rows, columns, vector_columns, groups, activation_bytes, terms, activation; };

FN Rows<const DEVICE Stored*, 2> both_rows(const DEVICE Stored* gate, const DEVICE Stored* up, uint row, uint columns) {
  Rows<const DEVICE Stored*, 2> rows;
  rows.at[0] = weight_row(gate, row, columns);
  rows.at[1] = weight_row(up, row, columns);
  return rows;
}

// Rows of x past the end repeat the last one and are left out.
template <int T>
FN void store_gated(Sums<2, T> sums, DEVICE float* y, GatedMatmulBlock p, uint row, uint first, uint lane) {
  float previous_gate = 0.0f, previous_up = 0.0f;
  UNROLL
  for (int t = 0; t < T; t++) {
    const float gate_term = simd_sum(sums.at[0][t]), up_term = simd_sum(sums.at[1][t]);
    const float gate = p.terms == 2 ? previous_gate + gate_term : gate_term;
    const float up = p.terms == 2 ? previous_up + up_term : up_term;
    const uint token = (first + t) / p.terms;
    const bool complete = p.terms == 1 || t % 2 == 1;
    if (lane == uint(t) && complete && token < p.tokens)
      y[u64(token) * p.rows + row] = activate(p.activation, gate) * up;
    previous_gate = gate_term;
    previous_up = up_term;
  }
}

template <int T>
FN void gated_f32(const DEVICE float* x, const DEVICE Stored* gate, const DEVICE Stored* up, DEVICE float* y,
                  GatedMatmulBlock p, uint row, uint first, uint lane) {
  if (row >= p.rows) return;  // the whole simdgroup
  Rows<const DEVICE float*, T> inputs;
  for (int t = 0; t < T; t++) inputs.at[t] = x + u64(min(first + t, p.tokens - 1)) * p.columns;
  const Rows<const DEVICE Stored*, 2> rows = both_rows(gate, up, row, p.columns);
  store_gated<T>(dot_rows_f32<2, T>(rows, inputs, p.columns, p.vector_columns, lane), y, p, row, first, lane);
}

#define GATED_F32(suffix, T)                                                                         \
  KERNEL_BOUNDED(128, GPU_CAT(GPU_CAT(gated_matmul_, ELEMENT), suffix), IN(float, x), IN(Stored, gate), \
                 IN(Stored, up), OUT(float, y), PARAMS(GatedMatmulBlock, p)) {                       \
    gated_f32<T>(x, gate, up, y, p, tg_id.x * num_simds + simd_id, tg_id.y * T, lane);               \
  }
GATED_F32(_f32x1, 1)
GATED_F32(_f32x4, 4)

#if defined(ELEMENT_IS_QUANTIZED)
template <int T>
FN void gated_i8(const DEVICE uchar* x, const DEVICE uchar* gate, const DEVICE uchar* up, DEVICE float* y,
                 GatedMatmulBlock p, uint row, uint first, uint lane) {
  if (row >= p.rows) return;  // the whole simdgroup
  Rows<const DEVICE uchar*, T> inputs;
  for (int t = 0; t < T; t++) inputs.at[t] = x + u64(min(first + t, p.tokens * p.terms - 1)) * p.activation_bytes;
  const Rows<const DEVICE uchar*, 2> rows = both_rows(gate, up, row, p.columns);
  store_gated<T>(dot_rows_i8<2, T>(rows, inputs, p.columns, p.groups, lane), y, p, row, first, lane);
}

#define GATED_I8(suffix, T)                                                                          \
  KERNEL_BOUNDED(128, GPU_CAT(GPU_CAT(gated_matmul_, ELEMENT), suffix), IN(uchar, x), IN(uchar, gate), \
                 IN(uchar, up), OUT(float, y), PARAMS(GatedMatmulBlock, p)) {                        \
    gated_i8<T>(x, gate, up, y, p, tg_id.x * num_simds + simd_id, tg_id.y * T, lane);                \
  }
GATED_I8(_i8x1, 1)
GATED_I8(_i8x2, 2)
GATED_I8(_i8x4, 4)
GATED_I8(_i8x8, 8)
#endif
