// rows[h, p, :] = what the blocks cache[h, p] hold, for positions p from max(positions[0] + 1 - window, 0) to positions[0] - 1.
//
//   cache: blocks of the encoding ELEMENT    rows: f16 [kv_heads, capacity, head_dim]    positions: u32 [tokens]
// One threadgroup for 64 positions (x) of a head (y); blocks are taken in runs of 16. `aligned`: whether rows are, to 16
// bytes.
struct KvCacheExpandBlock { uint kv_heads, head_dim, capacity, window, aligned; };

// Four weights of a run
FN float4 weights_of(Run r, uint word) {
  const float4 q = signed_bytes(r.q[word]);
  return make_float4(fma(r.d, q.x, -r.m), fma(r.d, q.y, -r.m), fma(r.d, q.z, -r.m), fma(r.d, q.w, -r.m));
}

FN uint two_f16(float low, float high) { return gpu_f16_bits(low) | gpu_f16_bits(high) << 16; }

FN void store_four(DEVICE f16* to, float4 v) {
  st(to, v.x);
  st(to + 1, v.y);
  st(to + 2, v.z);
  st(to + 3, v.w);
}

KERNEL(GPU_CAT(kv_cache_expand_, ELEMENT), IN(uchar, cache), INOUT(f16, rows), IN(uint, positions),
       PARAMS(KvCacheExpandBlock, p)) {
  typedef GPU_CAT(format_, ELEMENT) Format;
  const uint end = min(positions[0], p.capacity);
  const uint low = end + 1 > p.window ? end + 1 - p.window : 0;
  const uint first = max(64 * tg_id.x, low), last = min(64 * tg_id.x + 64, end);
  const uint runs = p.head_dim / 16;
  if (first < last) {
    for (uint i = tid; i < (last - first) * runs; i += tg_size.x) {
      const u64 row = u64(tg_id.y) * p.capacity + first + i / runs;
      const uint run = i % runs, index = run % 2;
      const DEVICE uchar* block = cache + (row * (p.head_dim / 32) + run / 2) * Format::BYTES;
      const Run r = Format::run(block, Format::piece_of(index), Format::part_of(index));
      DEVICE f16* to = rows + row * p.head_dim + 16 * run;
      UNROLL
      for (uint w = 0; w < 4; w += 2) {
        const float4 a = weights_of(r, w), b = weights_of(r, w + 1);
        if (p.aligned) {
          store_u128((DEVICE uchar*)(to + 4 * w), make_uint4(two_f16(a.x, a.y), two_f16(a.z, a.w),
                                                             two_f16(b.x, b.y), two_f16(b.z, b.w)));
        } else {
          store_four(to + 4 * w, a);
          store_four(to + 4 * w + 4, b);
        }
      }
    }
  }
}
