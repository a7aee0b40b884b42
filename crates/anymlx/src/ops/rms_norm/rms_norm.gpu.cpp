// y[r, c] = x[r, c] / sqrt(mean_c(x[r, c]^2) + epsilon) * (w[c] + weight_offset)
//
//   x, y: f32 [rows, columns]    w: f32 [columns]
// One threadgroup for each row, any number of threads. Columns below `vector_columns` are taken four
// at a time (the host sets it where alignment allows), the others one by one. The sum is f32: each
// thread's own, then a tree over the simdgroup, then over the simdgroups.
struct RmsNormBlock { uint columns, vector_columns; float epsilon, weight_offset; };

FN float sum_of_squares(const DEVICE float* x, RmsNormBlock p, uint tid, uint threads) {
  float s = 0.0f;
  for (uint i = 4 * tid; i < p.vector_columns; i += 4 * threads) {
    const float4 v = load4(x + i);
    s += dot(v, v);
  }
  for (uint i = p.vector_columns + tid; i < p.columns; i += threads) s = fma(x[i], x[i], s);
  return s;
}

FN void scale_row(const DEVICE float* x, const DEVICE float* w, DEVICE float* y, float factor, RmsNormBlock p,
                  uint tid, uint threads) {
  const float4 offset = make_float4(p.weight_offset, p.weight_offset, p.weight_offset, p.weight_offset);
  for (uint i = 4 * tid; i < p.vector_columns; i += 4 * threads)
    store4(y + i, load4(x + i) * factor * (load4(w + i) + offset));
  for (uint i = p.vector_columns + tid; i < p.columns; i += threads) y[i] = x[i] * factor * (w[i] + p.weight_offset);
}

KERNEL(rms_norm_f32, IN(float, x), IN(float, w), OUT(float, y), PARAMS(RmsNormBlock, p)) {
  SHARED(float, partial, 32);
  const u64 row = u64(tg_id.x) * p.columns;
  const float s = tg_sum(sum_of_squares(x + row, p, tid, tg_size.x), partial, lane, simd_id, num_simds);
  const float factor = rsqrt(s / float(p.columns) + p.epsilon);
  scale_row(x + row, w, y + row, factor, p, tid, tg_size.x);
}

KERNEL(rms_norm_in_place_f32, INOUT(float, x), IN(float, w), PARAMS(RmsNormBlock, p)) {
  SHARED(float, partial, 32);
  DEVICE float* row = x + u64(tg_id.x) * p.columns;
  const float s = tg_sum(sum_of_squares(row, p, tid, tg_size.x), partial, lane, simd_id, num_simds);
  const float factor = rsqrt(s / float(p.columns) + p.epsilon);
  scale_row(row, w, row, factor, p, tid, tg_size.x);  // each thread rewrites what it has read itself
}
