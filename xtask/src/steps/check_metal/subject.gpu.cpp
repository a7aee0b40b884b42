// Sum of each row's squares: a text without mistakes, into which the check plants them.
struct SubjectBlock { uint columns; float factor; };

FN float sum_of_squares(const DEVICE float* x, SubjectBlock p, uint tid, uint threads) {
  float sum = 0.0f;
  for (uint i = tid; i < p.columns; i += threads) sum = fma(x[i], x[i], sum);
  return sum * p.factor;
}

KERNEL(subject, IN(float, x), OUT(float, y), PARAMS(SubjectBlock, p)) {
  SHARED(float, partial, 32);
  const float sum = tg_sum(sum_of_squares(x + u64(tg_id.x) * p.columns, p, tid, tg_size.x), partial, lane, simd_id, num_simds);
  if (tid == 0) y[tg_id.x] = sum;
}
