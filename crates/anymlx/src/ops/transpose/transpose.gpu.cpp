// output[c, r] = input[r, c]: input is [rows, columns], of elements of 1, 2, 4 or 8 bytes.
// A threadgroup of 256 threads takes a tile of 32 x 32 through threadgroup memory: x counts tiles of
// columns, y tiles of rows. The tile's rows are a word longer than needed, against bank conflicts.
struct TransposeBlock { uint rows, columns; };

enum { TILE = 32, LENGTH = 33, STEP = 8 };

#define TRANSPOSE(name, T)                                                                        \
  KERNEL_BOUNDED(256, name, IN(T, input), OUT(T, output), PARAMS(TransposeBlock, p)) {            \
    SHARED(T, tile, TILE * LENGTH);                                                               \
    const uint first_row = tg_id.y * TILE, first_column = tg_id.x * TILE, x = tid % TILE, y = tid / TILE; \
    for (uint r = y; r < TILE; r += STEP)                                                         \
      if (first_row + r < p.rows && first_column + x < p.columns)                                 \
        tile[r * LENGTH + x] = input[u64(first_row + r) * p.columns + first_column + x];          \
    BARRIER();                                                                                    \
    for (uint c = y; c < TILE; c += STEP)                                                         \
      if (first_column + c < p.columns && first_row + x < p.rows)                                 \
        output[u64(first_column + c) * p.rows + first_row + x] = tile[x * LENGTH + c];            \
  }
TRANSPOSE(transpose_u8, uchar)
TRANSPOSE(transpose_u16, ushort)
TRANSPOSE(transpose_u32, uint)
TRANSPOSE(transpose_i64, u64)
