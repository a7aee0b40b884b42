// y[r, c] = e^(x[r, c] - max_r) / sum_c e^(x[r, c] - max_r), f32 [rows, columns].
// One threadgroup for each row, any number of threads; the sum is f32, as in rms_norm.
struct SoftmaxBlock { uint columns; };

KERNEL(softmax_f32, IN(float, x), OUT(float, y), PARAMS(SoftmaxBlock, p)) {
  SHARED(float, maxima, 32);
  SHARED(float, sums, 32);
  const u64 row = u64(tg_id.x) * p.columns;
  float top = GPU_LOWEST;
  for (uint i = tid; i < p.columns; i += tg_size.x) top = max(top, x[row + i]);
  top = tg_max(top, maxima, lane, simd_id, num_simds);
  float sum = 0.0f;
  for (uint i = tid; i < p.columns; i += tg_size.x) {
    const float e = exp(x[row + i] - top);
    y[row + i] = e;
    sum += e;
  }
  const float factor = 1.0f / tg_sum(sum, sums, lane, simd_id, num_simds);
  for (uint i = tid; i < p.columns; i += tg_size.x) y[row + i] *= factor;  // each thread its own
}
