// Draws one index of `count` logits; the same index as the kernel for CPUs draws, from the same bits.
//
//   logits: f32 [count]    step: u32 [1]    output: u32 [1]
// A single threadgroup of 1024 threads. A logit's weight is 2^40 e^((logit - max) / temperature), cut to
// a whole number; its f32 operations are those of the CPU's, in the same order and never contracted.
// Sums of weights are whole and so the same in any order. Filters find a bound by counting in bins,
// from the largest key down; the draw walks the kept weights in order of the index.
struct SampleBlock {
  float inverse_temperature;
  uint top_k;
  float top_p, min_p;
  uint seed[2];
  uint count, least[2];              // kept weights are at least this
  uint top_p_mantissa, top_p_shift;  // top_p = mantissa / 2^shift
};

enum { THREADS = 1024, SIMDS = 32, BINS = 2048 };

// ---- whole numbers of 64 bits ------------------------------------------------------------
FN u64 join(uint low, uint high) { return u64(high) << 32 | low; }
FN u64 least_of(u64 a, u64 b) { return a < b ? a : b; }

FN u64 simd_sum_u64(u64 v) {
  for (ushort m = 16; m > 0; m >>= 1) v += join(simd_shuffle_xor(uint(v), m), simd_shuffle_xor(uint(v >> 32), m));
  return v;
}

// The sum over the lanes up to this one
FN u64 simd_running_sum(u64 v, uint lane) {
  for (uint m = 1; m < 32; m <<= 1) {
    const ushort from = ushort(lane < m ? lane : lane - m);
    const u64 other = join(simd_shuffle(uint(v), from), simd_shuffle(uint(v >> 32), from));
    if (lane >= m) v += other;
  }
  return v;
}

// The upper half of a product
FN u64 high_product(u64 a, u64 b) {
  const u64 a0 = uint(a), a1 = a >> 32, b0 = uint(b), b1 = b >> 32;
  const u64 middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + uint(middle);
  return a1 * b1 + (middle >> 32) + (other >> 32);
}

// ceil(total * mantissa / 2^shift), for a mantissa below 2^24 and a shift of at least 24
FN u64 share_of(u64 total, uint mantissa, uint shift) {
  const u64 low_product = (total & 0xffffffffu) * mantissa, high_part = (total >> 32) * mantissa;
  const u64 low = low_product + (high_part << 32);
  const u64 high = (high_part >> 32) + (low < low_product ? 1 : 0);
  if (shift < 64) return (high << (64 - shift) | low >> shift) + ((low << (64 - shift)) != 0 ? 1 : 0);
  const uint rest = shift - 64;
  if (rest >= 64) return low != 0 || high != 0 ? 1 : 0;
  const u64 quotient = high >> rest;
  return quotient + (low != 0 || quotient << rest != high ? 1 : 0);
}

// Philox 4x32-10 (Salmon et al. 2011): the first two words of the block of counter (step, 0, 0, 0)
FN u64 random_number(uint step, uint key0, uint key1) {
  uint c0 = step, c1 = 0, c2 = 0, c3 = 0;
  for (int round = 0; round < 10; round++) {
    const u64 first = u64(0xd2511f53u) * c0, second = u64(0xcd9e8d57u) * c2;
    c0 = uint(second >> 32) ^ c1 ^ key0;
    c1 = uint(second);
    c2 = uint(first >> 32) ^ c3 ^ key1;
    c3 = uint(first);
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return join(c0, c1);
}

// ---- weights and keys --------------------------------------------------------------------
FN float fused_never(float a, float b, float c) { return add_rn(mul_rn(a, b), c); }

// 2^n for whole n in -126..=127
FN float power(float n) { return as_type<float>((as_type<uint>(add_rn(n, 12582912.0f)) + 127u) << 23); }

// e^x as math/mod.rs has it
FN float same_exp(float x) {
  const float rounding = 12582912.0f;
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float n = add_rn(fused_never(x, 1.44269504f, rounding), -rounding);
  float r = fused_never(n, -0.693359375f, x);
  r = fused_never(n, 2.1219444e-4f, r);
  float q = 1.3814599e-3f;
  q = fused_never(q, r, 8.368717e-3f);
  q = fused_never(q, r, 4.166839e-2f);
  q = fused_never(q, r, 1.6666521e-1f);
  q = fused_never(q, r, 4.9999994e-1f);
  const float e = add_rn(fused_never(q, mul_rn(r, r), r), 1.0f);
  const float first = add_rn(fused_never(n, 0.5f, rounding), -rounding);
  return mul_rn(mul_rn(e, power(first)), power(add_rn(n, -first)));
}

struct Scale { float top, inverse_temperature; };

FN u64 weight_of(float logit, Scale s) {
  const float e = same_exp(mul_rn(add_rn(logit, -s.top), s.inverse_temperature));
  return u64(mul_rn(e, 1099511627776.0f));
}

FN bool is_nan(float v) { return (as_type<uint>(v) & 0x7fffffffu) > 0x7f800000u; }

// A whole number that orders as the logit does; 0 for NaN. Both zeros are one.
FN uint key_of(float logit) {
  if (is_nan(logit)) return 0;
  const uint bits = as_type<uint>(logit == 0.0f ? 0.0f : logit);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
FN float logit_of(uint key) { return as_type<float>(key >> 31 ? key ^ 0x80000000u : ~key); }

// ---- searching ---------------------------------------------------------------------------
struct Memory {  // of the threadgroup
  THREADGROUP uint* low;     // [BINS]: lower halves of the bins' sums
  THREADGROUP uint* high;    // [BINS]
  THREADGROUP uint* simds;   // [3 * SIMDS]: a number of 64 bits and one of 32 for each simdgroup
  THREADGROUP uint* found;   // [4]
};
struct Thread { uint tid, lane, simd_id; };

// The first key from the top at which the sums reach `target`, and the sum of all larger keys; a key of 0
// when they never do.
struct Bound { uint key; u64 above; };

template <bool BY_WEIGHT>
FN Bound search(const DEVICE float* logits, uint count, uint floor_key, u64 target, Scale scale, Memory m, Thread t) {
  Bound bound;
  bound.key = 0;
  bound.above = 0;
  uint prefix = 0;
  // 11, 11 and 10 bits of the key
  for (uint pass = 0; pass < 3; pass++) {
    const uint shift = pass == 0 ? 21 : pass == 1 ? 10 : 0, bins = pass == 2 ? 1024 : 2048;
    for (uint i = t.tid; i < BINS; i += THREADS) m.low[i] = m.high[i] = 0;
    if (t.tid == 0) m.found[0] = BINS;
    BARRIER();
    for (uint i = t.tid; i < count; i += THREADS) {
      const uint key = key_of(logits[i]);
      if (key == 0 || key < floor_key) continue;
      if (pass > 0 && key / (bins << shift) != prefix) continue;
      const u64 v = BY_WEIGHT ? weight_of(logits[i], scale) : 1;
      const uint bin = (key >> shift) % bins, low = uint(v);
      // The order of the sums does not matter: carries are counted whenever they arise.
      const uint old = tg_atomic_add(m.low + bin, low);
      const uint high = uint(v >> 32) + (old + low < old ? 1 : 0);
      if (high != 0) tg_atomic_add(m.high + bin, high);
    }
    BARRIER();
    // Each thread has two bins, from the top down.
    const uint upper = BINS - 1 - 2 * t.tid, lower = upper - 1;
    const u64 first = join(m.low[upper], m.high[upper]), own = first + join(m.low[lower], m.high[lower]);
    const u64 running = simd_running_sum(own, t.lane);
    if (t.lane == 31) {
      m.simds[2 * t.simd_id] = uint(running);
      m.simds[2 * t.simd_id + 1] = uint(running >> 32);
    }
    BARRIER();
    u64 above = bound.above + running - own;
    for (uint s = 0; s < t.simd_id; s++) above += join(m.simds[2 * s], m.simds[2 * s + 1]);
    if (above < target && above + own >= target) {
      const bool in_first = above + first >= target;
      if (!in_first) above += first;
      m.found[0] = in_first ? upper : lower;
      m.found[1] = uint(above);
      m.found[2] = uint(above >> 32);
    }
    BARRIER();
    if (m.found[0] == BINS) return bound;  // all threads
    prefix = prefix * bins + m.found[0];
    bound.above = join(m.found[1], m.found[2]);
    BARRIER();
  }
  bound.key = prefix;
  return bound;
}

// ---- drawing -----------------------------------------------------------------------------
// Tokens that the filters leave: logits of at least `floor`, of those equal to it the first `ties`, and of
// those the ones with a weight of at least `least`.
struct Kept { float floor; u64 ties, least, floor_weight; };

// Weights above the floor, and how many equal it, of the logits of one simdgroup's segment
FN void sum_segment(const DEVICE float* logits, uint first, uint last, Kept kept, Scale scale, Memory m, Thread t) {
  u64 sum = 0;
  uint ties = 0;
  for (uint i = first + t.lane; i < last; i += 32) {
    const float logit = logits[i];
    if (logit == kept.floor) ties += kept.floor_weight >= kept.least ? 1 : 0;
    if (logit > kept.floor) {
      const u64 weight = weight_of(logit, scale);
      if (weight >= kept.least) sum += weight;
    }
  }
  sum = simd_sum_u64(sum);
  ties = simd_sum(ties);
  if (t.lane == 0) {
    m.simds[3 * t.simd_id] = uint(sum);
    m.simds[3 * t.simd_id + 1] = uint(sum >> 32);
    m.simds[3 * t.simd_id + 2] = ties;
  }
}

// Sum of the kept weights, given how many ties may still count
FN u64 segment_weight(Memory m, uint segment, Kept kept, THREAD u64* ties) {
  const u64 counted = least_of(m.simds[3 * segment + 2], *ties);
  *ties -= counted;
  return join(m.simds[3 * segment], m.simds[3 * segment + 1]) + counted * kept.floor_weight;
}

KERNEL_BOUNDED(1024, sample_f32, IN(float, logits), IN(uint, step), OUT(uint, output), PARAMS(SampleBlock, p)) {
  SHARED(uint, low, BINS);
  SHARED(uint, high, BINS);
  SHARED(uint, simds, 3 * SIMDS);
  SHARED(uint, found, 4);
  SHARED(float, maxima, SIMDS);
  Memory m;
  m.low = low;
  m.high = high;
  m.simds = simds;
  m.found = found;
  Thread t;
  t.tid = tid;
  t.lane = lane;
  t.simd_id = simd_id;

  const float lowest = as_type<float>(0xff800000u);  // minus infinity
  float top = lowest;
  for (uint i = tid; i < p.count; i += THREADS) {
    const float logit = logits[i];
    if (logit > top) top = logit;  // never NaN
  }
  top = simd_max(top);
  if (lane == 0) maxima[simd_id] = top;
  BARRIER();
  top = simd_max(maxima[lane]);
  if ((as_type<uint>(top) & 0x7f800000u) == 0x7f800000u) {  // all threads
    if (tid == 0) FAULT(FAULT_NO_LOGIT, as_type<uint>(top), 0, 0);
    return;
  }
  Scale scale;
  scale.top = top;
  scale.inverse_temperature = p.inverse_temperature;
  Kept kept;
  kept.floor = lowest;
  kept.ties = ~u64(0);
  kept.least = 1;
  kept.floor_weight = 0;
  if (p.top_k > 0 && p.top_k < p.count) {
    const Bound bound = search<false>(logits, p.count, 0, p.top_k, scale, m, t);
    if (bound.key != 0) kept.floor = logit_of(bound.key);
  }
  if (p.top_p < 1.0f) {
    u64 sum = 0;
    for (uint i = tid; i < p.count; i += THREADS)
      if (logits[i] >= kept.floor) sum += weight_of(logits[i], scale);
    sum = simd_sum_u64(sum);
    if (lane == 0) {
      simds[2 * simd_id] = uint(sum);
      simds[2 * simd_id + 1] = uint(sum >> 32);
    }
    BARRIER();
    const u64 total = simd_sum_u64(join(simds[2 * lane], simds[2 * lane + 1]));
    BARRIER();
    u64 target = share_of(total, p.top_p_mantissa, p.top_p_shift);
    target = least_of(target == 0 ? 1 : target, total);
    const Bound bound = search<true>(logits, p.count, key_of(kept.floor), target, scale, m, t);
    kept.floor = logit_of(bound.key);
    const u64 weight = weight_of(kept.floor, scale), each = weight == 0 ? 1 : weight;
    kept.ties = (target - bound.above + each - 1) / each;
  }
  kept.least = join(p.least[0], p.least[1]);
  kept.floor_weight = weight_of(kept.floor, scale);

  // Each simdgroup sums a segment; the one in which the draw falls is cut again, until few are left.
  uint first = 0, last = p.count;
  u64 left = 0;
  for (uint level = 0; level == 0 || last - first > 32; level++) {
    const uint length = (last - first + SIMDS - 1) / SIMDS;
    const uint begin = min(first + simd_id * length, last);
    sum_segment(logits, begin, min(begin + length, last), kept, scale, m, t);
    BARRIER();
    if (level == 0) {
      u64 ties = kept.ties, total = 0;
      for (uint s = 0; s < SIMDS; s++) total += segment_weight(m, s, kept, &ties);
      left = high_product(random_number(step[0], p.seed[0], p.seed[1]), total);
    }
    uint segment = 0;
    for (uint s = 0; s < SIMDS; s++) {
      u64 ties = kept.ties;
      const u64 weight = segment_weight(m, s, kept, &ties);
      segment = s;
      if (left < weight) break;
      left -= weight;
      kept.ties = ties;
    }
    first = min(first + segment * length, last);
    last = min(first + length, last);
    BARRIER();
  }
  if (tid == 0) {
    for (uint i = first; i < last; i++) {
      const float logit = logits[i];
      if (!(logit >= kept.floor)) continue;
      const u64 weight = weight_of(logit, scale);
      if (weight < kept.least) continue;
      if (logit == kept.floor) {
        if (kept.ties == 0) continue;
        kept.ties -= 1;
      }
      if (left < weight) {
        output[0] = i;
        break;
      }
      left -= weight;
    }
  }
}
