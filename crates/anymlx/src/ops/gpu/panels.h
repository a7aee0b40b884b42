// Matrices in the form in which tensor cores read them: bf16, in panels of 64 columns. Panel p has the
// columns from 64 p on of all rows, 128 bytes for each row, one row after the other; a panel has
// `stride` rows, a multiple of 8. Within a row, the 16 bytes of columns 8 c .. 8 c + 7 of the panel stand at
// place c ^ (row % 8). Columns past the end are 0.
//
// Of weights [rows, columns], row r becomes row 8 (spread (r / 8)) + first + r % 8: with `spread` 2, two matrices
// stand interleaved by eight rows. The rows that fill up the last eight are 0. A threadgroup of 256 threads unpacks
// 1024 columns (x) of 16 rows (y) into threadgroup memory, and writes them from there.
// Columns of a dense row below `vector_columns` may be taken four at a time: all or none.
struct PanelBlock { uint rows, columns, stride, first, spread, vector_columns; };

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

// Two signed bytes of a word, flipped, as weights
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

// As store_run, the weights d * q - m
FN void store_weights(THREADGROUP uchar* tile, uint row, uint run, THREAD const uint* q, float d, float m) {
  uint words[8];
  UNROLL
  for (uint i = 0; i < 4; i++) {
    const uint flipped = q[i] ^ 0x80808080u;
    words[2 * i] = two_weights(flipped, d, m);
    words[2 * i + 1] = two_weights(flipped >> 16, d, m);
  }
  store_run(tile, row, run, make_uint4(words[0], words[1], words[2], words[3]),
            make_uint4(words[4], words[5], words[6], words[7]));
}

FN void store_zeros(THREADGROUP uchar* tile, uint row, uint run) {
  store_run(tile, row, run, make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0));
}

// Writes what the threadgroup has unpacked, after a barrier.
FN void write_panels(const THREADGROUP uchar* tile, DEVICE uchar* y, PanelBlock p, uint first_panel, uint first_row,
                     uint tid) {
  const uint panels = (p.columns + WIDTH - 1) / WIDTH, rows = (p.rows + 7) / 8 * 8;
  UNROLL
  for (uint i = tid; i < GROUP_PANELS * GROUP_ROWS * 8; i += 256) {
    const uint chunk = i % 8, in_tile = i / 8 % GROUP_ROWS, in_group = i / (8 * GROUP_ROWS);
    const uint row = first_row + in_tile, panel = first_panel + in_group;
    if (row < rows && panel < panels) {
      const uint to = row / 8 * 8 * p.spread + p.first + row % 8;
      store_u128(y + (u64(panel) * p.stride + to) * 128 + 16 * chunk, load_u128(tile + 16 * i));
    }
  }
}
