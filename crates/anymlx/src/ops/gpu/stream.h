// Products of quantised weight rows with one row of activations, for kernels that read each weight once.
//
// A simdgroup takes two rows at a time. Their bytes come through a ring of stages in threadgroup memory,
// filled by asynchronous copies that run ahead, also past the end of a row and before the activations
// are there. A stage is one or two pieces of each row for each lane.
//
// The activations are 16-bit integers, of each 32 values x = scale * q, kept as signed bytes
// q = 256 * high + low, so that the products with the quants of weights are exact.
#if defined(GPU_METAL)
enum { SIMDS = 4, WIDTH = 6144, WIDE = 6144 };  // all threadgroup memory is 32 KB
#else
enum { SIMDS = 16, WIDTH = 8192, WIDE = 16384 };
#endif
// NVIDIA's server GPUs have memory for more stages than others. With that many, a multiprocessor holds one
// threadgroup, so that those of a kernel that starts early are spread evenly.
#if defined(GPU_CUDA) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
#define STREAM_IS_DEEP 1
#else
#define STREAM_IS_DEEP 0
#endif
enum { THREADS = 32 * SIMDS };

// ---- activations -------------------------------------------------------------------------
// Bytes for a row of up to `columns` values
#define ACTIVATION_BYTES(columns) ((columns) * 2 + (columns) / 16 * 8)

struct Activations {
  THREADGROUP uchar* high;
  THREADGROUP uchar* low;
  THREADGROUP uchar* terms;  // f32 of each 16: the scale, and scale * (sum of q)
};

FN Activations activations_at(THREADGROUP uchar* memory, uint width) {
  Activations a;
  a.high = memory;
  a.low = memory + width;
  a.terms = memory + 2 * width;
  return a;
}

// Where run `run` is kept: the lanes of a simdgroup, which take neighbouring pieces, find theirs side by side.
template <typename F> FN uint place_of(uint run) {
  const uint runs = F::BLOCK / 16, index = run % runs;
  return run - index + F::part_of(index) * F::PIECES + F::piece_of(index);
}

struct Norm { uint columns, is_normed; float epsilon, weight_offset; };

// Brings the norm's weights nearer before the activations are there.
FN void expect_norm(const DEVICE float* w, Norm n, uint group, uint tid) {
  if (n.is_normed && group == 0 && tid == 0) prefetch((const DEVICE uchar*)w, 4 * n.columns);
}

FN int rounded(float v, float inverse) { return int(rint(v * inverse)); }
FN uint low_bytes(int a, int b, int c, int d) {
  return uint(a & 255) | uint(b & 255) << 8 | uint(c & 255) << 16 | uint(d & 255) << 24;
}
// (q - low) / 256 for low, the signed value of the lowest byte
FN int high_byte(int q) { return (q + 128) >> 8; }

// The activations of x, normed by w if the norm says so, by THREADS threads; columns are a multiple of 32 and at
// most `W`, x and w are aligned to 16. A group with a value that is not finite gets the scale NaN. Ends without a
// barrier.
template <typename F, int W>
FN void stage_activations(const DEVICE float* x, const DEVICE float* w, Norm n, Activations a, THREADGROUP float* partial,
                          uint tid, uint lane, uint simd_id) {
  enum { STEPS = W / (4 * THREADS) };
  float4 values[STEPS];
  float squares = 0.0f;
  UNROLL
  for (uint k = 0; k < STEPS; k++) {
    const uint i = 4 * (tid + k * THREADS);
    values[k] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (i < n.columns) values[k] = load4(x + i);
  }
  float factor = 1.0f;
  if (n.is_normed) {
    UNROLL
    for (uint k = 0; k < STEPS; k++) squares += dot(values[k], values[k]);
    factor = rsqrt(tg_sum(squares, partial, lane, simd_id, SIMDS) / float(n.columns) + n.epsilon);
  }
  UNROLL
  for (uint k = 0; k < STEPS; k++) {
    const uint i = 4 * (tid + k * THREADS);
    if (4 * k * THREADS >= n.columns) continue;  // for all threads
    float4 v = values[k];
    if (n.is_normed && i < n.columns) {
      const float4 offset = make_float4(n.weight_offset, n.weight_offset, n.weight_offset, n.weight_offset);
      v = v * factor * (load4(w + i) + offset);
    }
    float top = max(max(fabs(v.x), fabs(v.y)), max(fabs(v.z), fabs(v.w)));
    float taint = v.x * 0.0f + v.y * 0.0f + v.z * 0.0f + v.w * 0.0f;  // NaN unless all are finite
    for (ushort m = 1; m < 8; m <<= 1) {
      top = max(top, simd_shuffle_xor(top, m));
      taint += simd_shuffle_xor(taint, m);
    }
    const bool zero = !(top > 1e-34f);  // 32512 / top must be finite
    const float inverse = zero ? 0.0f : 32512.0f / top, scale = zero ? 0.0f : top * (1.0f / 32512.0f);
    if (!(taint == 0.0f)) v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const int p = rounded(v.x, inverse), q = rounded(v.y, inverse), r = rounded(v.z, inverse), s = rounded(v.w, inverse);
    int sum = p + q + r + s;
    sum += simd_shuffle_xor(sum, 1);
    sum += simd_shuffle_xor(sum, 2);
    if (i < n.columns) {
      const uint place = place_of<F>(i / 16), at = 16 * place + i % 16;
      store_u32(a.high + at, low_bytes(high_byte(p), high_byte(q), high_byte(r), high_byte(s)));
      store_u32(a.low + at, low_bytes(p, q, r, s));
      if (lane % 4 == 0) {
        store_u32(a.terms + 8 * place, as_type<uint>(scale + taint));
        store_u32(a.terms + 8 * place + 4, as_type<uint>(scale * float(sum)));
      }
    }
  }
}

// ---- weights -----------------------------------------------------------------------------
// WEIGHT(w) is the bindings of a matrix among those of a kernel, WEIGHT_AT(w) what they point to. A matrix of MLX is
// blocks of 32 codes here, whose factors are elsewhere.
#if defined(MLX_BITS)
#define WEIGHT(w) IN(uint, w), IN(MlxScale, w##_scales), IN(MlxScale, w##_biases)
#define WEIGHT_AT(w) weight_at(w, w##_scales, w##_biases)
struct WeightAt {
  const DEVICE uchar* blocks;
  const DEVICE MlxScale* scales;
  const DEVICE MlxScale* biases;
};
FN WeightAt weight_at(const DEVICE uint* packed, const DEVICE MlxScale* scales, const DEVICE MlxScale* biases) {
  WeightAt w;
  w.blocks = (const DEVICE uchar*)packed;
  w.scales = scales;
  w.biases = biases;
  return w;
}
typedef MlxFactors Factors;
FN Factors factors_of(WeightAt w, uint row, uint columns, uint block) {
  return mlx_factors(mlx_row((const DEVICE uint*)w.blocks, w.scales, w.biases, row, columns), block);
}
struct format_mlx {
  // No pieces of 32 bytes, so that threadgroup memory holds all stages.
  enum { BLOCK = 32, BYTES = 4 * MLX_BITS, PIECES = MLX_BITS == 8 ? 2 : 1, RUNS = 2 / PIECES };
  FN uint index_of(uint piece, uint part) { return piece + part; }
  FN uint piece_of(uint run) { return PIECES == 2 ? run : 0; }
  FN uint part_of(uint run) { return PIECES == 2 ? 0 : run; }
};
typedef format_mlx Format;
#else
#define WEIGHT(w) IN(uchar, w)
#define WEIGHT_AT(w) weight_at(w)
struct WeightAt { const DEVICE uchar* blocks; };
FN WeightAt weight_at(const DEVICE uchar* blocks) {
  WeightAt w;
  w.blocks = blocks;
  return w;
}
struct Factors {};
FN Factors factors_of(WeightAt, uint, uint, uint) { return Factors(); }
typedef GPU_CAT(format_, ELEMENT) Format;
#endif

// ---- rows --------------------------------------------------------------------------------
// Two rows for each pair: two of one matrix that are `apart` rows apart (neighbours are 1 apart), or row p of two
// matrices. Rows come in sets of 2 * apart, whose first half is paired with their second.
struct Matrix {
  WeightAt a, b;
  u64 byte_len;  // of the blocks of each
  uint rows, pairs, apart;
  DEVICE float* y;
  const DEVICE float* bias;
};
// The pairs from `first` on, `step` apart, below `end`, counted through all matrices.
struct Walk { uint first, step, end; };

template <typename F> FN uint row_bytes(uint columns) { return columns / F::BLOCK * F::BYTES; }

template <typename F>
FN Matrix one_matrix(WeightAt w, uint rows, uint columns, DEVICE float* y, const DEVICE float* bias) {
  Matrix m;
  m.a = w;
  m.b = w;
  m.byte_len = u64(rows) * row_bytes<F>(columns);
  m.rows = rows;
  m.pairs = (rows + 1) / 2;
  m.apart = 1;
  m.y = y;
  m.bias = bias;
  return m;
}

template <typename F>
FN Matrix two_matrices(WeightAt a, WeightAt b, uint rows, uint columns, DEVICE float* y) {
  Matrix m = one_matrix<F>(a, rows, columns, y, nullptr);
  m.b = b;
  m.pairs = rows;
  return m;
}

template <typename F> struct Stage {
  enum {
#if STREAM_IS_DEEP
    ROUNDS = 2,
    COUNT = 3,
#else
    ROUNDS = 1,
    COUNT = 2,
#endif
    BLOCKS = 32 * ROUNDS / F::PIECES,
    LEN = BLOCKS * F::BYTES,
    // Otherwise rows begin anywhere, and a window that an unaligned load reads may reach past the end.
    ALIGNED = F::BYTES % 16 == 0,
    ROOM = ALIGNED ? LEN : (LEN + 14 + 15) / 16 * 16 + 16,
    COPIES = ((ALIGNED ? LEN : LEN + 14) + 511) / 512  // of 16 bytes, by each lane
  };
};
// In #if: whether ELEMENT is one of the encodings that kernels of three matrices name
#define ELEMENT_IS_q6_k_q6_k 1
#define ELEMENT_IS_q8_0_q8_0 1
#define ELEMENT_IS(name) GPU_CAT(GPU_CAT(ELEMENT_IS_, ELEMENT), GPU_CAT(_, name))
// Whether the encoding comes as the first two of three matrices with another third: not if it has tables or is MLX's.
#if defined(ELEMENT_HAS_LEVELS) || defined(ELEMENT_HAS_GRID) || defined(MLX_BITS)
#define HAS_MIXES 0
#else
#define HAS_MIXES 1
#endif
// Bytes of a simdgroup's ring
#define RING(F) (Stage<F>::COUNT * 2 * Stage<F>::ROOM)

// Where this lane's copies of one row have got to: at the first of 16 bytes, aligned to 16.
struct Source {
  const DEVICE uchar* at;
  uint left;  // bytes of the matrix from there on, or as many as a row never has; may wrap past the end
};
struct Ahead { uint pair, stage, slot; Source a, b; };

// N matrices of format F, their pairs counted one matrix after the other.
template <typename F, int N> struct Stream {
  Matrix matrices[N];
  Walk walk;
  uint columns;
  Ahead ahead;
  copy_target ring;
};

template <typename F, int N> FN Matrix matrix_of(const THREAD Stream<F, N>& s, THREAD uint& pair) {
  Matrix m = s.matrices[0];
  UNROLL
  for (int i = 1; i < N; i++) {
    if (pair >= m.pairs) {
      pair -= m.pairs;
      m = s.matrices[i];
    }
  }
  return m;
}

template <typename F> FN uint stages_of(uint columns) { return (columns / F::BLOCK + Stage<F>::BLOCKS - 1) / Stage<F>::BLOCKS; }
FN bool has_two(Matrix m) { return m.a.blocks != m.b.blocks; }
FN uint first_row(Matrix m, uint pair) { return has_two(m) ? pair : pair + pair / m.apart * m.apart; }
FN uint second_row(Matrix m, uint pair) { return has_two(m) ? pair : min(first_row(m, pair) + m.apart, m.rows - 1); }

FN Source source_of(const DEVICE uchar* data, u64 byte_len, u64 offset, uint lane) {
  const u64 start = offset - (offset & 15u), left = byte_len - start;
  Source s;
  s.at = data + start + 16 * lane;
  s.left = (left < 0x40000000 ? uint(left) : 0x40000000u) - 16 * lane;
  return s;
}

// How far from a multiple of 16 the row with this many bytes before it is after `stage` stages.
template <typename F> FN uint skew_of(uint row, uint whole, uint stage) {
  if (Stage<F>::ALIGNED) return 0;
  return (row * whole + (Stage<F>::LEN % 16 == 0 ? 0 : stage * Stage<F>::LEN)) & 15u;
}

// Starts the copies of `len` bytes; they land `skew` bytes after `to`.
template <typename F> FN void fetch_row(Source s, uint len, uint skew, copy_target to, uint lane) {
  UNROLL
  for (uint k = 0; k < Stage<F>::COPIES; k++) {
    if (16 * lane + 512 * k < skew + len)
      copy16_async(to + (16 * lane + 512 * k), s.at + 512 * k, Stage<F>::ALIGNED ? 16 : min(16u, s.left - 512 * k));
  }
}

// The next stage of a row; `skew` is that of this one.
template <typename F> FN void advance(THREAD Source& s, uint skew) {
  const uint step = Stage<F>::LEN % 16 == 0 ? uint(Stage<F>::LEN) : (skew + Stage<F>::LEN) / 16 * 16;
  s.at += step;
  s.left -= step;
}

// Starts the copies of the next stage, if there is one, and closes their group.
template <typename F, int N> FN void fetch_stage(THREAD Stream<F, N>& s, uint lane) {
  if (s.ahead.pair < s.walk.end) {
    const uint whole = row_bytes<F>(s.columns);
    uint pair = s.ahead.pair;
    const Matrix m = matrix_of<F, N>(s, pair);
    const uint a = first_row(m, pair), b = second_row(m, pair);
    if (s.ahead.stage == 0) {
      s.ahead.a = source_of(m.a.blocks, m.byte_len, u64(a) * whole, lane);
      s.ahead.b = source_of(m.b.blocks, m.byte_len, u64(b) * whole, lane);
    }
    const uint from = s.ahead.stage * Stage<F>::LEN, len = min(whole - from, uint(Stage<F>::LEN));
    const copy_target to = s.ring + s.ahead.slot * (2 * Stage<F>::ROOM);
    const uint skew_a = skew_of<F>(a, whole, s.ahead.stage), skew_b = skew_of<F>(b, whole, s.ahead.stage);
    fetch_row<F>(s.ahead.a, len, skew_a, to, lane);
    fetch_row<F>(s.ahead.b, len, skew_b, to + Stage<F>::ROOM, lane);
    advance<F>(s.ahead.a, skew_a);
    advance<F>(s.ahead.b, skew_b);
    s.ahead.stage++;
    if (s.ahead.stage == stages_of<F>(s.columns)) {
      s.ahead.stage = 0;
      s.ahead.pair += s.walk.step;
    }
    s.ahead.slot = s.ahead.slot + 1 == Stage<F>::COUNT ? 0 : s.ahead.slot + 1;
  }
  COPY_END();
}

// Bytes of each of the two rows at a time that a simdgroup brings nearer before the activations are there: on a large
// GPU a third of the second-level cache.
enum { AHEAD_BYTES = 3840 };

// Starts the copies of all stages but one, and brings the first rows nearer.
template <typename F, int N> FN void begin_stream(THREAD Stream<F, N>& s, THREADGROUP uchar* ring, uint lane) {
  s.ahead.pair = s.walk.first;
  s.ahead.stage = 0;
  s.ahead.slot = 0;
  s.ring = copy_target_at(ring);
  for (int i = 0; i < Stage<F>::COUNT - 1; i++) fetch_stage<F, N>(s, lane);
  const uint whole = row_bytes<F>(s.columns), bytes = min(whole, uint(AHEAD_BYTES));
  uint pair = s.walk.first + lane / 2 * s.walk.step;
  if (whole % 16 == 0 && lane / 2 * whole < AHEAD_BYTES && pair < s.walk.end) {
    const Matrix m = matrix_of<F, N>(s, pair);
    if (lane % 2 == 0) prefetch(m.a.blocks + u64(first_row(m, pair)) * whole, bytes);
    else prefetch(m.b.blocks + u64(second_row(m, pair)) * whole, bytes);
  }
}

FN int exact_dot(THREAD const uint* q, uint4 high, uint4 low) {
  const int h = dot4_i8(q[0], high.x, dot4_i8(q[1], high.y, dot4_i8(q[2], high.z, dot4_i8(q[3], high.w, 0))));
  const int l = dot4_i8(q[0], low.x, dot4_i8(q[1], low.y, dot4_i8(q[2], low.z, dot4_i8(q[3], low.w, 0))));
  return h * 256 + l;
}

// The activations of a piece
template <typename F> struct Inputs {
  uint4 high[F::RUNS], low[F::RUNS];
  float scale[F::RUNS], sum[F::RUNS];
};

// Where part `part` of a piece is kept. F is the format of the rows, A the one that the activations are laid out for.
template <typename F, typename A> struct Place {
  FN uint of(uint block, uint piece, uint part) { return place_of<A>(block * (F::BLOCK / 16) + F::index_of(piece, part)); }
};
template <typename F> struct Place<F, F> {
  FN uint of(uint block, uint piece, uint part) { return block * (F::BLOCK / 16) + part * F::PIECES + piece; }
};

template <typename F, typename A> FN Inputs<F> inputs_of(Activations x, uint block, uint piece) {
  Inputs<F> inputs;
  UNROLL
  for (uint part = 0; part < F::RUNS; part++) {
    const uint place = Place<F, A>::of(block, piece, part);
    inputs.high[part] = load_u128(x.high + 16 * place);
    inputs.low[part] = load_u128(x.low + 16 * place);
    const uint2 terms = load_u64(x.terms + 8 * place);
    inputs.scale[part] = as_type<float>(terms.x);
    inputs.sum[part] = as_type<float>(terms.y);
  }
  return inputs;
}

// The product of one piece.
template <typename F> struct Product {
  FN float of(Staged block, uint piece, THREAD const Inputs<F>& x, Factors) {
    float product = 0.0f;
    UNROLL
    for (uint part = 0; part < F::RUNS; part++) {
      const Run r = F::run(block, piece, part);
      product = fma(x.scale[part] * r.d, float(exact_dot(r.q, x.high[part], x.low[part])), product);
      if (F::HAS_MIN) product = fma(-r.m, x.sum[part], product);
    }
    return product;
  }
};
// The two runs of a piece have neighbouring scales: one word has both, and they multiply whole numbers.
template <> struct Product<format_q4_k> {
  FN float of(Staged block, uint piece, THREAD const Inputs<format_q4_k>& x, Factors) {
    const uint4 q = load_u128(block + (16 + 16 * piece)), head = load_u128(block);
    uint low[4], high[4];
    take_bits(q, 0, 0x0f0f0f0fu, low);
    take_bits(q, 4, 0x0f0f0f0fu, high);
    const bool late = piece >= 4;
    const uint shift = 16 * (piece / 2 & 1u), upper = shift + (late ? 2 : 0);
    const uint own = late ? 0x3030u : 0x3f3fu, other = late ? 0x0f0fu : 0u;
    const uint scales = (head.w >> shift & other) | (head.y >> upper & own);
    const uint minimums = (head.w >> (shift + 4) & other) | (head.z >> upper & own);
    const int a = exact_dot(low, x.high[0], x.low[0]) * int(scales & 255u);
    const int b = exact_dot(high, x.high[1], x.low[1]) * int(scales >> 8);
    const float products = fma(x.scale[1], float(b), x.scale[0] * float(a));
    const float sums = fma(float(minimums >> 8), x.sum[1], float(minimums & 255u) * x.sum[0]);
    return fma(low_half(head.x), products, -high_half(head.x) * sums);
  }
};

#if defined(MLX_BITS)
template <> struct Product<format_mlx> {
  FN float of(Staged block, uint piece, THREAD const Inputs<format_mlx>& x, Factors f) {
    uint words[MLX_BITS / format_mlx::PIECES], q[4 * format_mlx::RUNS];
    mlx_words<format_mlx::PIECES>(block + format_mlx::BYTES / format_mlx::PIECES * piece, words);
    mlx_codes<format_mlx::RUNS>(words, q);
    float product = 0.0f;
    UNROLL
    for (uint part = 0; part < format_mlx::RUNS; part++) {
      product = fma(x.scale[part] * f.d[part], float(exact_dot(q + 4 * part, x.high[part], x.low[part])), product);
#if defined(MLX_AFFINE)
      product = fma(-f.m[part], x.sum[part], product);
#endif
    }
    return product;
  }
};
#endif

struct Two { float a, b; };

// What becomes of the sums of a pair. Texts may have modes of their own, with a type of their own that says how: then
// before_pair and store_pair for it.
enum { STORE_ROWS, ADD_ROWS, GATE_ROWS };

template <int MODE> FN uint before_pair(Matrix, uint, uint activation) { return activation; }

template <int MODE> FN void store_pair(Matrix m, uint pair, Two sums, uint activation, uint lane) {
  const uint row = first_row(m, pair) + (MODE == GATE_ROWS ? 0 : lane);
  if (row >= m.rows || lane >= (MODE == GATE_ROWS ? 1u : 2u)) return;
  if (MODE == GATE_ROWS) {
    m.y[row] = activate(activation, sums.a) * sums.b;
  } else {
    float sum = lane == 0 ? sums.a : sums.b;
    if (m.bias) sum += m.bias[row];
    m.y[row] = MODE == ADD_ROWS ? *fresh(m.y + row) + sum : sum;
  }
}

// The products of all pairs of the walk, after begin_stream.
template <typename F, typename A, int N, int MODE, typename How>
FN void run_stream(THREAD Stream<F, N>& s, Activations x, THREADGROUP uchar* ring, How how, uint lane) {
  const uint stages = stages_of<F>(s.columns), blocks = s.columns / F::BLOCK, whole = row_bytes<F>(s.columns);
  const uint in_round = lane / F::PIECES, piece = lane % F::PIECES;
  uint slot = 0;
  for (uint next = s.walk.first; next < s.walk.end; next += s.walk.step) {
    uint pair = next;
    const Matrix m = matrix_of<F, N>(s, pair);
    const uint a = first_row(m, pair), b = second_row(m, pair);
    const How now = before_pair<MODE>(m, pair, how);
    Two sums;
    sums.a = 0.0f;
    sums.b = 0.0f;
    for (uint stage = 0; stage < stages; stage++) {
      Factors of_first[Stage<F>::ROUNDS], of_second[Stage<F>::ROUNDS];
      UNROLL
      for (uint round = 0; round < Stage<F>::ROUNDS; round++) {
        const uint block = min(stage * Stage<F>::BLOCKS + in_round + round * (32 / F::PIECES), blocks - 1);
        of_first[round] = factors_of(m.a, a, s.columns, block);
        of_second[round] = factors_of(m.b, b, s.columns, block);
      }
      COPY_WAIT(Stage<F>::COUNT - 2);
      SIMD_BARRIER();  // all lanes see the stage, and none reads the one that is filled next
      fetch_stage<F, N>(s, lane);
      Staged first, second;
      first.base = ring + slot * (2 * Stage<F>::ROOM);
      second.base = first.base + Stage<F>::ROOM;
      UNROLL
      for (uint round = 0; round < Stage<F>::ROUNDS; round++) {
        const uint in_stage = in_round + round * (32 / F::PIECES), block = stage * Stage<F>::BLOCKS + in_stage;
        if (block < blocks) {
          const Inputs<F> inputs = inputs_of<F, A>(x, block, piece);
          first.at = skew_of<F>(a, whole, stage) + in_stage * F::BYTES;
          second.at = skew_of<F>(b, whole, stage) + in_stage * F::BYTES;
          sums.a += Product<F>::of(first, piece, inputs, of_first[round]);
          sums.b += Product<F>::of(second, piece, inputs, of_second[round]);
        }
      }
      slot = slot + 1 == Stage<F>::COUNT ? 0 : slot + 1;
    }
    sums.a = simd_sum(sums.a);
    sums.b = simd_sum(sums.b);
    store_pair<MODE>(m, pair, sums, now, lane);
  }
}

// This simdgroup's share of the pairs `begin`..`end`; neighbours go to different threadgroups.
FN Walk walk_of(uint begin, uint end, uint group, uint groups, uint simd_id, uint num_simds) {
  const uint step = groups * num_simds, mine = simd_id * groups + group;
  Walk w;
  w.first = mine >= begin ? begin + (mine - begin) % step : begin + (step - (begin - mine) % step) % step;
  w.step = step;
  w.end = end;
  return w;
}

// ---- three matrices ----------------------------------------------------------------------
// Two of format F, then one of G: a simdgroup takes its pairs of the first two, then those of the third. The copies that
// run ahead of the activations are those of the first matrix of which it has a pair.
template <typename F, typename G> struct Three {
  Stream<F, 2> first;
  Stream<G, 1> last;
};

#define LARGER(a, b) ((a) > (b) ? (a) : (b))
// Bytes of a simdgroup's ring, and of all threadgroup memory, for the third matrix in G
#define THREE_RING(G) LARGER(RING(Format), RING(G))
#define THREE_BYTES(G) (ACTIVATION_BYTES(WIDTH) + SIMDS * THREE_RING(G))

template <typename F, typename G> FN bool has_first(const THREAD Three<F, G>& s) {
  return s.first.walk.first < s.first.walk.end;
}

// Shares out the pairs of the matrices, which are set.
template <typename F, typename G>
FN void share_three(THREAD Three<F, G>& s, uint columns, uint group, uint groups, uint simd_id) {
  const uint begin = s.first.matrices[0].pairs + s.first.matrices[1].pairs;
  s.first.columns = columns;
  s.first.walk = walk_of(0, begin, group, groups, simd_id, SIMDS);
  s.last.columns = columns;
  s.last.walk = walk_of(begin, begin + s.last.matrices[0].pairs, group, groups, simd_id, SIMDS);
  s.last.walk.first -= begin;
  s.last.walk.end -= begin;
}

template <typename F, typename G> FN void begin_three(THREAD Three<F, G>& s, THREADGROUP uchar* ring, uint lane) {
  if (has_first<F, G>(s)) begin_stream<F, 2>(s.first, ring, lane);
  else begin_stream<G, 1>(s.last, ring, lane);
}

// The products of all pairs, after begin_three.
template <typename F, typename G, int MODE, int LAST_MODE, typename How>
FN void run_three(THREAD Three<F, G>& s, Activations x, THREADGROUP uchar* ring, How how, How last_how, uint lane) {
  if (has_first<F, G>(s)) {
    run_stream<F, F, 2, MODE>(s.first, x, ring, how, lane);
    SIMD_BARRIER();
    begin_stream<G, 1>(s.last, ring, lane);
  }
  run_stream<G, F, 1, LAST_MODE>(s.last, x, ring, last_how, lane);
}
