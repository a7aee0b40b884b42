// y[r] += sum_c x[c] * w[r, c] + bias[r], or = instead of +=, for one row x of activations.
//
//   x: f32 [columns]    w: [rows, columns] in the encoding ELEMENT    y: f32 [rows]    bias: f32 [rows]
// Without a bias its binding is never read. `groups` is the number of threadgroups. _wide takes more columns.
struct ProjectAddBlock { uint columns, rows, has_bias, groups; };

FN Norm no_norm(uint columns) {
  Norm n;
  n.columns = columns;
  n.is_normed = 0;
  n.epsilon = 0.0f;
  n.weight_offset = 0.0f;
  return n;
}

#define PROJECT_ADD_BYTES(width) (ACTIVATION_BYTES(width) + SIMDS * RING(Format))
#define PROJECT_ADD(suffix, width, MODE)                                                                   \
  LARGE_SHARED_SIZE(GPU_CAT(GPU_CAT(project_add_, ELEMENT), suffix), PROJECT_ADD_BYTES(width))             \
  KERNEL_EARLY(THREADS, 1, GPU_CAT(GPU_CAT(project_add_, ELEMENT), suffix), IN(float, x), WEIGHT(w),    \
               IN(float, bias), INOUT(float, y), PARAMS(ProjectAddBlock, p)) {                             \
    LARGE_SHARED(memory, PROJECT_ADD_BYTES(width));                                                        \
    SHARED(float, partial, 32);                                                                            \
    const DEVICE float* none = nullptr;                                                                    \
    const Activations a = activations_at(memory, width);                                                   \
    THREADGROUP uchar* ring = memory + ACTIVATION_BYTES(width) + simd_id * RING(Format);                   \
    Stream<Format, 1> s;                                                                                   \
    s.matrices[0] = one_matrix<Format>(WEIGHT_AT(w), p.rows, p.columns, y, p.has_bias ? bias : none);                 \
    s.columns = p.columns;                                                                                 \
    s.walk = walk_of(0, s.matrices[0].pairs, tg_id.x, p.groups, simd_id, SIMDS);                       \
    GRID_DEPENDENTS();                                                                                     \
    begin_stream<Format, 1>(s, ring, lane);                                                                \
    GRID_WAIT();                                                                                           \
    stage_activations<Format, width>(fresh(x), x, no_norm(p.columns), a, partial, tid, lane, simd_id);             \
    BARRIER();                                                                                             \
    run_stream<Format, Format, 1, MODE>(s, a, ring, 0, lane);                                                      \
  }
PROJECT_ADD(_add, WIDTH, ADD_ROWS)
PROJECT_ADD(_add_wide, WIDE, ADD_ROWS)
PROJECT_ADD(_store, WIDTH, STORE_ROWS)
PROJECT_ADD(_store_wide, WIDE, STORE_ROWS)
