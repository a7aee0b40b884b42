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

FN Best nothing() {
  Best none;
  none.value = as_type<float>(0xff800000u);  // minus infinity, which any index of its own beats
  none.index = 0xffffffffu;
  return none;
}

// The best of all threads, for thread 0.
FN Best group_best(Best best, THREADGROUP float* values, THREADGROUP uint* indices, uint lane, uint simd_id,
                   uint num_simds) {
  best = simd_best(best);
  if (lane == 0) {
    values[simd_id] = best.value;
    indices[simd_id] = best.index;
  }
  BARRIER();
  Best group = nothing();
  if (lane < num_simds) {
    group.value = values[lane];
    group.index = indices[lane];
  }
  return simd_best(group);
}

// Logits of a thread whose loads are under way at once
enum { TOGETHER = 8 };

// The best of the columns from `begin` to `end`
FN Best thread_best(const DEVICE float* row, uint begin, uint end, uint tid, uint threads) {
  Best best = nothing();
  for (uint first = begin + tid; first < end; first += TOGETHER * threads) {
    float at_once[TOGETHER];
    UNROLL
    for (uint j = 0; j < TOGETHER; j++) at_once[j] = first + j * threads < end ? row[first + j * threads] : 0.0f;
    UNROLL
    for (uint j = 0; j < TOGETHER; j++) {
      Best next;
      next.value = at_once[j];
      next.index = first + j * threads;
      if (next.index < end) best = better(best, next);
    }
  }
  return best;
}

KERNEL(argmax_f32, IN(float, logits), OUT(uint, output), PARAMS(ArgmaxBlock, p)) {
  SHARED(float, values, 32);
  SHARED(uint, indices, 32);
  const Best mine = thread_best(logits + u64(tg_id.x) * p.columns, 0, p.columns, tid, tg_size.x);
  const Best best = group_best(mine, values, indices, lane, simd_id, num_simds);
  if (tid == 0) output[tg_id.x] = best.index == 0xffffffffu ? 0 : best.index;
}

// The same in two steps: a threadgroup for each part (x) of a row (y), `length` columns long, then one for
// each row.
struct ArgmaxPartBlock { uint columns, length, parts; };

KERNEL_EARLY(256, 4, argmax_f32_part, IN(float, logits), OUT(float, part_values), OUT(uint, part_indices),
             PARAMS(ArgmaxPartBlock, p)) {
  SHARED(float, values, 32);
  SHARED(uint, indices, 32);
  GRID_DEPENDENTS();
  GRID_WAIT();
  const uint begin = min(tg_id.x * p.length, p.columns), end = min(begin + p.length, p.columns);
  const Best mine = thread_best(fresh(logits) + u64(tg_id.y) * p.columns, begin, end, tid, tg_size.x);
  const Best best = group_best(mine, values, indices, lane, simd_id, num_simds);
  if (tid == 0) {
    part_values[tg_id.y * p.parts + tg_id.x] = best.value;
    part_indices[tg_id.y * p.parts + tg_id.x] = best.index;
  }
}

KERNEL_EARLY(256, 4, argmax_f32_join, IN(float, part_values), IN(uint, part_indices), OUT(uint, output),
             PARAMS(ArgmaxPartBlock, p)) {
  SHARED(float, values, 32);
  SHARED(uint, indices, 32);
  GRID_DEPENDENTS();
  GRID_WAIT();
  Best mine = nothing();
  if (tid < p.parts) {
    mine.value = fresh(part_values)[tg_id.x * p.parts + tid];
    mine.index = fresh(part_indices)[tg_id.x * p.parts + tid];
  }
  const Best best = group_best(mine, values, indices, lane, simd_id, num_simds);
  if (tid == 0) output[tg_id.x] = best.index == 0xffffffffu ? 0 : best.index;
}
