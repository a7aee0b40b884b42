// output[t, h] = sum_k softmax_k(scale * queries[t, h] . keys[h', k]) values[h', k] over the keys
// max(0, position - window + 1) ..= position, with h' = h / (heads / kv_heads); scores may be capped to
// cap * tanh(score / cap).
//
//   queries, output: f32 [tokens, heads, head_dim]    positions: u32 [tokens]
//   keys, values: ELEMENT [kv_heads, capacity, head_dim]
//
// attention_ELEMENT_dD_gG, for head_dim up to D: a threadgroup takes one token (z), up to G query heads
// that share a key head (y: key head, then slice of its heads), and a part of the keys (x). Each key is
// read once for all G heads, by D / 8 lanes, so a simdgroup reads several keys side by side. Every such
// set of lanes has an online softmax of its own in f32; they are joined by shuffles, then through
// threadgroup memory. With one part the result is the output; with more, each leaves its maximum,
// total and sums for attention_join.
struct AttentionBlock {
  uint heads, kv_heads, head_dim, capacity, window;  // window: 2^32 - 1 for none
  float scale, softcap;                              // softcap: 0 for none
  uint slices, parts, vectors;                       // vectors: 1 where four elements may be read at once
};

typedef GPU_CAT(dense_, ELEMENT) Stored;

enum { MAX_SIMDS = 8 };

// Four elements as they are stored
template <typename T> struct Four { float4 v; };
template <> struct Four<f16> { uint a, b; };
FN float4 values_of(Four<float> f) { return f.v; }
FN float4 values_of(Four<f16> f) {
  return make_float4(gpu_f16_to_f32(ushort(f.a & 0xffffu)), gpu_f16_to_f32(ushort(f.a >> 16)),
                     gpu_f16_to_f32(ushort(f.b & 0xffffu)), gpu_f16_to_f32(ushort(f.b >> 16)));
}
FN void take_four(const DEVICE float* p, THREAD Four<float>& f) { f.v = load4(p); }
FN void take_four(const DEVICE f16* p, THREAD Four<f16>& f) {
  const uint2 words = load_u64((const DEVICE uchar*)p);
  f.a = words.x;
  f.b = words.y;
}
FN void put_four(float4 v, THREAD Four<float>& f) { f.v = v; }
FN void put_four(float4 v, THREAD Four<f16>& f) {
  f.a = gpu_f16_bits(v.x) | gpu_f16_bits(v.y) << 16;
  f.b = gpu_f16_bits(v.z) | gpu_f16_bits(v.w) << 16;
}

// Elements d .. d + 3 of a head, 0 past its end
template <typename T>
FN Four<T> four_of_head(const DEVICE T* head, uint d, AttentionBlock p) {
  Four<T> f;
  if (p.vectors && d < p.head_dim) {
    take_four(head + d, f);
    return f;
  }
  float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (d < p.head_dim) v.x = ld(head + d);
  if (d + 1 < p.head_dim) v.y = ld(head + d + 1);
  if (d + 2 < p.head_dim) v.z = ld(head + d + 2);
  if (d + 3 < p.head_dim) v.w = ld(head + d + 3);
  put_four(v, f);
  return f;
}

FN float4 four_of_query(const DEVICE float* head, uint d, AttentionBlock p) {
  if (p.vectors && d < p.head_dim) return load4(head + d);
  float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (d < p.head_dim) v.x = *(head + d);
  if (d + 1 < p.head_dim) v.y = *(head + d + 1);
  if (d + 2 < p.head_dim) v.z = *(head + d + 2);
  if (d + 3 < p.head_dim) v.w = *(head + d + 3);
  return v;
}

// What one set of lanes has seen: the maximum of the scores, and relative to it the sum of the weights
// and of the weighted values. Lane l of a set has elements 4 (C l + c) .. + 3.
template <int C> struct Seen { float top, total; float4 sums[C]; };

template <int C> FN Seen<C> nothing_seen() {
  Seen<C> s;
  s.top = GPU_LOWEST;
  s.total = 0.0f;
  for (int c = 0; c < C; c++) s.sums[c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  return s;
}

// Joins the sets of a simdgroup: afterwards every lane has the sums of its elements over all of them.
template <int C> FN Seen<C> join_sets(Seen<C> s, ushort lanes) {
  for (ushort m = lanes; m < 32; m <<= 1) {
    const float other_top = simd_shuffle_xor(s.top, m), top = max(s.top, other_top);
    const float mine = exp(s.top - top), other = exp(other_top - top);
    s.total = s.total * mine + simd_shuffle_xor(s.total, m) * other;
    for (int c = 0; c < C; c++) {
      const float4 v = make_float4(simd_shuffle_xor(s.sums[c].x, m), simd_shuffle_xor(s.sums[c].y, m),
                                   simd_shuffle_xor(s.sums[c].z, m), simd_shuffle_xor(s.sums[c].w, m));
      s.sums[c] = s.sums[c] * mine + v * other;
    }
    s.top = top;
  }
  return s;
}

// Takes the keys first, first + step, .. below `last` (each lane's set its own) for G queries.
template <int LANES, int C, int G>
FN void see_keys(THREAD Seen<C>* seen, const DEVICE float* queries, const DEVICE Stored* keys,
                 const DEVICE Stored* values, AttentionBlock p, uint first_head, uint last_head, uint first, uint last,
                 uint step, uint lane) {
  const uint l = lane % LANES, set = lane / LANES;
  float4 q[G][C];
  UNROLL
  for (int g = 0; g < G; g++) {
    UNROLL
    for (int c = 0; c < C; c++) {
      const DEVICE float* head = fresh(queries) + u64(min(first_head + g, last_head)) * p.head_dim;
      q[g][c] = four_of_query(head, 4 * (C * l + c), p) * p.scale;
    }
  }
  enum { KEYS = G == 1 ? 4 : 2 };  // taken together, so that their loads are under way at once
  for (uint key = first; key < last; key += KEYS * step) {
    Four<Stored> k[KEYS][C], v[KEYS][C];
    UNROLL
    for (uint u = 0; u < KEYS; u++) {
      // Sets that have no key left take the last one with a weight of 0.
      const u64 at = u64(min(key + u * step + set, last - 1)) * p.head_dim;
      UNROLL
      for (int c = 0; c < C; c++) {
        k[u][c] = four_of_head(keys + at, 4 * (C * l + c), p);
        v[u][c] = four_of_head(values + at, 4 * (C * l + c), p);
      }
    }
    float scores[KEYS][G];
    UNROLL
    for (uint u = 0; u < KEYS; u++) {
      UNROLL
      for (int g = 0; g < G; g++) scores[u][g] = 0.0f;
      UNROLL
      for (int c = 0; c < C; c++) {
        const float4 values_of_key = values_of(k[u][c]);
        UNROLL
        for (int g = 0; g < G; g++) scores[u][g] += dot(q[g][c], values_of_key);
      }
      UNROLL
      for (int g = 0; g < G; g++) {
        float score = scores[u][g];
        for (ushort m = LANES / 2; m > 0; m >>= 1) score += simd_shuffle_xor(score, m);
        if (p.softcap > 0.0f) score = p.softcap * tanh(score / p.softcap);
        scores[u][g] = key + u * step + set < last ? score : GPU_LOWEST;
      }
    }
    UNROLL
    for (int g = 0; g < G; g++) {
      float top = seen[g].top;
      UNROLL
      for (uint u = 0; u < KEYS; u++) top = max(top, scores[u][g]);
      if (top > seen[g].top) {  // rarely, after the first keys
        const float keep = exp(seen[g].top - top);
        seen[g].top = top;
        seen[g].total *= keep;
        UNROLL
        for (int c = 0; c < C; c++) seen[g].sums[c] = seen[g].sums[c] * keep;
      }
      UNROLL
      for (uint u = 0; u < KEYS; u++) {
        const float weight = key + u * step + set < last ? exp(scores[u][g] - top) : 0.0f;
        scores[u][g] = weight;
        seen[g].total += weight;
      }
    }
    UNROLL
    for (uint u = 0; u < KEYS; u++) {
      UNROLL
      for (int c = 0; c < C; c++) {
        const float4 values_of_key = values_of(v[u][c]);
        UNROLL
        for (int g = 0; g < G; g++) seen[g].sums[c] = seen[g].sums[c] + values_of_key * scores[u][g];
      }
    }
  }
}

struct Span { uint first, last; };

// Keys from which a part of its own pays. With fewer keys the last parts stay empty.
enum { KEYS_OF_PART = 32 };

// Parts of the keys that `position` sees
FN uint parts_of(uint position, uint window, uint parts) {
  const uint count = min(position + 1, window);
  return min(parts, (count + KEYS_OF_PART - 1) / KEYS_OF_PART);
}

// The keys of part `part` of `parts` of those that `position` sees
FN Span span_of(uint position, uint part, uint parts, AttentionBlock p) {
  const uint start = position + 1 > p.window ? position + 1 - p.window : 0, count = position + 1 - start;
  const uint length = (count + parts - 1) / parts;
  Span s;
  s.first = start + min(part * length, count);
  s.last = start + min((part + 1) * length, count);
  return s;
}

// Threadgroup memory: of each simdgroup and head the maximum, the total and the sums; of both the weight.
struct Joined { THREADGROUP float* tops; THREADGROUP float* totals; THREADGROUP float* sums; THREADGROUP float* weights; };

// Joins the simdgroups, for all heads at once. The results go to `output`, one head after the other, divided by their
// totals; with several parts, to `partials`, with the maximum and total in front and the sums as they are.
template <int LANES, int C, int G>
FN void join_simdgroups(THREAD Seen<C>* seen, Joined shared, DEVICE float* output, DEVICE float* partials, uint heads,
                        uint parts, uint head_dim, uint tid, uint threads, uint lane, uint simd_id, uint num_simds) {
  enum { LENGTH = 4 * C * LANES };
  UNROLL
  for (int g = 0; g < G; g++) {
    const Seen<C> joined = join_sets<C>(seen[g], LANES);
    const uint at = g * num_simds + simd_id;
    if (lane == 0) {
      shared.tops[at] = joined.top;
      shared.totals[at] = joined.total;
    }
    if (lane < LANES) {
      UNROLL
      for (int c = 0; c < C; c++) store4(shared.sums + at * LENGTH + 4 * (C * lane + c), joined.sums[c]);
    }
  }
  BARRIER();
  if (tid < heads * num_simds) {
    const uint g = tid / num_simds;
    float top = GPU_LOWEST, total = 0.0f;
    for (uint s = 0; s < num_simds; s++) top = max(top, shared.tops[g * num_simds + s]);
    for (uint s = 0; s < num_simds; s++)
      total += shared.totals[g * num_simds + s] * exp(shared.tops[g * num_simds + s] - top);
    const float weight = exp(shared.tops[tid] - top);
    shared.weights[tid] = parts > 1 ? weight : weight / total;
    if (parts > 1 && tid % num_simds == 0) {
      DEVICE float* partial = partials + u64(g) * parts * (head_dim + 2);
      partial[0] = top;
      partial[1] = total;
    }
  }
  BARRIER();
  for (uint i = tid; i < heads * LENGTH; i += threads) {
    const uint g = i / LENGTH, d = i % LENGTH;
    if (d >= head_dim) continue;
    float sum = 0.0f;
    for (uint s = 0; s < num_simds; s++)
      sum = fma(shared.sums[(g * num_simds + s) * LENGTH + d], shared.weights[g * num_simds + s], sum);
    if (parts > 1) partials[u64(g) * parts * (head_dim + 2) + 2 + d] = sum;
    else output[g * head_dim + d] = sum;
  }
}

template <int LANES, int C, int G>
FN void attend(const DEVICE float* queries, const DEVICE Stored* keys, const DEVICE Stored* values, DEVICE float* output,
               AttentionBlock p, Joined shared, Span span, uint3 tg_id, uint tid, uint threads, uint lane, uint simd_id,
               uint num_simds) {
  const uint token = tg_id.z, kv_head = tg_id.y / p.slices, group = p.heads / p.kv_heads;
  const uint in_group = tg_id.y % p.slices * G;
  const uint first_head = kv_head * group + in_group, last_head = kv_head * group + group - 1;
  const u64 cache = u64(kv_head) * p.capacity * p.head_dim;
  const uint side_by_side = 32 / LANES;
  Seen<C> seen[G];
  UNROLL
  for (int g = 0; g < G; g++) seen[g] = nothing_seen<C>();
  see_keys<LANES, C, G>(seen, queries + u64(token) * p.heads * p.head_dim, keys + cache, values + cache, p, first_head,
                        last_head, span.first + simd_id * side_by_side, span.last, num_simds * side_by_side, lane);
  const u64 head = u64(token) * p.heads + first_head;
  join_simdgroups<LANES, C, G>(seen, shared, output + head * p.head_dim,
                               output + (head * p.parts + tg_id.x) * (p.head_dim + 2), min(uint(G), group - in_group),
                               p.parts, p.head_dim, tid, threads, lane, simd_id, num_simds);
}

// As many threads as leave room for the sums in 32 KB
#define ATTENTION(suffix, threads, LANES, C, G)                                                        \
  KERNEL_EARLY(threads, 2, GPU_CAT(GPU_CAT(attention_, ELEMENT), suffix), IN(float, queries), IN(Stored, keys), \
                 IN(Stored, values), IN(uint, positions), OUT(float, output), PARAMS(AttentionBlock, p)) { \
    SHARED(float, tops, G * MAX_SIMDS);                                                                \
    SHARED(float, totals, G * MAX_SIMDS);                                                              \
    SHARED(float, weights, G * MAX_SIMDS);                                                             \
    SHARED(float, sums, G * threads / 32 * 4 * C * LANES);                                             \
    GRID_DEPENDENTS();                                                                                 \
    GRID_WAIT();                                                                                       \
    const uint position = *fresh(positions + tg_id.z);                                             \
    Joined shared;                                                                                     \
    shared.tops = tops;                                                                                \
    shared.totals = totals;                                                                            \
    shared.sums = sums;                                                                                \
    shared.weights = weights;                                                                          \
    const uint parts = parts_of(position, p.window, p.parts);                                          \
    if (position < p.capacity) {                                                                       \
      if (tg_id.x < parts)  /* for all threads */                                                      \
        attend<LANES, C, G>(queries, keys, values, output, p, shared, span_of(position, tg_id.x, parts, p), tg_id, tid, \
                            tg_size.x, lane, simd_id, num_simds);                                      \
    } else if (tid == 0) {                                                                             \
      FAULT(FAULT_POSITION, position, p.capacity, 0);                                                  \
    }                                                                                                  \
  }
ATTENTION(_d64_g1, 256, 8, 2, 1)
ATTENTION(_d64_g4, 256, 8, 2, 4)
ATTENTION(_d128_g1, 256, 16, 2, 1)
ATTENTION(_d128_g4, 256, 16, 2, 4)
ATTENTION(_d256_g1, 256, 32, 2, 1)
ATTENTION(_d256_g4, 128, 32, 2, 4)
ATTENTION(_d512_g1, 128, 32, 4, 1)

// Joins the parts of one head (x) of one token (y): each has maximum, total, then head_dim sums.
struct AttentionJoinBlock { uint heads, parts, head_dim, window; };
enum { MAX_PARTS = 64 };

KERNEL_EARLY(512, 2, GPU_CAT(attention_join_, ELEMENT), IN(float, partials), IN(uint, positions),
             OUT(float, output), PARAMS(AttentionJoinBlock, p)) {
  SHARED(float, weights, MAX_PARTS);
  GRID_DEPENDENTS();
  GRID_WAIT();
  const uint stride = p.head_dim + 2;
  const u64 head = u64(tg_id.y) * p.heads + tg_id.x;
  const DEVICE float* parts = fresh(partials) + head * p.parts * stride;
  const uint count = parts_of(*fresh(positions + tg_id.y), p.window, p.parts);
  // Every simdgroup for itself: lanes take the parts lane and lane + 32.
  const bool first = lane < count, second = lane + 32 < count;
  const float top_a = first ? parts[lane * stride] : GPU_LOWEST;
  const float top_b = second ? parts[(lane + 32) * stride] : GPU_LOWEST;
  const float total_a = first ? parts[lane * stride + 1] : 0.0f;
  const float total_b = second ? parts[(lane + 32) * stride + 1] : 0.0f;
  const float top = simd_max(max(top_a, top_b)), weight_a = exp(top_a - top), weight_b = exp(top_b - top);
  const float total = simd_sum(total_a * weight_a + total_b * weight_b);
  if (simd_id == 0) {
    weights[lane] = first ? weight_a / total : 0.0f;
    weights[lane + 32] = second ? weight_b / total : 0.0f;
  }
  BARRIER();
  for (uint d = tid; d < p.head_dim; d += tg_size.x) {
    float sum = 0.0f;
    for (uint i = 0; i < count; i += 8) {
      UNROLL
      for (uint j = 0; j < 8; j++) {
        if (i + j < count) sum = fma(parts[(i + j) * stride + 2 + d], weights[i + j], sum);
      }
    }
    output[head * p.head_dim + d] = sum;
  }
}
