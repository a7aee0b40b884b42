// Norms and rotates queries and keys, and writes keys and values into the cache.
//
//   queries: f32 [tokens, heads, head_dim], in place    keys, values: f32 [tokens, kv_heads, head_dim]
//   query_norm, key_norm: f32 [head_dim], never read unless is_normed    positions: u32 [tokens]
//   frequencies: f32 [pairs]    caches: f16 or f32 [kv_heads, capacity, head_dim]
// One threadgroup of as many simdgroups as it likes for each token (x) and head (y): first those of
// queries, then of keys, then of values. Heads have at most MAX_HEAD_DIM elements.
struct RotateBlock {
  uint tokens, heads, kv_heads, head_dim, capacity, pairs, interleaved, is_normed;
  float magnitude, epsilon, weight_offset;
};
enum { MAX_HEAD_DIM = 512 };

// The head, normed and rotated, in threadgroup memory. Ends with a barrier.
FN void rotate_head(const DEVICE float* from, const DEVICE float* norm, const DEVICE float* frequencies, uint position,
                    THREADGROUP float* head, THREADGROUP float* partial, RotateBlock p, uint tid, uint threads, uint lane,
                    uint simd_id, uint num_simds) {
  float s = 0.0f;
  for (uint i = tid; i < p.head_dim; i += threads) {
    const float v = from[i];
    head[i] = v;
    s = fma(v, v, s);
  }
  float factor = 1.0f;
  if (p.is_normed) factor = rsqrt(tg_sum(s, partial, lane, simd_id, num_simds) / float(p.head_dim) + p.epsilon);
  BARRIER();
  for (uint i = tid; i < p.head_dim; i += threads) {
    const uint pair = p.interleaved ? i / 2 : i;
    const uint second = p.interleaved ? i + 1 : i + p.pairs;
    const bool first_of_pair = p.interleaved ? i % 2 == 0 && pair < p.pairs : i < p.pairs;
    const bool rotated = i < 2 * p.pairs;
    if (first_of_pair) {
      const Angle t = angle(position, frequencies[pair]);
      const float sine = t.sine * p.magnitude, cosine = t.cosine * p.magnitude;
      const float a = head[i] * factor * (p.is_normed ? norm[i] + p.weight_offset : 1.0f);
      const float b = head[second] * factor * (p.is_normed ? norm[second] + p.weight_offset : 1.0f);
      head[i] = a * cosine - b * sine;
      head[second] = a * sine + b * cosine;
    } else if (!rotated && p.is_normed) {
      head[i] = head[i] * factor * (norm[i] + p.weight_offset);
    }
  }
  BARRIER();
}

#define ROTATE_AND_CACHE(name, T)                                                                          \
  KERNEL_EARLY(256, 4, name, INOUT(float, queries), IN(float, keys), IN(float, values), IN(float, query_norm), \
               IN(float, key_norm), IN(uint, positions), IN(float, frequencies), INOUT(T, key_cache),      \
               INOUT(T, value_cache), PARAMS(RotateBlock, p)) {                                            \
    SHARED(float, head, MAX_HEAD_DIM);                                                                     \
    SHARED(float, partial, 32);                                                                            \
    SHARED(float, other_partial, 32);                                                                      \
    GRID_DEPENDENTS();                                                                                     \
    GRID_WAIT();                                                                                           \
    const uint token = tg_id.x, position = *fresh(positions + token);                                  \
    if (tg_id.y < p.heads) {                                                                               \
      DEVICE float* query = queries + (u64(token) * p.heads + tg_id.y) * p.head_dim;                       \
      rotate_head(fresh(query), query_norm, frequencies, position, head, partial, p, tid, tg_size.x, lane, simd_id, num_simds); \
      for (uint i = tid; i < p.head_dim; i += tg_size.x) query[i] = head[i];                               \
    } else {                                                                                               \
      const bool is_key = tg_id.y < p.heads + p.kv_heads;                                                  \
      const uint kv_head = tg_id.y - p.heads - (is_key ? 0 : p.kv_heads);                                  \
      const u64 from = (u64(token) * p.kv_heads + kv_head) * p.head_dim;                                   \
      const u64 to = (u64(kv_head) * p.capacity + position) * p.head_dim;                                  \
      const float replaced =                                                                               \
          is_replaced(positions, token, p.tokens, other_partial, tid, tg_size.x, lane, simd_id, num_simds); \
      if (is_key)                                                                                          \
        rotate_head(fresh(keys + from), key_norm, frequencies, position, head, partial, p, tid, tg_size.x, lane, simd_id, num_simds); \
      if (position >= p.capacity) {                                                                        \
        if (tid == 0) FAULT(FAULT_POSITION, position, p.capacity, 0);                                      \
      } else if (replaced == 0.0f) {                                                                       \
        for (uint i = tid; i < p.head_dim; i += tg_size.x) {                                               \
          if (is_key) st(key_cache + to + i, head[i]);                                                     \
          else st(value_cache + to + i, *fresh(values + from + i));                                    \
        }                                                                                                  \
      }                                                                                                    \
    }                                                                                                      \
  }
ROTATE_AND_CACHE(rotate_and_cache_f32, float)
ROTATE_AND_CACHE(rotate_and_cache_f16, f16)
