// output[r] = index of the largest value of row r, the lowest among equals; NaN never wins, a row of
// nothing else gives 0.
//
//   logits: f32 [rows, columns]    output: u32 [rows]
// One threadgroup for each row, any number of threads.
struct ArgmaxBlock { uint columns; };

struct Best { float value; uint index; };

FN Best better(Best a, Best b) {
  return (b.value > a.value || (b.value == a.value && b.index < a.index)) ? b : a;
}

FN Best simd_best(Best best) {
  for (ushort m = 16; m > 0; m >>= 1) {
    Best other;
    other.value = simd_shuffle_xor(best.value, m);
    other.index = simd_shuffle_xor(best.index, m);
    best = better(best, other);
  }
  return best;
}

KERNEL(argmax_f32, IN(float, logits), OUT(uint, output), PARAMS(ArgmaxBlock, p)) {
  SHARED(float, values, 32);
  SHARED(uint, indices, 32);
  const u64 row = u64(tg_id.x) * p.columns;
  Best best;
  best.value = as_type<float>(0xff800000u);  // minus infinity, which any index of its own beats
  best.index = 0xffffffffu;
  const Best none = best;
  for (uint i = tid; i < p.columns; i += tg_size.x) {
    Best next;
    next.value = logits[row + i];
    next.index = i;
    best = better(best, next);
  }
  best = simd_best(best);
  if (lane == 0) {
    values[simd_id] = best.value;
    indices[simd_id] = best.index;
  }
  BARRIER();
  Best group = none;
  if (lane < num_simds) {
    group.value = values[lane];
    group.index = indices[lane];
  }
  group = simd_best(group);
  if (tid == 0) output[tg_id.x] = group.index == 0xffffffffu ? 0 : group.index;
}
