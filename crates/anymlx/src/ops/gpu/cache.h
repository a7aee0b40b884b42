// Writes into caches of keys and values.

// 1 for every thread of the group if a later token has the same position.
FN float is_replaced(const DEVICE uint* positions, uint token, uint tokens, THREADGROUP float* partial, uint tid,
                     uint threads, uint lane, uint simd_id, uint num_simds) {
  float replaced = 0.0f;
  for (uint t = token + 1 + tid; t < tokens; t += threads) {
    if (*fresh(positions + t) == *fresh(positions + token)) replaced = 1.0f;
  }
  return tg_max(replaced, partial, lane, simd_id, num_simds);
}
