// sums[i] = sum of the 64-bit words of item i, each item of `words` words: one threadgroup for each.
struct BandwidthBlock { uint words; };
enum { BANDWIDTH_THREADS = 256 };

KERNEL_BOUNDED(BANDWIDTH_THREADS, bandwidth_i64_read, IN(uchar, from), OUT(u64, sums), PARAMS(BandwidthBlock, p)) {
  SHARED(u64, partial, BANDWIDTH_THREADS);
  const DEVICE uchar* item = from + u64(tg_id.x) * p.words * 8;
  u64 total = 0;
  for (uint i = tid; i < p.words / 2; i += 4 * tg_size.x) {
    uint4 w[4];
    UNROLL
    for (uint j = 0; j < 4; j++) {
      const uint at = i + j * tg_size.x;
      w[j] = at < p.words / 2 ? load_u128(item + 16 * u64(at)) : make_uint4(0, 0, 0, 0);
    }
    UNROLL
    for (uint j = 0; j < 4; j++) total += (u64(w[j].x) | u64(w[j].y) << 32) + (u64(w[j].z) | u64(w[j].w) << 32);
  }
  partial[tid] = total;
  BARRIER();
  if (tid == 0) {
    for (uint i = 1; i < tg_size.x; i++) total += partial[i];
    sums[tg_id.x] = total;
  }
}
