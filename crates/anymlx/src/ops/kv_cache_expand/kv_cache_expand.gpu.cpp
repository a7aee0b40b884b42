// rows[h, p, :] = what the blocks cache[h, p] hold, for positions p from max(positions[0] + 1 - window, 0) to positions[0] - 1.
//
//   cache: blocks of the encoding ELEMENT    rows: f16 [kv_heads, capacity, head_dim]    positions: u32 [tokens]
// One threadgroup for 64 positions (x) of a head (y); blocks are taken in runs of 16.
struct KvCacheExpandBlock { uint kv_heads, head_dim, capacity, window; };

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
      for (uint w = 0; w < 4; w++) {
        const float4 q = signed_bytes(r.q[w]);
        st(to + 4 * w, fma(r.d, q.x, -r.m));
        st(to + 4 * w + 1, fma(r.d, q.y, -r.m));
        st(to + 4 * w + 2, fma(r.d, q.z, -r.m));
        st(to + 4 * w + 3, fma(r.d, q.w, -r.m));
      }
    }
  }
}
