// Products of panels (panels.gpu.cpp tells the layout) on the tensor cores of sm_90a:
//   y[t, r] = sum_c x[t, c] * w[r, c]
//
//   x: [tokens, columns] and w: [rows, columns] as panels of `x_stride` and `w_stride` rows.
//
// Two threadgroups of a cluster take 2 x 128 tokens and the same N rows of w, one set of tiles after the other.
// In each, one thread of the first warpgroup copies tiles of 64 columns into a ring in shared memory: its
// own tokens, and its half of the rows of w for both. The two other warpgroups multiply 64 tokens each.
// Each stage of the ring has two barriers: `full` counts the bytes that arrive, `empty` the warps of
// both threadgroups that have read them.
//
// What becomes of the sums:
//   store   y0, y1, y2: f32 [tokens, rows_i], for up to three matrices whose rows stand one after the other in w
//           (each padded to 8), plus a bias where there is one
//   add     y0 += sums, plus a bias where there is one
//   gate    w has two matrices interleaved by eight rows: y0 = activation(first) * second, f32 [tokens, rows / 2]
//   panels  as gate, into panels of y_stride rows
struct PanelMatmulBlock {
  uint tokens, columns, x_stride, w_stride, y_stride;
  uint start1, start2;         // rows of w where the second and third matrix begin
  uint rows0, rows1, rows2;    // rows of the outputs
  uint has_bias0, has_bias1, has_bias2;
  uint activation;
  uint vectors;                // 1 where two neighbours of an output may be written at once
};

enum { STEP = 64, ROW_BYTES = 2 * STEP, TOKENS = 128, CLUSTER = 2, THREADS = 384, CONSUMER_WARPS = 8 };
enum { STORE, ADD, GATE, PANELS };

template <int N> struct Ring {
  enum {
    A_BYTES = TOKENS * ROW_BYTES,
    STAGE_BYTES = A_BYTES + N * ROW_BYTES,
    STAGES = 196608 / STAGE_BYTES,
    // tiles are aligned to 1024 bytes by hand
    BYTES = STAGES * STAGE_BYTES + 1024 + 16 * STAGES
  };
};

// Which stage of the ring comes next, and the parity of its barriers' phase
template <int N> struct Turn {
  uint stage, parity;
  __device__ __forceinline__ void next() {
    if (++stage == Ring<N>::STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};

FN void barrier_init(uint barrier, uint count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}

FN void barrier_expect(uint barrier, uint bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// The order that these two give within a threadgroup suffices: what passes between threadgroups is moved by the
// copy engine and read by matrix instructions, which are complete before the arrival. A wider scope would flush
// caches at every step.
// Arrives at the same barrier of threadgroup `rank` of the cluster.
FN void barrier_arrive_at(uint barrier, uint rank) {
  asm volatile(
      "{ .reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1; "
      "mbarrier.arrive.shared::cluster.b64 _, [remote]; }" ::"r"(barrier), "r"(rank)
      : "memory");
}

FN void barrier_wait(uint barrier, uint parity) {
  uint done;
  do {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!done);
}

// Copies into this threadgroup's shared memory, or to the same place in all of the cluster.
FN void copy_in(uint to, const uchar* from, uint bytes, uint barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

FN void copy_in_all(uint to, const uchar* from, uint bytes, uint barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(ushort((1 << CLUSTER) - 1))
      : "memory");
}

FN uint cluster_rank() {
  uint rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

FN void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Which tile comes next: those of the same rows of w follow each other.
struct Tiles { uint token_tiles, count; };

template <int N> FN Tiles tiles_of(PanelMatmulBlock p) {
  Tiles t;
  t.token_tiles = (p.tokens + CLUSTER * TOKENS - 1) / (CLUSTER * TOKENS);
  t.count = t.token_tiles * ((p.w_stride + N - 1) / N);
  return t;
}

FN uint rows_left(uint rows, uint first, uint most) { return rows > first ? min(rows - first, most) : 0; }

template <int N>
FN void produce(const uchar* x, const uchar* w, PanelMatmulBlock p, uint ring, uint full, uint empty, uint rank) {
  typedef Ring<N> R;
  const Tiles tiles = tiles_of<N>(p);
  const uint steps = (p.columns + STEP - 1) / STEP;
  Turn<N> turn = {0, 1};
  for (uint tile = blockIdx.x / CLUSTER; tile < tiles.count; tile += gridDim.x / CLUSTER) {
    const uint first_token = (tile % tiles.token_tiles * CLUSTER + rank) * TOKENS;
    const uint first_row = tile / tiles.token_tiles * N, first_half = first_row + rank * (N / CLUSTER);
    const uint a_bytes = rows_left(p.tokens, first_token, TOKENS) * ROW_BYTES;
    const uint b_bytes = rows_left(p.w_stride, first_row, N) * ROW_BYTES;
    const uint half_bytes = rows_left(p.w_stride, first_half, N / CLUSTER) * ROW_BYTES;
    const uchar* a = x + u64(first_token) * ROW_BYTES;
    const uchar* b = w + u64(first_half) * ROW_BYTES;
    for (uint step = 0; step < steps; step++) {
      const uint to = ring + turn.stage * R::STAGE_BYTES, arrived = full + 8 * turn.stage;
      barrier_wait(empty + 8 * turn.stage, turn.parity);
      barrier_expect(arrived, a_bytes + b_bytes);
      if (a_bytes > 0) copy_in(to, a, a_bytes, arrived);
      if (half_bytes > 0) copy_in_all(to + R::A_BYTES + rank * (N / CLUSTER) * ROW_BYTES, b, half_bytes, arrived);
      a += u64(p.x_stride) * ROW_BYTES;
      b += u64(p.w_stride) * ROW_BYTES;
      turn.next();
    }
  }
}

// Where column `column` of a row of the stored products belongs
struct Place { float* output; const float* bias; uint rows, column; };

struct Outputs { float* y0; float* y1; float* y2; const float* bias0; const float* bias1; const float* bias2; };

FN Place place_of(Outputs to, PanelMatmulBlock p, uint column) {
  Place place;
  if (column >= p.start2) {
    place.output = to.y2, place.bias = p.has_bias2 ? to.bias2 : nullptr, place.rows = p.rows2;
    place.column = column - p.start2;
  } else if (column >= p.start1) {
    place.output = to.y1, place.bias = p.has_bias1 ? to.bias1 : nullptr, place.rows = p.rows1;
    place.column = column - p.start1;
  } else {
    place.output = to.y0, place.bias = p.has_bias0 ? to.bias0 : nullptr, place.rows = p.rows0;
    place.column = column;
  }
  return place;
}

// Writes two neighbours of one token.
template <int KIND> FN void store_two(Place place, PanelMatmulBlock p, uint token, float a, float b) {
  if (token >= p.tokens || place.column >= place.rows) return;
  float* y = place.output + u64(token) * place.rows + place.column;
  if (place.bias) {
    a += place.bias[place.column];
    if (place.column + 1 < place.rows) b += place.bias[place.column + 1];
  }
  if (p.vectors) {
    float2 v = make_float2(a, b);
    if (KIND == ADD) {
      const float2 before = *(const float2*)y;
      v.x += before.x;
      v.y += before.y;
    }
    *(float2*)y = v;
    return;
  }
  y[0] = KIND == ADD ? y[0] + a : a;
  if (place.column + 1 < place.rows) y[1] = KIND == ADD ? y[1] + b : b;
}

FN void panel_two(Outputs to, PanelMatmulBlock p, uint token, uint column, float a, float b) {
  if (token >= p.tokens) return;
  uint both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(b), "f"(a));
  const uint chunk = column % STEP / 8 ^ (token & 7u);
  uchar* row = (uchar*)to.y0 + (u64(column / STEP) * p.y_stride + token) * ROW_BYTES;
  *(uint*)(row + 16 * chunk + column % 8 * 2) = both;
}

template <int BY, int N> FN void move_down(Sums<N>& sums) {
  UNROLL
  for (int i = 0; i + BY < N / 2; i++) sums.at[i] = sums.at[i + BY];
}

// As `finish_rows`, for a tile that lies within one output.
template <int N, int KIND>
FN void finish_inside(const Sums<N>& sums, Place place, PanelMatmulBlock p, uint token, uint lane) {
  enum { BATCH = 8 };  // loads in flight
  const uint column = place.column + lane % 4 * 2;
  const float* bias = place.bias ? place.bias + column : nullptr;
  UNROLL
  for (int half = 0; half < 2; half++) {
    float* y = place.output + u64(token + 8 * half) * place.rows + column;
    UNROLL
    for (int first = 0; first < N / 8; first += BATCH) {
      float2 v[BATCH];
      UNROLL
      for (int j = 0; j < BATCH; j++) v[j] = KIND == ADD ? *(const float2*)(y + 8 * (first + j)) : make_float2(0.0f, 0.0f);
      if (bias) {
        UNROLL
        for (int j = 0; j < BATCH; j++) {
          v[j].x += bias[8 * (first + j)];
          v[j].y += bias[8 * (first + j) + 1];
        }
      }
      UNROLL
      for (int j = 0; j < BATCH; j++) {
        const int i = 4 * (first + j) + 2 * half;
        *(float2*)(y + 8 * (first + j)) = make_float2(v[j].x + sums.at[i], v[j].y + sums.at[i + 1]);
      }
    }
  }
}

// A thread has, of every eight rows of w, two neighbours for its token and for the eighth after it.
template <int N, int KIND>
FN void finish_rows(Sums<N>& sums, Outputs to, PanelMatmulBlock p, uint token, uint first_row, uint lane) {
  const Place all = place_of(to, p, first_row);
  if (p.vectors && token / 16 * 16 + 16 <= p.tokens && all.column + N <= all.rows)
    return finish_inside<N, KIND>(sums, all, p, token, lane);
  // Tiles at an edge: a loop that is not unrolled, for which the sums move down.
  _Pragma("unroll 1")
  for (uint column = first_row; column < min(first_row + N, p.w_stride); column += 8) {
    Place place = place_of(to, p, column);
    place.column += lane % 4 * 2;
    store_two<KIND>(place, p, token, sums.at[0], sums.at[1]);
    store_two<KIND>(place, p, token + 8, sums.at[2], sums.at[3]);
    move_down<4>(sums);
  }
}

// activation.h's `activate` of the first two kinds, with approximations that are good to some 2^-20: inputs have been rounded to bf16.
template <int ACTIVATION> FN float activate_fast(float x) {
  const float z = ACTIVATION == ACTIVATION_SILU ? x : 1.5957691f * x * fma(0.044715f, x * x, 1.0f);
  return x * __fdividef(1.0f, 1.0f + __expf(-z));
}

// The activation of the first matrix times the second, in the place of the first
template <int N, int ACTIVATION> FN void gate(Sums<N>& sums) {
  UNROLL
  for (int j = 0; j < N / 2; j += 8) {
    UNROLL
    for (int i = j; i < j + 4; i++) sums.at[i] = activate_fast<ACTIVATION>(sums.at[i]) * sums.at[i + 4];
  }
}

// As `gate`, for the activation that is long and rare: a loop that is not unrolled, for which the sums go round.
template <int N> FN void gate_gelu_erf(Sums<N>& sums) {
  _Pragma("unroll 1")
  for (int j = 0; j < N / 16; j++) {
    Sums<8> first;
    UNROLL
    for (int i = 0; i < 4; i++) first.at[i] = gelu_erf(sums.at[i]) * sums.at[i + 4];
    move_down<8>(sums);
    UNROLL
    for (int i = 0; i < 4; i++) sums.at[N / 2 - 8 + i] = first.at[i];
  }
}

template <int N, int KIND>
FN void finish_gated(Sums<N>& sums, Outputs to, PanelMatmulBlock p, uint token, uint first_row, uint lane) {
  if (p.activation == ACTIVATION_SILU) gate<N, ACTIVATION_SILU>(sums);
  else if (p.activation == ACTIVATION_GELU_TANH) gate<N, ACTIVATION_GELU_TANH>(sums);
  else gate_gelu_erf(sums);
  const uint first_column = first_row / 2 + lane % 4 * 2;
  if constexpr (KIND == PANELS) {
    UNROLL
    for (int j = 0; j < N / 16; j++) {
      if (first_row + 16 * j < p.w_stride) {
        panel_two(to, p, token, first_column + 8 * j, sums.at[8 * j], sums.at[8 * j + 1]);
        panel_two(to, p, token + 8, first_column + 8 * j, sums.at[8 * j + 2], sums.at[8 * j + 3]);
      }
    }
  } else {
    Place place;
    place.output = to.y0, place.bias = nullptr, place.rows = p.rows0;
      _Pragma("unroll 1")
    for (uint row = first_row; row < min(first_row + N, p.w_stride); row += 16) {
      place.column = row / 2 + lane % 4 * 2;
      store_two<STORE>(place, p, token, sums.at[0], sums.at[1]);
      store_two<STORE>(place, p, token + 8, sums.at[2], sums.at[3]);
      move_down<8>(sums);
    }
  }
}

template <int N, int KIND>
FN void consume(Outputs to, PanelMatmulBlock p, uint ring, uint full, uint empty, uint rank, uint consumer) {
  typedef Ring<N> R;
  const uint warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const Tiles tiles = tiles_of<N>(p);
  const uint steps = (p.columns + STEP - 1) / STEP;
  Turn<N> turn = {0, 0};
  for (uint tile = blockIdx.x / CLUSTER; tile < tiles.count; tile += gridDim.x / CLUSTER) {
    const uint first_token = (tile % tiles.token_tiles * CLUSTER + rank) * TOKENS;
    const uint first_row = tile / tiles.token_tiles * N;
    if (first_token + 64 * consumer >= p.tokens) {  // nothing to multiply; the copies go on for the others
      for (uint step = 0; step < steps; step++) {
        barrier_wait(full + 8 * turn.stage, turn.parity);
        if (lane < CLUSTER) barrier_arrive_at(empty + 8 * turn.stage, lane);
        turn.next();
      }
      continue;
    }
    Sums<N> sums;
    uint read = 0;
    for (uint step = 0; step < steps; step++) {
      barrier_wait(full + 8 * turn.stage, turn.parity);
      const uint a = ring + turn.stage * R::STAGE_BYTES + consumer * (64 * ROW_BYTES), b = ring + turn.stage * R::STAGE_BYTES + R::A_BYTES;
      multiplications_begin();
      UNROLL
      for (uint k = 0; k < STEP / 16; k++)
        multiply_bf16(sums, matrix_at(a + 32 * k), matrix_at(b + 32 * k), step > 0 || k > 0);
      multiplications_commit();
      multiplications_wait<1>();
      if (step > 0 && lane < CLUSTER) barrier_arrive_at(empty + 8 * read, lane);
      read = turn.stage;
      turn.next();
    }
    multiplications_wait<0>();
    if (lane < CLUSTER) barrier_arrive_at(empty + 8 * read, lane);
    const uint token = first_token + 64 * consumer + 16 * warp + lane / 4;
    if constexpr (KIND == STORE || KIND == ADD) finish_rows<N, KIND>(sums, to, p, token, first_row, lane);
    else finish_gated<N, KIND>(sums, to, p, token, first_row, lane);
  }
}

template <int N, int KIND> FN void panel_matmul(const uchar* x, const uchar* w, Outputs to, PanelMatmulBlock p) {
  typedef Ring<N> R;
  extern __shared__ uchar shared[];
  const uint rank = cluster_rank(), group = threadIdx.x / 128;
  const uint ring = (shared_address(shared) + 1023) / 1024 * 1024;
  const uint full = ring + R::STAGES * R::STAGE_BYTES, empty = full + 8 * R::STAGES;
  if (threadIdx.x == 0) {
    for (uint s = 0; s < R::STAGES; s++) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, CLUSTER * CONSUMER_WARPS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_sync();
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) produce<N>(x, w, p, ring, full, empty, rank);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    consume<N, KIND>(to, p, ring, full, empty, rank, group - 1);
  }
  cluster_sync();
}

// One kernel of a text: RESULT (store1, store3, add, gate or panels) and ROWS of w in a tile come with the text.
#define NAME GPU_CAT(GPU_CAT(GPU_CAT(panel_matmul_bf16_, RESULT), _n), ROWS)
#define TO_STORE_store1 1
#define TO_STORE_store3 3
#define TO_ADD_add 1
#define TO_GATE_gate 1
DYNAMIC_SHARED(NAME, Ring<ROWS>::BYTES)
extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1) NAME(
    const uchar* x, const uchar* w,
#if GPU_CAT(TO_STORE_, RESULT) == 3
    const float* bias0, const float* bias1, const float* bias2, float* y0, float* y1, float* y2, const PanelMatmulBlock p) {
  panel_matmul<ROWS, STORE>(x, w, Outputs{y0, y1, y2, bias0, bias1, bias2}, p);
#elif GPU_CAT(TO_STORE_, RESULT)
    const float* bias, float* y, const PanelMatmulBlock p) {
  panel_matmul<ROWS, STORE>(x, w, Outputs{y, nullptr, nullptr, bias, nullptr, nullptr}, p);
#elif GPU_CAT(TO_ADD_, RESULT)
    const float* bias, float* y, const PanelMatmulBlock p) {
  panel_matmul<ROWS, ADD>(x, w, Outputs{y, nullptr, nullptr, bias, nullptr, nullptr}, p);
#elif GPU_CAT(TO_GATE_, RESULT)
    float* y, const PanelMatmulBlock p) {
  panel_matmul<ROWS, GATE>(x, w, Outputs{y, nullptr, nullptr, nullptr, nullptr, nullptr}, p);
#else
    uchar* y, const PanelMatmulBlock p) {
  panel_matmul<ROWS, PANELS>(x, w, Outputs{(float*)y, nullptr, nullptr, nullptr, nullptr, nullptr}, p);
#endif
}
