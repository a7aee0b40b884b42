// y[r] = activation(sum_c x[c] * gate[r, c]) * sum_c x[c] * up[r, c] for one row x of activations, normed first
// if the norm says so.
//
//   x: f32 [columns]    norm: f32 [columns]    gate, up: [rows, columns] in the encoding ELEMENT    y: f32 [rows]
// Without a norm its binding is never read. `groups` is the number of threadgroups.
struct GatedProjectionBlock { Norm norm; uint rows, activation, groups; };

#define GATED_BYTES (ACTIVATION_BYTES(WIDTH) + SIMDS * RING(Format))
LARGE_SHARED_SIZE(GPU_CAT(gated_projection_, ELEMENT), GATED_BYTES)
KERNEL_EARLY(THREADS, 1, GPU_CAT(gated_projection_, ELEMENT), IN(float, x), IN(float, norm), WEIGHT(gate),
             WEIGHT(up), OUT(float, y), PARAMS(GatedProjectionBlock, p)) {
  LARGE_SHARED(memory, GATED_BYTES);
  SHARED(float, partial, 32);
  const Activations a = activations_at(memory, WIDTH);
  THREADGROUP uchar* ring = memory + ACTIVATION_BYTES(WIDTH) + simd_id * RING(Format);
  Stream<Format, 1> s;
  s.matrices[0] = two_matrices<Format>(WEIGHT_AT(gate), WEIGHT_AT(up), p.rows, p.norm.columns, y);
  s.columns = p.norm.columns;
  s.walk = walk_of(0, s.matrices[0].pairs, tg_id.x, p.groups, simd_id, SIMDS);
  GRID_DEPENDENTS();
  expect_norm(norm, p.norm, tg_id.x, tid);
  begin_stream<Format, 1>(s, ring, lane);
  GRID_WAIT();
  stage_activations<Format, WIDTH>(fresh(x), norm, p.norm, a, partial, tid, lane, simd_id);
  BARRIER();
  run_stream<Format, Format, 1, GATE_ROWS>(s, a, ring, p.activation, lane);
}
