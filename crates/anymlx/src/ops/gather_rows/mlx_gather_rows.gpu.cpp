// output[i, c] = w[ids[i], c] * factor, w in MLX's layout: see mlx.h. A row number past the table is a fault.
// With `all_rows`, ids are not read: row i of the output is row i of w.
//
//   ids: u32    output: f32 [ids, columns]
// One threadgroup for each row of the output.
// The last four fields are for other devices.
struct MlxGatherRowsBlock { uint table_rows, columns, all_rows; float factor; uint mode, bits, group, scales; };

KERNEL(GPU_CAT(gather_rows_, ELEMENT), IN(uint, w), IN(MlxScale, scales), IN(MlxScale, biases), IN(uint, ids),
       OUT(float, output), PARAMS(MlxGatherRowsBlock, p)) {
  const uint id = p.all_rows ? tg_id.x : ids[tg_id.x];
  if (id < p.table_rows) {
    const MlxRow row = mlx_row(w, scales, biases, id, p.columns);
    DEVICE float* to = output + u64(tg_id.x) * p.columns;
    for (uint c = tid; c < p.columns; c += tg_size.x) to[c] = mlx_weight(row, c / 32, c % 32) * p.factor;
  } else if (tid == 0) {
    FAULT(FAULT_ROW, tg_id.x, id, p.table_rows);
  }
}
