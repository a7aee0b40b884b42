// Attention for many tokens, by the matrix units of Apple's GPUs: what attention.gpu.cpp computes, from the
// same operands.
//
// A threadgroup takes one query head (y) and 8 tokens for each of its simdgroups (x); the simdgroups do not
// wait for each other. A simdgroup goes through the keys that any of its tokens sees, 32 at a time: scores
// (8 x 32) by matrices, an online softmax in f32 with four lanes for each token, then the weighted values by
// matrices. Sums that were made relative to a smaller maximum are rescaled by a diagonal matrix. How the lanes
// of a simdgroup hold a matrix is nowhere relied on. Heads are multiples of 8, at most 8 * C.
struct AttentionBlock {
  uint heads, kv_heads, head_dim, capacity, window;  // window: 2^32 - 1 for none
  float scale, softcap;                              // softcap: 0 for none
  uint tokens;
};

typedef GPU_CAT(dense_, ELEMENT) Stored;
typedef simdgroup_matrix<Stored, 8, 8> StoredMatrix;

enum { KEYS = 32, SCORE_LINE = KEYS + 4 };

// Threadgroup memory of one simdgroup.
struct Work {
  THREADGROUP float* queries;   // 8 x head_dim, scaled
  THREADGROUP float* scores;    // 8 x SCORE_LINE: scores, then their weights
  THREADGROUP float* square;    // 8 x 8: a diagonal, or a part of the result
  THREADGROUP Stored* edge;     // 8 x 8: keys or values of which some are past the end
};

// Rows first .. first + 7 of keys or values, columns 8 c .. ; rows from `end` on are 0, and are not read.
FN void load_rows(THREAD StoredMatrix& m, const DEVICE Stored* from, uint first, uint end, uint c, AttentionBlock p,
                  Work work, uint lane, bool transposed) {
  const ulong2 origin = {0, 0};
  const DEVICE Stored* start = from + u64(first) * p.head_dim + 8 * c;
  if (first + 8 <= end) {
    simdgroup_load(m, start, p.head_dim, origin, transposed);
    return;
  }
  SIMD_BARRIER();
  for (uint i = lane; i < 64; i += 32)
    st(work.edge + i, first + i / 8 < end ? ld(start + u64(i / 8) * p.head_dim + i % 8) : 0.0f);
  SIMD_BARRIER();
  simdgroup_load(m, work.edge, 8, origin, transposed);
}

// The diagonal matrix of the factors of the 8 tokens; lane l has that of token l / 4.
FN void load_diagonal(THREAD simdgroup_float8x8& m, float factor, Work work, uint lane) {
  SIMD_BARRIER();
  const uint row = lane / 4;
  for (uint i = 0; i < 2; i++) {
    const uint column = lane % 4 * 2 + i;
    work.square[row * 8 + column] = row == column ? factor : 0.0f;
  }
  SIMD_BARRIER();
  simdgroup_load(m, work.square, 8);
}

// The tokens of a simdgroup as one of its lanes sees them: its own is token lane / 4.
struct Token { bool exists; uint first, last; };  // keys first .. last - 1

template <int C>
FN void attend(const DEVICE float* queries, const DEVICE Stored* keys, const DEVICE Stored* values,
               DEVICE float* output, AttentionBlock p, Work work, Token token, uint first_token, uint head, uint lane) {
  const uint chunks = p.head_dim / 8, row = lane / 4;
  const u64 stride = u64(p.heads) * p.head_dim;
  for (uint i = lane; i < 8 * p.head_dim; i += 32) {
    const uint t = first_token + i / p.head_dim;
    work.queries[i] = t < p.tokens ? queries[u64(t) * stride + u64(head) * p.head_dim + i % p.head_dim] * p.scale : 0.0f;
  }
  SIMD_BARRIER();
  simdgroup_float8x8 sums[C];
  UNROLL
  for (int c = 0; c < C; c++) sums[c] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  float top = GPU_LOWEST, total = 0.0f;
  // The keys of the simdgroup: of the tokens that exist, the smallest first and the largest last.
  const uint start = 0xffffffffu - simd_max(token.exists ? 0xffffffffu - token.first : 0u);
  const uint end = simd_max(token.exists ? token.last : 0u);
  for (uint key = start / 8 * 8; key < end; key += KEYS) {
    UNROLL
    for (uint k = 0; k < KEYS; k += 8) {
      simdgroup_float8x8 scores = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
      if (key + k < end) {  // the same for all lanes
        for (uint c = 0; c < chunks; c++) {
          simdgroup_float8x8 q;
          StoredMatrix m;
          simdgroup_load(q, work.queries + 8 * c, p.head_dim);
          load_rows(m, keys, key + k, end, c, p, work, lane, true);
          simdgroup_multiply_accumulate(scores, q, m, scores);
        }
      }
      simdgroup_store(scores, work.scores + k, SCORE_LINE);
    }
    SIMD_BARRIER();
    // Eight scores of the lane's token
    THREADGROUP float* mine = work.scores + row * SCORE_LINE + lane % 4 * 8;
    const uint first = key + lane % 4 * 8;
    float score[8], highest = top;
    UNROLL
    for (uint i = 0; i < 8; i++) {
      float s = mine[i];
      if (p.softcap > 0.0f) s = p.softcap * tanh(s / p.softcap);
      score[i] = s;
      const bool seen = token.exists && first + i >= token.first && first + i < token.last;
      if (seen) highest = max(highest, s);
    }
    highest = max(highest, simd_shuffle_xor(highest, 1));
    highest = max(highest, simd_shuffle_xor(highest, 2));
    float sum = 0.0f;
    UNROLL
    for (uint i = 0; i < 8; i++) {
      const bool seen = token.exists && first + i >= token.first && first + i < token.last;
      const float weight = seen ? exp(score[i] - highest) : 0.0f;
      mine[i] = weight;
      sum += weight;
    }
    sum += simd_shuffle_xor(sum, 1);
    sum += simd_shuffle_xor(sum, 2);
    const float keep = exp(top - highest);
    total = total * keep + sum;
    if (simd_max(top != highest ? 1u : 0u) != 0u) {  // the same for all lanes
      simdgroup_float8x8 diagonal;
      load_diagonal(diagonal, keep, work, lane);
      UNROLL
      for (int c = 0; c < C; c++) {
        if (uint(c) < chunks) simdgroup_multiply(sums[c], diagonal, sums[c]);
      }
    }
    top = highest;
    SIMD_BARRIER();
    UNROLL
    for (uint k = 0; k < KEYS; k += 8) {
      if (key + k < end) {
        simdgroup_float8x8 weights;
        simdgroup_load(weights, work.scores + k, SCORE_LINE);
        UNROLL
        for (int c = 0; c < C; c++) {
          if (uint(c) < chunks) {
            StoredMatrix m;
            load_rows(m, values, key + k, end, uint(c), p, work, lane, false);
            simdgroup_multiply_accumulate(sums[c], weights, m, sums[c]);
          }
        }
      }
    }
    SIMD_BARRIER();
  }
  simdgroup_float8x8 diagonal;
  load_diagonal(diagonal, total > 0.0f ? 1.0f / total : 0.0f, work, lane);
  DEVICE float* to = output + u64(first_token) * stride + u64(head) * p.head_dim;
  UNROLL
  for (int c = 0; c < C; c++) {
    if (uint(c) < chunks) {
      simdgroup_multiply(sums[c], diagonal, sums[c]);
      SIMD_BARRIER();
      simdgroup_store(sums[c], work.square, 8);
      SIMD_BARRIER();
      for (uint i = lane; i < 64; i += 32) {
        const uint t = i / 8;
        if (first_token + t < p.tokens) to[t * stride + 8 * uint(c) + i % 8] = work.square[i];
      }
    }
  }
}

FN Token token_of(const DEVICE uint* positions, AttentionBlock p, uint index) {
  Token t;
  t.exists = false;
  t.first = 0;
  t.last = 0;
  if (index >= p.tokens) return t;
  const uint position = positions[index];
  if (position >= p.capacity) return t;
  t.exists = true;
  t.first = position + 1 > p.window ? position + 1 - p.window : 0;
  t.last = position + 1;
  return t;
}

#define ATTENTION(suffix, SIMDS, C)                                                                    \
  KERNEL_BOUNDED(SIMDS * 32, GPU_CAT(GPU_CAT(attention_, ELEMENT), suffix), IN(float, queries), IN(Stored, keys), \
                 IN(Stored, values), IN(uint, positions), OUT(float, output), PARAMS(AttentionBlock, p)) { \
    SHARED(float, all_queries, SIMDS * 8 * 8 * C);                                                     \
    SHARED(float, all_scores, SIMDS * 8 * SCORE_LINE);                                                 \
    SHARED(float, all_squares, SIMDS * 64);                                                            \
    SHARED(Stored, all_edges, SIMDS * 64);                                                             \
    Work work;                                                                                         \
    work.queries = all_queries + simd_id * 8 * 8 * C;                                                  \
    work.scores = all_scores + simd_id * 8 * SCORE_LINE;                                               \
    work.square = all_squares + simd_id * 64;                                                          \
    work.edge = all_edges + simd_id * 64;                                                              \
    const uint first_token = (tg_id.x * SIMDS + simd_id) * 8, head = tg_id.y;                          \
    const u64 cache = u64(head / (p.heads / p.kv_heads)) * p.capacity * p.head_dim;                    \
    const uint index = first_token + lane / 4;                                                         \
    const Token token = token_of(positions, p, index);                                                 \
    if (index < p.tokens && !token.exists && lane % 4 == 0) FAULT(FAULT_POSITION, positions[index], p.capacity, 0); \
    attend<C>(queries, keys + cache, values + cache, output, p, work, token, first_token, head, lane); \
  }
ATTENTION(_simdgroup_d64, 4, 8)
ATTENTION(_simdgroup_d128, 4, 16)
ATTENTION(_simdgroup_d256, 2, 32)
