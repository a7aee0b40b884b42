// Attention of many tokens on the tensor cores of sm_90a; attention.gpu.cpp says what is computed.
//
//   queries, output: f32 [tokens, heads, D]    positions: u32 [tokens]    keys, values: f16 [kv_heads, capacity, D]
//
// A threadgroup of G warpgroups takes 64 G tokens (y, the last first: they see most keys) of one head (x), each
// warpgroup 64. Keys and values come 64 at a time into one of two places in shared memory while the
// other is worked on. Matrices stand there in lines of 64 elements (tensor_cores.h): D / 64 panels, one after
// the other. The softmax is online, in f32 and base 2; weights are rounded to f16 for their product.
struct AttentionTilesBlock {
  uint tokens, heads, kv_heads, capacity, window;  // window: 2^32 - 1 for none
  float scale, softcap;                            // softcap: 0 for none
};

enum { KEYS = 64, LINE = 128 };

template <int D, int G> struct Shared {
  enum {
    TOKENS = 64 * G,
    THREADS = 128 * G,
    QUERY_BYTES = TOKENS * D * 2,
    KEY_BYTES = KEYS * D * 2,
    KEYS_AT = QUERY_BYTES,
    VALUES_AT = KEYS_AT + 2 * KEY_BYTES,
    BYTES = VALUES_AT + 2 * KEY_BYTES + 1024  // matrices are aligned to 1024 bytes by hand
  };
};

FN uint two_f16(float low, float high) {
  uint both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

FN float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Where chunk `chunk` (8 elements) of row `row` of a matrix of `rows` rows lies
FN uint chunk_at(uint row, uint chunk, uint rows) {
  return (chunk / 8 * rows + row) * LINE + 16 * ((chunk % 8) ^ (row & 7u));
}

template <int D, int G>
FN void load_queries(const float* queries, AttentionTilesBlock p, uint head, uint first, uint to) {
  for (uint i = threadIdx.x; i < 64 * G * (D / 8); i += 128 * G) {
    const uint row = i / (D / 8), chunk = i % (D / 8);
    const float* from = queries + (u64(min(first + row, p.tokens - 1)) * p.heads + head) * D + 8 * chunk;
    const float4 a = load4(from), b = load4(from + 4);
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to + chunk_at(row, chunk, 64 * G)), "r"(two_f16(a.x, a.y)),
                 "r"(two_f16(a.z, a.w)), "r"(two_f16(b.x, b.y)), "r"(two_f16(b.z, b.w))
                 : "memory");
  }
}

// What a token or a threadgroup sees: keys from `first` to `last`.
struct Span { uint first, last; };

// Begins to copy KEYS rows from `first` on; those outside `span` become 0.
template <int D, int G>
FN void load_rows(const f16* rows, uint first, Span span, uint to) {
  UNROLL
  for (uint i = threadIdx.x; i < KEYS * (D / 8); i += 128 * G) {
    const uint row = i / (D / 8), chunk = i % (D / 8);
    const bool inside = first + row >= span.first && first + row <= span.last;
    const f16* from = rows + u64(inside ? first + row : 0) * D + 8 * chunk;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + chunk_at(row, chunk, KEYS)), "l"(from),
                 "r"(inside ? 16 : 0)
                 : "memory");
  }
}

FN void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// All threads' copies so far have arrived, and all threads have passed what came before.
FN void copies_wait() {
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  shared_for_matrices();
  __syncthreads();
}

// What a thread has seen for its two tokens: maxima, its part of the sums of weights, sums of values.
template <int D> struct State { float top[2], total[2]; Sums<D> values; };

FN float quad_max(float v) {
  v = max(v, simd_shuffle_xor(v, 1));
  return max(v, simd_shuffle_xor(v, 2));
}

FN float quad_sum(float v) {
  v += simd_shuffle_xor(v, 1);
  return v + simd_shuffle_xor(v, 2);
}

// Scores become weights. What was summed before is to be multiplied by `keep`, which the total has been.
template <int D>
FN void weigh(Sums<KEYS>& scores, State<D>& state, float* keep, AttentionTilesBlock p, const Span* spans,
              uint first_key, bool masked, uint lane) {
  const float log2e = 1.44269504f, minus_infinity = __uint_as_float(0xff800000u);
  float factor = p.scale * log2e;
  if (p.softcap > 0.0f) {
    UNROLL
    for (int i = 0; i < KEYS / 2; i++) scores.at[i] = p.softcap * tanh(scores.at[i] * p.scale / p.softcap);
    factor = log2e;
  }
  if (masked) {
    UNROLL
    for (int i = 0; i < KEYS / 2; i++) {
      const uint key = first_key + i / 4 * 8 + lane % 4 * 2 + i % 2;
      const Span span = spans[i / 2 % 2];
      if (key < span.first || key > span.last) scores.at[i] = minus_infinity;
    }
  }
  UNROLL
  for (int half = 0; half < 2; half++) {
    // The maximum is of scores times `factor`, which is not negative.
    float top = GPU_LOWEST;
    UNROLL
    for (int i = 0; i < KEYS / 2; i += 4) top = max(top, max(scores.at[i + 2 * half], scores.at[i + 2 * half + 1]));
    top = max(state.top[half], quad_max(top) * factor);
    keep[half] = exp2_fast(state.top[half] - top);
    float total = 0.0f;
    UNROLL
    for (int i = 0; i < KEYS / 2; i += 4) {
      UNROLL
      for (int j = 0; j < 2; j++) {
        const float weight = exp2_fast(fma(scores.at[i + 2 * half + j], factor, -top));
        scores.at[i + 2 * half + j] = weight;
        total += weight;
      }
    }
    state.top[half] = top;
    state.total[half] = state.total[half] * keep[half] + total;
  }
}

// Lowest and highest of a value of each thread that counts
struct Range { uint low, high; };

template <int WARPS> FN Range range_of(uint value, uint* lows, uint* highs) {
  const uint low = __reduce_min_sync(GPU_FULL, value), high = __reduce_max_sync(GPU_FULL, value);
  if (threadIdx.x % 32 == 0) {
    lows[threadIdx.x / 32] = low;
    highs[threadIdx.x / 32] = high;
  }
  __syncthreads();
  Range r = {lows[0], highs[0]};
  for (uint i = 1; i < WARPS; i++) {
    r.low = min(r.low, lows[i]);
    r.high = max(r.high, highs[i]);
  }
  __syncthreads();
  return r;
}

// Weights as the left side of products
struct Weights { uint4 at[KEYS / 16]; };

FN Weights weights_of(const Sums<KEYS>& scores) {
  Weights w;
  UNROLL
  for (int k = 0; k < KEYS / 16; k++) {
    const float* s = scores.at + 8 * k;
    w.at[k] = make_uint4(two_f16(s[0], s[1]), two_f16(s[2], s[3]), two_f16(s[4], s[5]), two_f16(s[6], s[7]));
  }
  return w;
}

// Begins scores = queries keys^T.
template <int D, int G> FN void begin_scores(Sums<KEYS>& scores, uint queries, uint keys) {
  UNROLL
  for (uint k = 0; k < D / 16; k++) {
    const uint panel = k / 4, column = k % 4 * 32;
    multiply_f16(scores, matrix_at(queries + panel * (64 * G * LINE) + column),
                 matrix_at(keys + panel * (KEYS * LINE) + column), k > 0);
  }
  multiplications_commit();
}

// Begins sums += weights values.
template <int D> FN void begin_values(Sums<D>& sums, const Weights& weights, uint values) {
  UNROLL
  for (int k = 0; k < KEYS / 16; k++)
    add_product(sums, weights.at[k], matrix_at(values + k * (16 * LINE), KEYS * LINE));
  multiplications_commit();
}

template <int D> FN void scale_values(Sums<D>& sums, const float* keep) {
  UNROLL
  for (int i = 0; i < D / 2; i++) sums.at[i] *= keep[i / 2 % 2];
}

template <int D, int G>
FN void attend(const float* queries, const f16* keys, const f16* values, const uint* positions, float* output,
               AttentionTilesBlock p) {
  typedef Shared<D, G> S;
  extern __shared__ uchar memory[];
  __shared__ uint lows[4 * G], highs[4 * G];
  const uint base = (shared_address(memory) + 1023) / 1024 * 1024;
  const uint head = blockIdx.x, first_token = (gridDim.y - 1 - blockIdx.y) * S::TOKENS;
  const uint lane = threadIdx.x % 32, group = threadIdx.x / 128, row = threadIdx.x / 32 * 16 + lane / 4;
  const u64 cache = u64(head / (p.heads / p.kv_heads)) * p.capacity * D;
  keys += cache;
  values += cache;
  load_queries<D, G>(queries, p, head, first_token, base);
  // Two threads for each token
  const uint own = positions[min(first_token + threadIdx.x / 2, p.tokens - 1)];
  if (own >= p.capacity && head == 0) FAULT(FAULT_POSITION, own, p.capacity, 0);
  const Range seen = range_of<4 * G>(own < p.capacity ? own : 0, lows, highs);
  Span spans[2];
  UNROLL
  for (int half = 0; half < 2; half++) {
    const uint position = positions[min(first_token + row + 8 * half, p.tokens - 1)];
    spans[half].last = position < p.capacity ? position : 0;
    spans[half].first = spans[half].last + 1 > p.window ? spans[half].last + 1 - p.window : 0;
  }
  const Span all = {seen.low + 1 > p.window ? seen.low + 1 - p.window : 0, seen.high};
  const uint common = seen.high + 1 > p.window ? seen.high + 1 - p.window : 0;  // every token sees keys from here on
  const uint first_tile = all.first / KEYS, last_tile = all.last / KEYS;
  State<D> state;
  UNROLL
  for (int half = 0; half < 2; half++) state.top[half] = GPU_LOWEST, state.total[half] = 0.0f;
  UNROLL
  for (int i = 0; i < D / 2; i++) state.values.at[i] = 0.0f;
  const uint query_base = base + group * 64 * LINE;
  const uint key_base = base + S::KEYS_AT, value_base = base + S::VALUES_AT;
  load_rows<D, G>(keys, first_tile * KEYS, all, key_base);
  copies_commit();
  // The scores of a tile are computed beside the products of the weights of the one before.
  Sums<KEYS> scores;
  float keep[2];
  Weights weights;
  copies_wait();
  if (first_tile < last_tile) load_rows<D, G>(keys, (first_tile + 1) * KEYS, all, key_base + S::KEY_BYTES);
  load_rows<D, G>(values, first_tile * KEYS, all, value_base);
  copies_commit();
  multiplications_begin();
  begin_scores<D, G>(scores, query_base, key_base);
  multiplications_wait<0>();
  weigh<D>(scores, state, keep, p, spans, first_tile * KEYS, true, lane);
  weights = weights_of(scores);
  for (uint tile = first_tile + 1; tile <= last_tile; tile++) {
    const uint place = (tile - first_tile) % 2, other = place ^ 1, first_key = tile * KEYS;
    copies_wait();
    if (tile < last_tile) load_rows<D, G>(keys, first_key + KEYS, all, key_base + other * S::KEY_BYTES);
    load_rows<D, G>(values, first_key, all, value_base + place * S::KEY_BYTES);
    copies_commit();
    multiplications_begin();
    begin_scores<D, G>(scores, query_base, key_base + place * S::KEY_BYTES);
    begin_values(state.values, weights, value_base + other * S::KEY_BYTES);
    multiplications_wait<1>();
    weigh<D>(scores, state, keep, p, spans, first_key, first_key < common || first_key + KEYS > seen.low + 1, lane);
    multiplications_wait<0>();
    scale_values(state.values, keep);
    weights = weights_of(scores);
  }
  copies_wait();
  multiplications_begin();
  begin_values(state.values, weights, value_base + (last_tile - first_tile) % 2 * S::KEY_BYTES);
  multiplications_wait<0>();
  UNROLL
  for (int half = 0; half < 2; half++) {
    const uint token = first_token + row + 8 * half;
    const float factor = 1.0f / quad_sum(state.total[half]);
    if (token < p.tokens) {
      float* to = output + (u64(token) * p.heads + head) * D + lane % 4 * 2;
      UNROLL
      for (int j = 0; j < D / 8; j++)
        *(float2*)(to + 8 * j) = make_float2(state.values.at[4 * j + 2 * half] * factor, state.values.at[4 * j + 2 * half + 1] * factor);
    }
  }
}

// One kernel of a text: HEAD_DIM and WARPGROUPS come with the text.
#define NAME GPU_CAT(attention_tiles_f16_d, HEAD_DIM)
DYNAMIC_SHARED(NAME, Shared<HEAD_DIM, WARPGROUPS>::BYTES)
extern "C" __global__ void __launch_bounds__(128 * WARPGROUPS, 1)
    NAME(const float* queries, const f16* keys, const f16* values, const uint* positions, float* output,
         const AttentionTilesBlock p) {
  attend<HEAD_DIM, WARPGROUPS>(queries, keys, values, positions, output, p);
}
