// Matrices in the form in which tensor cores read them: bf16, in panels of 64 columns. Panel p has the
// columns from 64 p on of all rows, 128 bytes for each row, one row after the other; a panel has
// `stride` rows, a multiple of 8. Within a row, the 16 bytes of columns 8 c .. 8 c + 7 of the panel stand at
// place c ^ (row % 8). Columns past the end are 0.
//
// panels_ELEMENT: from weights [rows, columns]. Row r becomes row 8 (spread (r / 8)) + first + r % 8: with
//   `spread` 2, two matrices stand interleaved by eight rows. The rows that fill up the last eight are 0.
//   x counts 1024 columns, y 16 rows; 256 threads.
// panels_f32_rows, panels_f32_normed: from activations, f32 [rows, columns], as they are or after an rms norm.
//   x counts rows.
struct PanelBlock { uint rows, columns, stride, first, spread; };

FN uint two_bf16(float low, float high) {
#if defined(GPU_CUDA) && __CUDA_ARCH__ >= 800
  uint both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return uint(gpu_f32_to_bf16(low)) | uint(gpu_f32_to_bf16(high)) << 16;
#endif
}

FN uint4 eight_bf16(float4 a, float4 b) {
  return make_uint4(two_bf16(a.x, a.y), two_bf16(a.z, a.w), two_bf16(b.x, b.y), two_bf16(b.z, b.w));
}

enum { WIDTH = 64, GROUP_ROWS = 16, GROUP_PANELS = 16, RUNS_OF_ROW = GROUP_PANELS * WIDTH / 16 };

// Puts sixteen values, run `run` of row `row` of the threadgroup's part, into threadgroup memory.
FN void store_run(THREADGROUP uchar* tile, uint row, uint run, uint4 low, uint4 high) {
  const uint chunk = run % 4 * 2, at = (run / 4 * GROUP_ROWS + row) * 128;
  store_u128(tile + at + 16 * (chunk ^ (row & 7u)), low);
  store_u128(tile + at + 16 * ((chunk + 1) ^ (row & 7u)), high);
}

#if defined(ELEMENT_IS_QUANTIZED)
typedef GPU_CAT(format_, ELEMENT) Format;
typedef uchar Stored;
enum { ITEM_RUNS = Format::RUNS, BLOCK_RUNS = Format::BLOCK / 16 };

// Two signed bytes of a word, from the bit `from` on, as weights
FN uint two_weights(uint q, float d, float m) {
#if defined(GPU_CUDA)
  // A byte as the low bits of a number from 2^23 on: conversions of integers are slow.
  const float low = __uint_as_float(__byte_perm(q, 0x4b000000u, 0x7440u)) - 8388736.0f;
  const float high = __uint_as_float(__byte_perm(q, 0x4b000000u, 0x7441u)) - 8388736.0f;
#else
  const float low = float(int(q & 255u) - 128), high = float(int(q >> 8 & 255u) - 128);
#endif
  return two_bf16(fma(d, low, -m), fma(d, high, -m));
}

// The pieces of a row are items; `item` counts them within the threadgroup's columns.
FN void unpack(const DEVICE uchar* w, THREADGROUP uchar* tile, PanelBlock p, uint row, uint in_tile, uint column,
               uint item) {
  const uint block = item / Format::PIECES, piece = item % Format::PIECES;
  const uint first = column + block * Format::BLOCK;
  const bool inside = row < p.rows && first < p.columns;
  const DEVICE uchar* at = w + (u64(row) * (p.columns / Format::BLOCK) + first / Format::BLOCK) * Format::BYTES;
  UNROLL
  for (uint part = 0; part < ITEM_RUNS; part++) {
    uint4 low = make_uint4(0, 0, 0, 0), high = low;
    if (inside) {
      const Run r = Format::run(at, piece, part);
      const uint flip = 0x80808080u;
      low = make_uint4(two_weights(r.q[0] ^ flip, r.d, r.m), two_weights((r.q[0] ^ flip) >> 16, r.d, r.m),
                       two_weights(r.q[1] ^ flip, r.d, r.m), two_weights((r.q[1] ^ flip) >> 16, r.d, r.m));
      high = make_uint4(two_weights(r.q[2] ^ flip, r.d, r.m), two_weights((r.q[2] ^ flip) >> 16, r.d, r.m),
                        two_weights(r.q[3] ^ flip, r.d, r.m), two_weights((r.q[3] ^ flip) >> 16, r.d, r.m));
    }
    store_run(tile, in_tile, block * BLOCK_RUNS + Format::index_of(piece, part), low, high);
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
      v[i] = make_float4(value_at(from, c, p.columns), value_at(from, c + 1, p.columns),
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
  const uint panels = (p.columns + WIDTH - 1) / WIDTH, rows = (p.rows + 7) / 8 * 8;
  UNROLL
  for (uint i = tid; i < GROUP_PANELS * GROUP_ROWS * 8; i += 256) {
    const uint chunk = i % 8, in_tile = i / 8 % GROUP_ROWS, in_group = i / (8 * GROUP_ROWS);
    const uint row = first_row + in_tile, panel = tg_id.x * GROUP_PANELS + in_group;
    if (row < rows && panel < panels) {
      const uint to = row / 8 * 8 * p.spread + p.first + row % 8;
      store_u128(y + (u64(panel) * p.stride + to) * 128 + 16 * chunk,
                 load_u128((const THREADGROUP uchar*)tile + 16 * i));
    }
  }
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
