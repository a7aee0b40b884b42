// output[i, c] = table[ids[i], c] * factor. A row number past the table is a fault.
//
//   table: [table_rows, columns] in the encoding ELEMENT    ids: u32    output: f32 [ids, columns]
// One threadgroup for each id; quantised rows are taken in runs of 16.
struct GatherRowsBlock { uint table_rows, columns, encoding; float factor; };

#if defined(ELEMENT_IS_QUANTIZED)
typedef uchar Stored;

FN void gather_row(const DEVICE uchar* table, u64 id, DEVICE float* output, GatherRowsBlock p, uint tid, uint threads) {
  typedef GPU_CAT(format_, ELEMENT) Format;
  const uint runs = Format::BLOCK / 16;
  const DEVICE uchar* row = table + id * (p.columns / Format::BLOCK * Format::BYTES);
  for (uint i = tid; i < p.columns / 16; i += threads) {
    const uint index = i % runs;
    const Run r = Format::run(row + i / runs * Format::BYTES, Format::piece_of(index), Format::part_of(index));
    for (uint w = 0; w < 4; w++) {
      const float4 q = signed_bytes(r.q[w]);
      DEVICE float* to = output + 16 * i + 4 * w;
      to[0] = fma(r.d, q.x, -r.m) * p.factor;
      to[1] = fma(r.d, q.y, -r.m) * p.factor;
      to[2] = fma(r.d, q.z, -r.m) * p.factor;
      to[3] = fma(r.d, q.w, -r.m) * p.factor;
    }
  }
}
#else
typedef GPU_CAT(dense_, ELEMENT) Stored;

FN void gather_row(const DEVICE Stored* table, u64 id, DEVICE float* output, GatherRowsBlock p, uint tid, uint threads) {
  for (uint i = tid; i < p.columns; i += threads) output[i] = ld(table + id * p.columns + i) * p.factor;
}
#endif

KERNEL(GPU_CAT(gather_rows_, ELEMENT), IN(Stored, table), IN(uint, ids), OUT(float, output), PARAMS(GatherRowsBlock, p)) {
  const uint id = ids[tg_id.x];
  if (id < p.table_rows) {
    gather_row(table, id, output + u64(tg_id.x) * p.columns, p, tid, tg_size.x);
  } else if (tid == 0) {
    FAULT(FAULT_ROW, tg_id.x, id, p.table_rows);
  }
}
