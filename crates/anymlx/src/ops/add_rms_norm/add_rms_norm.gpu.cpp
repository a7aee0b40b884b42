// h[r, c] += u[r, c], then y[r, c] = h[r, c] / sqrt(mean_c(h[r, c]^2) + epsilon) * (w[c] + weight_offset)
//
//   h, u, y: f32 [rows, columns]    w: f32 [columns]
// One threadgroup for each row, any number of threads. Columns below `vector_columns` are taken four
// at a time (the host sets it where alignment allows), the others one by one. The sum is f32: each
// thread's own, then a tree over the simdgroup, then over the simdgroups. Each thread reads back
// only what it has written itself, so device memory needs no barrier.
struct AddRmsNormBlock { uint columns, vector_columns; float epsilon, weight_offset; };

KERNEL(add_rms_norm_f32, INOUT(float, h), IN(float, u), IN(float, w), OUT(float, y), PARAMS(AddRmsNormBlock, p)) {
  SHARED(float, partial, 32);
  const u64 row = u64(tg_id.x) * p.columns;
  const uint threads = tg_size.x;
  float s = 0.0f;
  for (uint i = 4 * tid; i < p.vector_columns; i += 4 * threads) {
    const float4 v = load4(h + row + i) + load4(u + row + i);
    store4(h + row + i, v);
    s += dot(v, v);
  }
  for (uint i = p.vector_columns + tid; i < p.columns; i += threads) {
    const float v = h[row + i] + u[row + i];
    h[row + i] = v;
    s = fma(v, v, s);
  }
  s = tg_sum(s, partial, lane, simd_id, num_simds);
  const float factor = rsqrt(s / float(p.columns) + p.epsilon);
  const float4 offset = make_float4(p.weight_offset, p.weight_offset, p.weight_offset, p.weight_offset);
  for (uint i = 4 * tid; i < p.vector_columns; i += 4 * threads)
    store4(y + row + i, load4(h + row + i) * factor * (load4(w + i) + offset));
  for (uint i = p.vector_columns + tid; i < p.columns; i += threads)
    y[row + i] = h[row + i] * factor * (w[i] + p.weight_offset);
}
