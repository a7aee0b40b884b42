// cache[h, positions[t], :] = values[t, h, :], rounded to the element of the cache. Of tokens with the
// same position the last one stays. A position past the cache is a fault.
//
//   values: f32 [tokens, kv_heads, head_dim]    cache: f16 or f32 [kv_heads, capacity, head_dim]
//   positions: u32 [tokens]
// One threadgroup for each token (x) and head (y).
struct KvCacheWriteBlock { uint tokens, kv_heads, head_dim, capacity; };

template <typename T>
FN void write_head(const DEVICE float* from, DEVICE T* to, uint head_dim, uint tid, uint threads) {
  for (uint i = tid; i < head_dim; i += threads) st(to + i, from[i]);
}

#define KV_CACHE_WRITE(name, T)                                                                      \
  KERNEL(name, IN(float, values), INOUT(T, cache), IN(uint, positions), PARAMS(KvCacheWriteBlock, p)) { \
    SHARED(float, partial, 32);                                                                      \
    const uint token = tg_id.x, head = tg_id.y, position = positions[token];                         \
    const float replaced = is_replaced(positions, token, p.tokens, partial, tid, tg_size.x, lane, simd_id, num_simds); \
    if (position >= p.capacity) {                                                                    \
      if (tid == 0) FAULT(FAULT_POSITION, position, p.capacity, 0);                                  \
    } else if (replaced == 0.0f) {                                                                   \
      const DEVICE float* from = values + (u64(token) * p.kv_heads + head) * p.head_dim;             \
      write_head(from, cache + (u64(head) * p.capacity + position) * p.head_dim, p.head_dim, tid, tg_size.x); \
    }                                                                                                \
  }
KV_CACHE_WRITE(kv_cache_write_f32, float)
KV_CACHE_WRITE(kv_cache_write_f16, f16)
