// Blocks of the rows at positions: cache[h, positions[t]] = quantised(rows[h, positions[t]]), and the rows become what the
// blocks hold. A position past the cache is a fault.
//
//   rows: f16 [kv_heads, capacity, head_dim]    cache: blocks of the encoding ELEMENT    positions: u32 [tokens], all different
// One threadgroup for each token (x) and head (y); a thread takes a block of 32.
struct KvCacheQuantizeBlock { uint kv_heads, head_dim, capacity; };

// Largest magnitude of a block with its sign, and NaN in `taint` unless all are finite.
FN float extreme(const DEVICE f16* x, THREAD float* taint) {
  float most = 0.0f;
  for (uint i = 0; i < 32; i++) {
    const float v = ld(x + i);
    *taint += v * 0.0f;
    if (fabs(v) > fabs(most)) most = v;
  }
  return most;
}

// d as it is stored
FN float store_scale(DEVICE uchar* block, float d) {
  DEVICE f16* at = (DEVICE f16*)block;
  st(at, d);
  return ld(at);
}

struct cache_q8_0 {
  enum { BYTES = 34 };
  FN void quantize(DEVICE f16* x, DEVICE uchar* block) {
    float taint = 0.0f;
    const float d = fabs(extreme(x, &taint)) / 127.0f;
    const float stored = store_scale(block, d + taint);
    const float inverse = taint == 0.0f && d > 0.0f ? 1.0f / d : 0.0f;
    for (uint i = 0; i < 32; i++) {
      const int q = taint == 0.0f ? int(rint(ld(x + i) * inverse)) : 0;
      block[2 + i] = uchar(q & 255);
      st(x + i, stored * float(q));
    }
  }
};

struct cache_q4_0 {
  enum { BYTES = 18 };
  FN int code(float x, float inverse) { return min(15, int(x * inverse + 8.5f)); }
  FN void quantize(DEVICE f16* x, DEVICE uchar* block) {
    float taint = 0.0f;
    const float d = extreme(x, &taint) / -8.0f;
    const float stored = store_scale(block, d + taint);
    const float inverse = taint == 0.0f && d != 0.0f ? 1.0f / d : 0.0f;
    for (uint i = 0; i < 16; i++) {
      const int low = taint == 0.0f ? code(ld(x + i), inverse) : 8;
      const int high = taint == 0.0f ? code(ld(x + 16 + i), inverse) : 8;
      block[2 + i] = uchar(low | high << 4);
      st(x + i, stored * float(low - 8));
      st(x + 16 + i, stored * float(high - 8));
    }
  }
};

KERNEL(GPU_CAT(kv_cache_quantize_, ELEMENT), INOUT(f16, rows), INOUT(uchar, cache), IN(uint, positions),
       PARAMS(KvCacheQuantizeBlock, p)) {
  typedef GPU_CAT(cache_, ELEMENT) Layout;
  const uint position = positions[tg_id.x];
  if (position < p.capacity) {
    const u64 row = u64(tg_id.y) * p.capacity + position;
    const uint blocks = p.head_dim / 32;
    for (uint b = tid; b < blocks; b += tg_size.x)
      Layout::quantize(rows + row * p.head_dim + 32 * b, cache + (row * blocks + b) * Layout::BYTES);
  } else if (tid == 0) {
    FAULT(FAULT_POSITION, position, p.capacity, 0);
  }
}
