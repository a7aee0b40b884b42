// Panels (panels.h) of weights [rows, columns] in MLX's layout (mlx.h).

// Run `run` of 32 weights, counted within the threadgroup's columns
FN void unpack(MlxRow w, THREADGROUP uchar* tile, PanelBlock p, bool inside, uint in_tile, uint column, uint run) {
  if (!inside || column + 32 * run >= p.columns) {
    store_zeros(tile, in_tile, 2 * run);
    store_zeros(tile, in_tile, 2 * run + 1);
    return;
  }
  const uint of_row = column / 32 + run;
#if defined(MLX_MXFP8)
  float4 v[8];
  mlx_weights(w, of_row, v);
  const float unit = mlx_unit(w, of_row);
  UNROLL
  for (uint i = 0; i < 8; i++) v[i] = v[i] * unit;
  UNROLL
  for (uint part = 0; part < 2; part++)
    store_run(tile, in_tile, 2 * run + part, eight_bf16(v[4 * part], v[4 * part + 1]),
              eight_bf16(v[4 * part + 2], v[4 * part + 3]));
#else
  const MlxRun r = mlx_run(w, of_row);
  UNROLL
  for (uint part = 0; part < 2; part++) store_weights(tile, in_tile, 2 * run + part, r.q + 4 * part, r.factors.d[part], r.factors.m[part]);
#endif
}

KERNEL_BOUNDED(256, GPU_CAT(panels_, ELEMENT), IN(uint, w), IN(MlxScale, scales), IN(MlxScale, biases), OUT(uchar, y),
               PARAMS(PanelBlock, p)) {
  SHARED(uchar, tile, GROUP_PANELS * GROUP_ROWS * 128);
  const uint first_row = tg_id.y * GROUP_ROWS, runs = GROUP_PANELS * WIDTH / 32;
  UNROLL
  for (uint i = tid; i < GROUP_ROWS * runs; i += 256) {
    const uint row = first_row + i / runs;
    const MlxRow from = mlx_row(w, scales, biases, min(row, p.rows - 1), p.columns);
    unpack(from, tile, p, row < p.rows, i / runs, tg_id.x * (GROUP_PANELS * WIDTH), i % runs);
  }
  BARRIER();
  write_panels((const THREADGROUP uchar*)tile, y, p, tg_id.x * GROUP_PANELS, first_row, tid);
}
