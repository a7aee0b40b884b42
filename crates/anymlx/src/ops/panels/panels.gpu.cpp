// Panels (panels.h) of
// panels_ELEMENT: weights [rows, columns].
// panels_f32_rows, panels_f32_normed: activations, f32 [rows, columns], as they are or after an rms norm.
//   x counts rows.
#if defined(ELEMENT_IS_QUANTIZED)
typedef GPU_CAT(format_, ELEMENT) Format;
typedef uchar Stored;
enum { ITEM_RUNS = Format::RUNS, BLOCK_RUNS = Format::BLOCK / 16 };

// The pieces of a row are items; `item` counts them within the threadgroup's columns.
FN void unpack(const DEVICE uchar* w, THREADGROUP uchar* tile, PanelBlock p, uint row, uint in_tile, uint column,
               uint item) {
  const uint block = item / Format::PIECES, piece = item % Format::PIECES;
  const uint first = column + block * Format::BLOCK;
  const bool inside = row < p.rows && first < p.columns;
  const DEVICE uchar* at = w + (u64(row) * (p.columns / Format::BLOCK) + first / Format::BLOCK) * Format::BYTES;
  UNROLL
  for (uint part = 0; part < ITEM_RUNS; part++) {
    const uint run = block * BLOCK_RUNS + Format::index_of(piece, part);
    if (inside) {
      const Run r = Format::run(at, piece, part);
      store_weights(tile, in_tile, run, r.q, r.d, r.m);
    } else {
      store_zeros(tile, in_tile, run);
    }
  }
}
#else
typedef GPU_CAT(dense_, ELEMENT) Stored;
enum { ITEM_RUNS = 1 };

FN float value_at(const DEVICE Stored* row, uint column, uint columns) {
  return column < columns ? ld(row + column) : 0.0f;
}

FN void unpack(const DEVICE Stored* w, THREADGROUP uchar* tile, PanelBlock p, uint row, uint in_tile, uint column,
               uint item) {
  const uint first = column + 16 * item;
  float4 v[4];
  UNROLL
  for (uint i = 0; i < 4; i++) {
    v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (row < p.rows) {
      const DEVICE Stored* from = w + u64(row) * p.columns;
      const uint c = first + 4 * i;
      if (c < p.vector_columns) v[i] = load4(from + c);
      else v[i] = make_float4(value_at(from, c, p.columns), value_at(from, c + 1, p.columns),
                              value_at(from, c + 2, p.columns), value_at(from, c + 3, p.columns));
    }
  }
  store_run(tile, in_tile, item, eight_bf16(v[0], v[1]), eight_bf16(v[2], v[3]));
}
#endif

KERNEL_BOUNDED(256, GPU_CAT(panels_, ELEMENT), IN(Stored, w), OUT(uchar, y), PARAMS(PanelBlock, p)) {
  SHARED(uchar, tile, GROUP_PANELS * GROUP_ROWS * 128);
  const uint column = tg_id.x * (GROUP_PANELS * WIDTH), first_row = tg_id.y * GROUP_ROWS;
  const uint items = RUNS_OF_ROW / ITEM_RUNS;
  UNROLL
  for (uint i = tid; i < GROUP_ROWS * items; i += 256)
    unpack(w, tile, p, first_row + i / items, i / items, column, i % items);
  BARRIER();
  write_panels((const THREADGROUP uchar*)tile, y, p, tg_id.x * GROUP_PANELS, first_row, tid);
}

#define ACTIVATIONS_f32 1
#if GPU_CAT(ACTIVATIONS_, ELEMENT)
struct RowsBlock { uint columns, vector_columns, stride; float epsilon, weight_offset; };

FN float4 four_at(const DEVICE float* x, uint c, RowsBlock p) {
  if (c < p.vector_columns) return load4(x + c);
  return make_float4(value_at(x, c, p.columns), value_at(x, c + 1, p.columns), value_at(x, c + 2, p.columns),
                     value_at(x, c + 3, p.columns));
}

FN void store_eight(DEVICE uchar* y, uint row, uint c, RowsBlock p, float4 a, float4 b) {
  store_u128(y + (u64(c / WIDTH) * p.stride + row) * 128 + 16 * ((c / 8 % 8) ^ (row & 7u)), eight_bf16(a, b));
}

KERNEL(panels_f32_rows, IN(float, x), OUT(uchar, y), PARAMS(RowsBlock, p)) {
  const DEVICE float* row = x + u64(tg_id.x) * p.columns;
  const uint padded = (p.columns + WIDTH - 1) / WIDTH * WIDTH;
  for (uint c = 8 * tid; c < padded; c += 8 * tg_size.x)
    store_eight(y, tg_id.x, c, p, four_at(row, c, p), four_at(row, c + 4, p));
}

// x / sqrt(mean(x^2) + epsilon) * (w + weight_offset)
KERNEL(panels_f32_normed, IN(float, x), IN(float, w), OUT(uchar, y), PARAMS(RowsBlock, p)) {
  SHARED(float, partial, 32);
  const DEVICE float* row = x + u64(tg_id.x) * p.columns;
  const uint padded = (p.columns + WIDTH - 1) / WIDTH * WIDTH;
  float s = 0.0f;
  for (uint c = 4 * tid; c < p.columns; c += 4 * tg_size.x) {
    const float4 v = four_at(row, c, p);
    s += dot(v, v);
  }
  s = tg_sum(s, partial, lane, simd_id, num_simds);
  const float factor = rsqrt(s / float(p.columns) + p.epsilon);
  const float4 offset = make_float4(p.weight_offset, p.weight_offset, p.weight_offset, p.weight_offset);
  for (uint c = 8 * tid; c < padded; c += 8 * tg_size.x) {
    const float4 a = four_at(row, c, p) * factor * (four_at(w, c, p) + offset);
    const float4 b = four_at(row, c + 4, p) * factor * (four_at(w, c + 4, p) + offset);
    store_eight(y, tg_id.x, c, p, a, b);
  }
}
#endif
