// y_i[r] = sum_c x[c] * w_i[r, c] + bias_i[r] for one row x of activations, normed first if the norm says so.
//
//   x: f32 [columns]    norm: f32 [columns]    w_i: [rows_i, columns] in the encoding ELEMENT
//   y_i: f32 [rows_i]   bias_i: f32 [rows_i]
// _three_NAME: the third matrix is in the encoding NAME. Without a norm or bias their bindings are never read.
// `groups` is the number of threadgroups.
struct ProjectBlock { Norm norm; uint rows0, rows1, rows2, has_bias, groups; };

#define PROJECT_ONE_BYTES (ACTIVATION_BYTES(WIDTH) + SIMDS * RING(Format))
#define PROJECT_ONE GPU_CAT(GPU_CAT(project_, ELEMENT), _one)
LARGE_SHARED_SIZE(PROJECT_ONE, PROJECT_ONE_BYTES)
KERNEL_EARLY(THREADS, 1, PROJECT_ONE, IN(float, x), IN(float, norm), IN(uchar, w0), IN(float, bias0), OUT(float, y0),
             PARAMS(ProjectBlock, p)) {
  LARGE_SHARED(memory, PROJECT_ONE_BYTES);
  SHARED(float, partial, 32);
  const DEVICE float* none = nullptr;
  const uint columns = p.norm.columns;
  const Activations a = activations_at(memory, WIDTH);
  THREADGROUP uchar* ring = memory + ACTIVATION_BYTES(WIDTH) + simd_id * RING(Format);
  Stream<Format, 1> s;
  s.matrices[0] = one_matrix<Format>(w0, p.rows0, columns, y0, p.has_bias & 1 ? bias0 : none);
  s.columns = columns;
  s.walk = walk_of(0, s.matrices[0].pairs, tg_id.x, p.groups, simd_id, SIMDS);
  GRID_DEPENDENTS();
  expect_norm(norm, p.norm, tg_id.x, tid);
  begin_stream<Format, 1>(s, ring, lane);
  GRID_WAIT();
  stage_activations<Format, WIDTH>(fresh(x), norm, p.norm, a, partial, tid, lane, simd_id);
  BARRIER();
  run_stream<Format, Format, 1, STORE_ROWS>(s, a, ring, 0, lane);
}

#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define PROJECT_THREE_RING(G) LARGER(RING(Format), RING(G))
#define PROJECT_THREE_BYTES(G) (ACTIVATION_BYTES(WIDTH) + SIMDS * PROJECT_THREE_RING(G))

// A simdgroup takes its pairs of the first two matrices, then those of the third. The copies that run
// ahead of the activations are those of the first matrix of which it has a pair.
#define PROJECT_THREE(name, G)                                                                             \
  LARGE_SHARED_SIZE(name, PROJECT_THREE_BYTES(G))                                                          \
  KERNEL_EARLY(THREADS, 1, name, IN(float, x), IN(float, norm), IN(uchar, w0), IN(uchar, w1), IN(uchar, w2), \
               IN(float, bias0), IN(float, bias1), IN(float, bias2), OUT(float, y0), OUT(float, y1), OUT(float, y2), \
               PARAMS(ProjectBlock, p)) {                                                                  \
    LARGE_SHARED(memory, PROJECT_THREE_BYTES(G));                                                          \
    SHARED(float, partial, 32);                                                                            \
    const DEVICE float* none = nullptr;                                                                    \
    const uint columns = p.norm.columns;                                                                   \
    const Activations a = activations_at(memory, WIDTH);                                                   \
    THREADGROUP uchar* ring = memory + ACTIVATION_BYTES(WIDTH) + simd_id * PROJECT_THREE_RING(G);          \
    Stream<Format, 2> s;                                                                                   \
    s.matrices[0] = one_matrix<Format>(w0, p.rows0, columns, y0, p.has_bias & 1 ? bias0 : none);           \
    s.matrices[1] = one_matrix<Format>(w1, p.rows1, columns, y1, p.has_bias & 2 ? bias1 : none);           \
    s.columns = columns;                                                                                   \
    const uint begin = s.matrices[0].pairs + s.matrices[1].pairs;                                          \
    s.walk = walk_of(0, begin, tg_id.x, p.groups, simd_id, SIMDS);                                     \
    Stream<G, 1> t;                                                                                        \
    t.matrices[0] = one_matrix<G>(w2, p.rows2, columns, y2, p.has_bias & 4 ? bias2 : none);                \
    t.columns = columns;                                                                                   \
    t.walk = walk_of(begin, begin + t.matrices[0].pairs, tg_id.x, p.groups, simd_id, SIMDS);           \
    t.walk.first -= begin;                                                                                 \
    t.walk.end -= begin;                                                                                   \
    const bool has_first = s.walk.first < s.walk.end;                                                      \
    GRID_DEPENDENTS();                                                                                     \
    expect_norm(norm, p.norm, tg_id.x, tid);                                                               \
    if (has_first) begin_stream<Format, 2>(s, ring, lane);                                                 \
    else begin_stream<G, 1>(t, ring, lane);                                                          \
    GRID_WAIT();                                                                                           \
    stage_activations<Format, WIDTH>(fresh(x), norm, p.norm, a, partial, tid, lane, simd_id);              \
    BARRIER();                                                                                             \
    if (has_first) {                                                                                       \
      run_stream<Format, Format, 2, STORE_ROWS>(s, a, ring, 0, lane);                                              \
      SIMD_BARRIER();                                                                                      \
      begin_stream<G, 1>(t, ring, lane);                                                             \
    }                                                                                                      \
    run_stream<G, Format, 1, STORE_ROWS>(t, a, ring, 0, lane);                                               \
  }
PROJECT_THREE(GPU_CAT(GPU_CAT(project_, ELEMENT), _three), Format)
#if !ELEMENT_IS(q6_k)
PROJECT_THREE(GPU_CAT(GPU_CAT(project_, ELEMENT), _three_q6_k), format_q6_k)
#endif
#if !ELEMENT_IS(q8_0)
PROJECT_THREE(GPU_CAT(GPU_CAT(project_, ELEMENT), _three_q8_0), format_q8_0)
#endif
