// Projects one row of activations to queries, keys and values, rotates queries and keys, and writes keys and values
// into the cache.
//
//   x: f32 [columns]    norm: f32 [columns]    w_i: [rows_i, columns], two in the encoding ELEMENT, the third in it or NAME
//   bias_i: f32 [rows_i]    positions: u32 [1]    frequencies: f32 [head_dim / 2]
//   queries: f32 [query_rows]    caches: f16 [kv_heads, capacity, head_dim]
// Pairs of rows that are rotated into each other are multiplied together. Without a norm or bias their bindings are never
// read. `groups` is the number of threadgroups.
struct ProjectAndCacheBlock {
  Norm norm;
  uint query_rows, key_rows, has_bias, groups, head_dim, capacity, interleaved;
  float magnitude;
};

enum { ROTATE_ROWS = 16, CACHE_ROWS };

// Where rows go that have no output of their own, and by which angle they are rotated before.
struct Placed {
  const DEVICE float* frequencies;
  DEVICE f16* cache;
  uint position, capacity, head_dim;
  float magnitude, sine, cosine;
};

template <int MODE> FN Placed before_pair(Matrix, uint pair, Placed p) {
  if (MODE == ROTATE_ROWS) {
    const Angle t = angle(p.position, *(p.frequencies + pair % (p.head_dim / 2)));
    p.sine = t.sine * p.magnitude;
    p.cosine = t.cosine * p.magnitude;
  }
  return p;
}

template <int MODE> FN void store_pair(Matrix m, uint pair, Two sums, Placed p, uint lane) {
  const uint first = first_row(m, pair), second = second_row(m, pair), row = lane == 0 ? first : second;
  if (lane >= 2 || (lane == 1 && first == second)) return;
  float a = sums.a, b = sums.b;
  if (m.bias) {
    a += m.bias[first];
    b += m.bias[second];
  }
  float v = lane == 0 ? a : b;
  if (MODE == ROTATE_ROWS) v = lane == 0 ? a * p.cosine - b * p.sine : a * p.sine + b * p.cosine;
  if (m.y) m.y[row] = v;
  else if (p.position < p.capacity)
    st(p.cache + (u64(row / p.head_dim) * p.capacity + p.position) * p.head_dim + row % p.head_dim, v);
}

// Bytes of keys and values that are brought nearer: on a large GPU a third of the second-level cache.
enum { EXPECTED_BYTES = 16 << 20 };

// Brings the first keys and values of each head nearer, for the attention that follows: a warp's share.
FN void expect_keys(const DEVICE f16* key_cache, const DEVICE f16* value_cache, ProjectAndCacheBlock p, uint position,
                    uint group, uint lane) {
  const uint kv_heads = p.key_rows / p.head_dim, regions = 2 * kv_heads, pieces = max(p.groups / regions, 1u);
  const uint region = group % regions, piece = group / regions;
  if (piece >= pieces || p.head_dim % 8 != 0) return;
  const uint keys = min(min(position, p.capacity), EXPECTED_BYTES / (2 * regions * p.head_dim));
  const uint each = (keys + 32 * pieces - 1) / (32 * pieces), first = (32 * piece + lane) * each;
  if (first >= keys) return;
  const DEVICE f16* cache = region < kv_heads ? key_cache : value_cache;
  const DEVICE f16* from = cache + (u64(region % kv_heads) * p.capacity + first) * p.head_dim;
  prefetch((const DEVICE uchar*)from, 2 * p.head_dim * min(each, keys - first));
}

#define PROJECT_AND_CACHE(name, G)                                                                         \
  LARGE_SHARED_SIZE(name, THREE_BYTES(G))                                                                  \
  KERNEL_EARLY(THREADS, 1, name, IN(float, x), IN(float, norm), WEIGHT(w0), WEIGHT(w1), WEIGHT(w2), \
               IN(float, bias0), IN(float, bias1), IN(float, bias2), IN(uint, positions), IN(float, frequencies), \
               OUT(float, queries), INOUT(f16, key_cache), INOUT(f16, value_cache), PARAMS(ProjectAndCacheBlock, p)) { \
    LARGE_SHARED(memory, THREE_BYTES(G));                                                                  \
    SHARED(float, partial, 32);                                                                            \
    const DEVICE float* none = nullptr;                                                                    \
    DEVICE float* cached = nullptr;                                                                        \
    const uint columns = p.norm.columns, apart = p.interleaved ? 1 : p.head_dim / 2;                       \
    const Activations a = activations_at(memory, WIDTH);                                                   \
    THREADGROUP uchar* ring = memory + ACTIVATION_BYTES(WIDTH) + simd_id * THREE_RING(G);                  \
    Three<Format, G> s;                                                                                    \
    s.first.matrices[0] = one_matrix<Format>(WEIGHT_AT(w0), p.query_rows, columns, queries, p.has_bias & 1 ? bias0 : none); \
    s.first.matrices[1] = one_matrix<Format>(WEIGHT_AT(w1), p.key_rows, columns, cached, p.has_bias & 2 ? bias1 : none); \
    s.first.matrices[0].apart = apart;                                                                     \
    s.first.matrices[1].apart = apart;                                                                     \
    s.last.matrices[0] = one_matrix<G>(WEIGHT_AT(w2), p.key_rows, columns, cached, p.has_bias & 4 ? bias2 : none);    \
    share_three<Format, G>(s, columns, tg_id.x, p.groups, simd_id);                                        \
    GRID_DEPENDENTS();                                                                                     \
    expect_norm(norm, p.norm, tg_id.x, tid);                                                               \
    begin_three<Format, G>(s, ring, lane);                                                                 \
    GRID_WAIT();                                                                                           \
    Placed keys;                                                                                           \
    keys.frequencies = frequencies;                                                                        \
    keys.cache = key_cache;                                                                                \
    keys.position = *fresh(positions);                                                                     \
    keys.capacity = p.capacity;                                                                            \
    keys.head_dim = p.head_dim;                                                                            \
    keys.magnitude = p.magnitude;                                                                          \
    keys.sine = 0.0f;                                                                                      \
    keys.cosine = 1.0f;                                                                                    \
    Placed values = keys;                                                                                  \
    values.cache = value_cache;                                                                            \
    stage_activations<Format, WIDTH>(fresh(x), norm, p.norm, a, partial, tid, lane, simd_id);              \
    BARRIER();                                                                                             \
    run_three<Format, G, ROTATE_ROWS, CACHE_ROWS>(s, a, ring, keys, values, lane);                         \
    if (simd_id == 0) expect_keys(key_cache, value_cache, p, keys.position, tg_id.x, lane);                \
    if (keys.position >= p.capacity && tg_id.x == 0 && tid == 0)                                           \
      FAULT(FAULT_POSITION, keys.position, p.capacity, 0);                                                 \
  }
PROJECT_AND_CACHE(GPU_CAT(project_and_cache_, ELEMENT), Format)
#if HAS_MIXES && !ELEMENT_IS(q6_k)
PROJECT_AND_CACHE(GPU_CAT(GPU_CAT(project_and_cache_, ELEMENT), _q6_k), format_q6_k)
#endif
#if HAS_MIXES && !ELEMENT_IS(q8_0)
PROJECT_AND_CACHE(GPU_CAT(GPU_CAT(project_and_cache_, ELEMENT), _q8_0), format_q8_0)
#endif
