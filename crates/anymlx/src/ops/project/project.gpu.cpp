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
KERNEL_EARLY(THREADS, 1, PROJECT_ONE, IN(float, x), IN(float, norm), WEIGHT(w0), IN(float, bias0), OUT(float, y0),
             PARAMS(ProjectBlock, p)) {
  LARGE_SHARED(memory, PROJECT_ONE_BYTES);
  SHARED(float, partial, 32);
  const DEVICE float* none = nullptr;
  const uint columns = p.norm.columns;
  const Activations a = activations_at(memory, WIDTH);
  THREADGROUP uchar* ring = memory + ACTIVATION_BYTES(WIDTH) + simd_id * RING(Format);
  Stream<Format, 1> s;
  s.matrices[0] = one_matrix<Format>(WEIGHT_AT(w0), p.rows0, columns, y0, p.has_bias & 1 ? bias0 : none);
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

#define PROJECT_THREE(name, G)                                                                             \
  LARGE_SHARED_SIZE(name, THREE_BYTES(G))                                                                  \
  KERNEL_EARLY(THREADS, 1, name, IN(float, x), IN(float, norm), WEIGHT(w0), WEIGHT(w1), WEIGHT(w2), \
               IN(float, bias0), IN(float, bias1), IN(float, bias2), OUT(float, y0), OUT(float, y1), OUT(float, y2), \
               PARAMS(ProjectBlock, p)) {                                                                  \
    LARGE_SHARED(memory, THREE_BYTES(G));                                                                  \
    SHARED(float, partial, 32);                                                                            \
    const DEVICE float* none = nullptr;                                                                    \
    const uint columns = p.norm.columns;                                                                   \
    const Activations a = activations_at(memory, WIDTH);                                                   \
    THREADGROUP uchar* ring = memory + ACTIVATION_BYTES(WIDTH) + simd_id * THREE_RING(G);                  \
    Three<Format, G> s;                                                                                    \
    s.first.matrices[0] = one_matrix<Format>(WEIGHT_AT(w0), p.rows0, columns, y0, p.has_bias & 1 ? bias0 : none);     \
    s.first.matrices[1] = one_matrix<Format>(WEIGHT_AT(w1), p.rows1, columns, y1, p.has_bias & 2 ? bias1 : none);     \
    s.last.matrices[0] = one_matrix<G>(WEIGHT_AT(w2), p.rows2, columns, y2, p.has_bias & 4 ? bias2 : none);           \
    share_three<Format, G>(s, columns, tg_id.x, p.groups, simd_id);                                        \
    GRID_DEPENDENTS();                                                                                     \
    expect_norm(norm, p.norm, tg_id.x, tid);                                                               \
    begin_three<Format, G>(s, ring, lane);                                                                 \
    GRID_WAIT();                                                                                           \
    stage_activations<Format, WIDTH>(fresh(x), norm, p.norm, a, partial, tid, lane, simd_id);              \
    BARRIER();                                                                                             \
    run_three<Format, G, STORE_ROWS, STORE_ROWS>(s, a, ring, 0u, 0u, lane);                                \
  }
PROJECT_THREE(GPU_CAT(GPU_CAT(project_, ELEMENT), _three), Format)
#if HAS_MIXES && !ELEMENT_IS(q6_k)
PROJECT_THREE(GPU_CAT(GPU_CAT(project_, ELEMENT), _three_q6_k), format_q6_k)
#endif
#if HAS_MIXES && !ELEMENT_IS(q8_0)
PROJECT_THREE(GPU_CAT(GPU_CAT(project_, ELEMENT), _three_q8_0), format_q8_0)
#endif
